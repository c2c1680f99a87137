"""Questions inside a step, and their answers."""

from __future__ import annotations

from machine_rig import MachineRig
from paging_rig import FRAME, PAGE, RW, VA, PagingRig, Pick, leaf, read

from emu.addr import PageSize, PhysAddr
from emu.choice import DecideQuestion, Defaults, VersionQuestion
from emu.cpu.ops import Load
from emu.paging.dead_end import DeadEnd
from emu.paging.models import LAZY
from emu.paging.tlb import TlbEntry


def test_options_are_the_entries_then_the_dead_ends_and_the_walk_last() -> None:
    """Schedules number them: what is new comes where it moves no other but the walk."""
    rig = PagingRig()
    pa = rig.map(VA, FRAME)
    mmu = rig.mmu(LAZY)
    rig.set(rig.slot(VA, 2), leaf(0x400, RW, PageSize.MIB2))
    rig.set(pa, 0)
    mmu.answerer = picks = Pick(-1)
    read(mmu, VA)
    (question,) = picks.asked
    assert isinstance(question, VersionQuestion)
    kinds = [type(question.option(number)) for number in range(question.options)]
    assert kinds == [TlbEntry, DeadEnd, type(None)]
    assert question.default == 2


def test_without_a_walk_among_the_options_the_newest_entry_is_the_default() -> None:
    entries = [object(), object()]
    question = VersionQuestion(0, VA, entries, walk=False)  # type: ignore[arg-type]
    assert (question.options, question.default) == (2, 1)
    assert question.option(1) is entries[1]


def test_defaults_answer_with_the_default() -> None:
    assert Defaults().answer(DecideQuestion(0, "shall I", 3, default=1)) == 1
    assert Defaults().answer(VersionQuestion(0, VA, (), walk=True)) == 0


def test_an_answer_picks_the_version_an_op_uses() -> None:
    rig = MachineRig(1, model=LAZY)
    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x07")
    rig.set(rig.slot(VA), leaf(FRAME + 1))
    seen = []

    async def thread() -> None:
        for _ in range(2):
            seen.append(await Load(VA))

    rig.thread(0, thread)
    rig.step(0, answerer=Pick(0))
    rig.step(0, answerer=Pick(1))
    assert seen == [0, 7]
