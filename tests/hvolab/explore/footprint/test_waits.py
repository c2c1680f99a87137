"""What a step that waits has read, and what had to have which value."""

from __future__ import annotations

import pytest

from emu.addr import PhysAddr
from emu.cpu.condition import Acknowledged, AllOf, Condition, EachOnce, InterruptsOn, MemoryIs, Word, WordIs
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.footprint.sections import Sections
from hvolab.explore.footprint.waits import Waits
from hvolab.judge.sight.resource import Kind, Resource, Touched
from kernel_model.boot import BootConfig, boot
from kernel_model.core.rcu import outside

LOCK, READY = Word("lock"), Word("ready")
FLAG = Resource(Kind.INTERRUPT_FLAG, 1)


def acknowledged(cpu: int) -> set[Touched]:
    return {Resource(Kind.ACKNOWLEDGED, cpu, other) for other in (0, 1)}


@pytest.fixture(scope="module")
def waits() -> Waits:
    machine = boot(BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,))).machine
    return Waits(2, Sections(machine))


CASES: list[tuple[Condition, set[Touched], dict[Touched, int | None]]] = [
    (WordIs(LOCK, 0), {LOCK}, {LOCK: 0}),
    (MemoryIs(PhysAddr(0x5008), 7), {0xA01, Resource(Kind.BULK_WRITE, 5)}, {0xA01: 7}),
    (InterruptsOn(1), {FLAG}, {FLAG: 1}),
    (Acknowledged(3), acknowledged(0), dict.fromkeys(acknowledged(0), 1)),
    (AllOf((WordIs(LOCK, 0), InterruptsOn(1))), {LOCK, FLAG}, {LOCK: 0, FLAG: 1}),
    (EachOnce((WordIs(LOCK, 0), WordIs(READY, 1))), {LOCK, READY}, {LOCK: None, READY: None}),
    (EachOnce((outside(0), outside(1))), set(), {}),
]


@pytest.mark.parametrize(("condition", "touched", "parts"), CASES, ids=lambda value: type(value).__name__)
def test_a_wait_reads_what_its_condition_is_about(
    condition: Condition, touched: set[Touched], parts: dict[Touched, int | None], waits: Waits
) -> None:
    """Of each once it is not known which value it had; of sections only those it is owed count: none here."""
    assert waits.touches(condition, 0) == touched
    assert waits.parts(condition, 0) == parts


def test_acknowledgements_are_waited_for_by_who_sent_the_request(waits: Waits) -> None:
    assert waits.touches(Acknowledged(3), 1) == acknowledged(1)
