"""What a script can wait for: the first event of a pattern, and nothing that only looks like it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted import FIRST_TAIL_FRAME, HEAD, HERE, HUGE, TAIL_7, actor, go

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate
from emu.events import Annotated, Loaded, MachineEvent, Stored
from hvolab.catalog.common import optimize
from hvolab.subject.pattern import (
    BeginsFlush,
    CopiesFrom,
    Finishes,
    Frees,
    Loads,
    Pattern,
    SendsIpi,
    SetsPte,
    Stores,
    matches,
)
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup
from hvolab.subject.script import ScriptPicker, ToEnd, Until
from kernel_model.boot import BootConfig, System

# --- patterns: what a script can wait for ---------------------------------------------------------------

PATTERNS: dict[str, tuple[Pattern, str]] = {
    "load": (Loads(VirtAddr(HEAD + 40)), f"cpu0 until Load({HEAD + 40:#x})"),
    "store": (Stores(VirtAddr(HEAD + 40)), f"cpu0 until Store({HEAD + 40:#x})"),
    "set_pte_at of the head": (SetsPte(HEAD), f"cpu0 until set_pte_at({HEAD:#x})"),
    "set_pte_at of a tail": (SetsPte(TAIL_7), f"cpu0 until set_pte_at({TAIL_7:#x})"),
    "copy": (CopiesFrom(HEAD), f"cpu0 until copy_page(from {HEAD:#x})"),
    "flush": (BeginsFlush(), "cpu0 until a flush begins"),
    "ipi": (SendsIpi(), "cpu0 until an IPI is sent"),
    "free": (Frees(FIRST_TAIL_FRAME), "cpu0 until free(pfn 0xe21)"),
    "end": (Finishes("optimize"), "cpu0 until the end of optimize"),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_script_stops_right_after_the_first_event_of_the_pattern(name: str) -> None:
    pattern, text = PATTERNS[name]
    assert str(Until(0, pattern)) == text
    setup = Setup(
        BootConfig(16 << 20, 2, (HUGE,)),
        (optimize(0), actor(1, "marker", Annotate(HERE))),
        (Until(0, pattern), ToEnd(1)),
        (),
    )
    heard: list[tuple[MachineEvent, bool]] = []

    def listener(system: System) -> Callable[[int, MachineEvent], None]:
        return lambda _number, event: heard.append((event, matches(pattern, event, system.machine)))

    run(setup, lambda system: ScriptPicker(setup.script, system.machine), (listener,))
    first = next(index for index, (_, hit) in enumerate(heard) if hit)
    marker = next(
        index for index, (e, _) in enumerate(heard) if isinstance(e, Annotated) and e.payload == HERE
    )
    assert [type(event) for event, _ in heard[first + 1 : marker]] == []
    assert heard[first][0].cpu == 0


def test_a_read_of_the_address_is_no_store_to_it() -> None:
    script = (Until(0, Stores(VirtAddr(HEAD + 40))), ToEnd(1))
    done = go(script, optimize(0), actor(1, "marker", Annotate(HERE)))
    marker = next(i for i, e in enumerate(done.events) if isinstance(e, Annotated) and e.payload == HERE)
    touched = [type(e) for e in done.events[:marker] if isinstance(e, Loaded | Stored) and e.va == HEAD + 40]
    assert touched == [Loaded, Stored]


def test_a_2m_entry_that_is_written_is_no_pte() -> None:
    """The split stores to the PMD that maps the head page: not what SetsPte waits for."""
    done = go((Until(0, SetsPte(HEAD)), ToEnd(1)), optimize(0), actor(1, "marker", Annotate(HERE)))
    marker = next(i for i, e in enumerate(done.events) if isinstance(e, Annotated) and e.payload == HERE)
    functions = [str(e.site) for e in done.events[:marker] if isinstance(e, Stored)]
    assert "pmd_populate_kernel" in functions
    assert functions[-1] == "set_pte_at"
