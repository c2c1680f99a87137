"""Scripts: each constraint is met in its order, and one that cannot be met says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from emu.addr import Pfn, VirtAddr
from emu.choice import Choice, Question, Step, TakeInterrupt
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Annotate, Await, SetInterrupts, Store
from emu.events import Annotated, Finished, IpiAcknowledged, IpiSent, IpiTaken, Loaded, MachineEvent, Stored
from hvolab.catalog.common import flush_all, optimize
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
from hvolab.subject.run import Run, collect, run
from hvolab.subject.scenario import KernelActor, Setup, vmemmap_page
from hvolab.subject.schedule import parse
from hvolab.subject.script import Constraint, Interrupt, Script, ScriptError, ScriptPicker, ToEnd, Until
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.core.events import GracePeriodEnded
from kernel_model.layout import PerCpu
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage

HUGE = HugePage(Pfn(0x800), HSTATE_2M)
HEAD, TAIL_1, TAIL_7 = (vmemmap_page(HUGE, n) for n in (0, 1, 7))
FIRST_TAIL_FRAME = 0xE21
"""16 MiB: the top 2 MiB back vmemmap, frames 0xe00 on; struct page 0x840 is in its page 0x21."""
DOOR = Word("door")
NOWHERE = VirtAddr(0xFFFF_8880_00FF_0000)


HERE = GracePeriodEnded(-1)
"""What no other actor of these tests announces with that number."""


def word(cpu: int, number: int) -> VirtAddr:
    """A word of that CPU's own, in the direct map."""
    return VirtAddr(PerCpu(cpu).buffer + 8 * number)


def actor(cpu: int, name: str, *ops: Any) -> KernelActor:
    """A routine that awaits these ops."""

    async def routine(_kernel: Kernel, _huge: HugePage) -> None:
        for op in ops:
            await op

    return KernelActor(cpu, name, routine)


def writer(cpu: int, name: str = "writer", words: int = 3) -> KernelActor:
    """Stores 1, 2, ... to words of that CPU's own."""
    return actor(cpu, name, *(Store(word(cpu, n), n + 1) for n in range(words)))


@dataclass
class Watched:
    """A script's picker, and what it picked among what."""

    inner: ScriptPicker
    picked: list[tuple[Choice, dict[int, str]]] = field(default_factory=list)
    system: System | None = None

    def pick(self, enabled: list[Choice]) -> Choice:
        assert self.system is not None
        choice = self.inner.pick(enabled)
        self.picked.append((choice, self.system.machine.blocked()))
        return choice

    def answer(self, question: Question) -> int:
        return self.inner.answer(question)

    def finish(self) -> None:
        self.inner.finish()


@dataclass
class Scripted:
    """A finished run with its events and picks."""

    run: Run
    events: list[MachineEvent]
    picked: list[tuple[Choice, dict[int, str]]]

    def of(self, *kinds: type[MachineEvent]) -> list[MachineEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    def stores(self) -> list[tuple[int, int]]:
        """(cpu, value) of each store to a word of a CPU's own."""
        own = range(PerCpu(0).rcu_nesting, PerCpu(8).rcu_nesting)
        return [(e.cpu, e.value) for e in self.events if isinstance(e, Stored) and e.va in own]


def go(script: Script, *actors: KernelActor, cpus: int = 2) -> Scripted:
    setup = Setup(BootConfig(16 << 20, cpus, (HUGE,)), actors, script, ())
    events: list[tuple[int, MachineEvent]] = []
    watched: list[Watched] = []

    def picker(system: System) -> Watched:
        watched.append(Watched(ScriptPicker(setup.script, system.machine), system=system))
        return watched[0]

    done = run(setup, picker, (collect(events),))
    return Scripted(done, [event for _, event in events], watched[0].picked)


def refused(script: Script, *actors: KernelActor, cpus: int = 2) -> str:
    with pytest.raises(ScriptError) as caught:
        go(script, *actors, cpus=cpus)
    return str(caught.value)


# --- constraints are met --------------------------------------------------------------------------------


def test_without_constraints_the_lowest_cpu_runs_first() -> None:
    done = go((), writer(1), writer(0))
    assert done.stores() == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]


def test_until_includes_the_step_in_which_it_happens_and_no_other() -> None:
    done = go((Until(1, Stores(word(1, 1))),), writer(0), writer(1))
    assert done.stores() == [(1, 1), (1, 2), (0, 1), (0, 2), (0, 3), (1, 3)]


def test_constraints_are_met_one_after_the_other() -> None:
    script = (
        Until(1, Stores(word(1, 0))),
        Until(0, Stores(word(0, 1))),
        Until(1, Stores(word(1, 1))),
        ToEnd(0),
        ToEnd(1),
    )
    assert go(script, writer(0), writer(1)).stores() == [(1, 1), (0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]


def test_what_another_cpu_does_meets_no_constraint() -> None:
    # cpu0 stores to the word first; cpu1 must still do so itself.
    both = (actor(0, "a", Store(word(0, 0), 1)), actor(1, "b", Store(word(1, 1), 7), Store(word(0, 0), 8)))
    done = go((ToEnd(0), Until(1, Stores(word(0, 0)))), *both)
    assert done.stores() == [(0, 1), (1, 7), (1, 8)]


def test_what_happened_before_meets_no_later_constraint() -> None:
    again = actor(1, "b", Store(word(1, 0), 1), Store(word(1, 1), 2), Store(word(1, 0), 3))
    script = (Until(1, Stores(word(1, 0))), Until(1, Stores(word(1, 0))), ToEnd(0))
    assert go(script, writer(0, words=1), again).stores() == [(1, 1), (1, 2), (1, 3), (0, 1)]


def test_to_its_end_takes_in_every_actor_of_the_cpu() -> None:
    done = go((ToEnd(1), ToEnd(0)), writer(0), writer(1, "first", 1), writer(1, "second", 2))
    assert done.stores() == [(1, 1), (1, 1), (1, 2), (0, 1), (0, 2), (0, 3)]


def test_until_the_end_of_one_actor_leaves_the_next_alone() -> None:
    done = go(
        (Until(1, Finishes("first")),), writer(0, words=1), writer(1, "first", 1), writer(1, "second", 2)
    )
    assert done.stores() == [(1, 1), (0, 1), (1, 1), (1, 2)]


def test_a_cpu_without_actors_is_at_its_end() -> None:
    assert go((ToEnd(1), ToEnd(0)), writer(0, words=1)).stores() == [(0, 1)]


def test_the_rest_is_run_lowest_cpu_first_after_the_last_constraint() -> None:
    done = go((Until(2, Stores(word(2, 0))),), writer(0, words=1), writer(1, words=1), writer(2), cpus=3)
    assert done.stores() == [(2, 1), (0, 1), (1, 1), (2, 2), (2, 3)]


def test_a_scripts_run_has_a_schedule_of_picks() -> None:
    done = go((ToEnd(1), ToEnd(0)), writer(0), writer(1))
    assert done.run.schedule.picks == parse("v2 1*3 0*3").picks
    assert str(done.run.outcome) == "completed"


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


@pytest.mark.parametrize(
    ("constraint", "text"),
    [(ToEnd(3), "cpu3 to its end"), (Interrupt(255), "cpu255 takes an interrupt")],
)
def test_constraints_in_words(constraint: Constraint, text: str) -> None:
    assert str(constraint) == text


# --- interrupts -----------------------------------------------------------------------------------------


def test_the_others_take_interrupts_only_while_the_driven_cpu_waits() -> None:
    done = go((ToEnd(0), ToEnd(1), ToEnd(2)), flush_all(0), writer(1), writer(2), cpus=3)
    taken = [(choice, blocked) for choice, blocked in done.picked if isinstance(choice, TakeInterrupt)]
    assert [choice.cpu for choice, _ in taken] == [1, 2]
    assert all(blocked == {0: "request 0 is acknowledged by all"} for _, blocked in taken)
    # Nothing else of the others happened meanwhile.
    assert [choice for choice, _ in done.picked if isinstance(choice, Step)][-6:] == [Step(1)] * 3 + [
        Step(2)
    ] * 3
    assert done.of(Finished)[0].cpu == 0


def test_an_interrupt_stays_pending_while_the_driven_cpu_does_not_wait() -> None:
    done = go((Until(0, SendsIpi()), ToEnd(1), ToEnd(0)), flush_all(0), writer(1))
    order = [type(event) for event in done.of(IpiSent, IpiTaken, Finished)]
    # cpu1 ends before it takes the interrupt; cpu0, which waits for it, ends last.
    assert order == [IpiSent, Finished, IpiTaken, Finished]


def test_the_driven_cpu_takes_its_own_interrupts_while_it_waits_too() -> None:
    """Two flushes at once: each waits for the other's CPU."""
    done = go((Until(0, SendsIpi()), Until(1, SendsIpi()), ToEnd(0), ToEnd(1)), flush_all(0), flush_all(1))
    assert str(done.run.outcome) == "completed"
    assert [event.cpu for event in done.of(IpiAcknowledged)] == [0, 1]


def test_interrupt_makes_a_cpu_take_one_that_nobody_waits_for_yet() -> None:
    done = go((Until(0, SendsIpi()), Interrupt(1), ToEnd(1), ToEnd(0)), flush_all(0), writer(1, words=1))
    order = [(type(event), event.cpu) for event in done.of(IpiTaken, Finished)]
    assert order == [(IpiTaken, 1), (Finished, 1), (Finished, 0)]


def test_a_cpu_with_interrupts_off_is_waited_for_only_when_it_turns_them_on() -> None:
    closed = actor(1, "closed", SetInterrupts(False), Store(word(1, 0), 1), SetInterrupts(True))
    done = go((Until(1, Stores(word(1, 0))), Until(0, SendsIpi()), ToEnd(1), ToEnd(0)), flush_all(0), closed)
    assert [event.cpu for event in done.of(IpiTaken, Finished)] == [1, 1, 0]


# --- constraints that cannot be met ---------------------------------------------------------------------

NEVER = f"Load({NOWHERE:#x})"


def test_the_cpu_has_ended_while_others_still_run() -> None:
    assert refused((Until(0, Loads(NOWHERE)),), writer(0), writer(1)) == (
        f"cannot meet 'cpu0 until {NEVER}': the CPU has ended"
    )


def test_the_cpu_has_ended_and_so_has_everything_else() -> None:
    assert refused((ToEnd(1), Until(0, Loads(NOWHERE))), writer(0), writer(1)) == (
        f"cannot meet 'cpu0 until {NEVER}': the CPU has ended"
    )


def test_the_cpu_had_nothing_to_do() -> None:
    assert refused((Until(1, Loads(NOWHERE)),), writer(0)) == (
        f"cannot meet 'cpu1 until {NEVER}': the CPU has ended"
    )


@pytest.mark.parametrize("constraint", [ToEnd(0), Until(0, Finishes("waiter"))])
def test_the_cpu_waits_for_what_only_another_step_can_bring(constraint: Constraint) -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    opener = actor(1, "opener", AddWords(((DOOR, 1),)))
    assert refused((constraint,), waiter, opener) == f"cannot meet '{constraint}': the CPU waits for door = 1"


@pytest.mark.parametrize("constraint", [ToEnd(0), Until(0, Finishes("waiter"))])
def test_the_cpu_waits_for_what_nothing_brings(constraint: Constraint) -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    assert refused((constraint,), waiter) == f"cannot meet '{constraint}': the CPU waits for door = 1"


def test_opening_the_door_first_meets_the_same_script() -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    opener = actor(1, "opener", AddWords(((DOOR, 1),)))
    assert [event.cpu for event in go((ToEnd(1), ToEnd(0)), waiter, opener).of(Finished)] == [1, 0]


NONE_PENDING = "none is pending, or interrupts are off"


@pytest.mark.parametrize("script", [(Interrupt(1),), (ToEnd(0), ToEnd(1), Interrupt(1))])
def test_no_interrupt_is_pending(script: Script) -> None:
    assert refused(script, writer(0), writer(1)) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"


def test_the_interrupt_has_been_taken_already() -> None:
    script = (Until(0, SendsIpi()), Interrupt(1), Interrupt(1))
    assert (
        refused(script, flush_all(0), writer(1)) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"
    )


def test_an_interrupt_is_pending_but_interrupts_are_off() -> None:
    closed = actor(1, "closed", SetInterrupts(False), Store(word(1, 0), 1), SetInterrupts(True))
    script = (Until(1, Stores(word(1, 0))), Until(0, SendsIpi()), Interrupt(1))
    assert refused(script, flush_all(0), closed) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"


@pytest.mark.parametrize(
    ("left", "why"),
    [
        (Until(1, Stores(word(1, 0))), "the CPU has ended"),
        (Until(0, Finishes("nobody")), "the CPU has ended"),
        (Interrupt(0), NONE_PENDING),
    ],
)
def test_a_constraint_left_over_at_the_end(left: Constraint, why: str) -> None:
    script = (ToEnd(0), ToEnd(1), left)
    assert refused(script, writer(0), writer(1)) == f"cannot meet '{left}': {why}"


def test_the_first_constraint_that_cannot_be_met_is_the_one_named() -> None:
    script = (ToEnd(1), Until(1, Loads(NOWHERE)), Until(0, Loads(NOWHERE)))
    assert refused(script, writer(0), writer(1)).startswith("cannot meet 'cpu1 until ")
