"""INVLPGB and TLBSYNC on several CPUs: who may use what when, and on which CPUs there are any (R14)."""

from __future__ import annotations

import pytest
from machine_programs import table_alias
from machine_rig import MachineRig, alone
from paging_rig import FRAME, PAGE, VA, leaf

from emu.addr import VirtAddr
from emu.choice import Defaults, Question, VersionQuestion
from emu.cpu.ops import Invlpgb, InvlpgbAll, Load, Store, TlbSync
from emu.cpu.recall import Recall
from emu.events import BroadcastCompleted, BroadcastSent, Invalidated, Loaded
from emu.paging.models import LAZY, LAZY_INVLPGB, SKYLAKE, with_invlpgb
from emu.paging.tlb import InvalidateAll, Invlpg


class Oldest(Defaults):
    """Uses the oldest translation there is, and notes how many there were."""

    def __init__(self) -> None:
        self.versions: list[int] = []

    def answer(self, question: Question) -> int:
        assert isinstance(question, VersionQuestion)
        self.versions.append(question.options)
        return 0


def rig_with_readers(*ops: object, cpus: int = 3) -> MachineRig:
    """CPU 0 performs these; the others read VA again and again. A number n maps it to the n-th frame.

    The n-th frame holds n. VA is mapped to the first.
    """
    rig = MachineRig(cpus, model=LAZY_INVLPGB)
    for page in range(3):
        rig.preset((FRAME + page) * PAGE, page + 1)
    rig.machine.routines = Recall()
    alias = table_alias(rig, VA)

    async def changes() -> None:
        for op in ops:
            await (Store(alias, leaf(FRAME + op - 1)) if isinstance(op, int) else op)

    async def reads() -> None:
        for _ in range(10):
            await Load(VA)

    rig.thread(0, changes)
    for cpu in range(1, cpus):
        rig.thread(cpu, reads)
    return rig


def read_by(rig: MachineRig, cpu: int) -> tuple[int, int]:
    """What that CPU reads by the oldest translation that it may use, and of how many."""
    oldest = Oldest()
    rig.step(cpu, answerer=oldest)
    return rig.told(Loaded)[-1].value, (oldest.versions or [1])[0]


@pytest.mark.parametrize("op", [Invlpgb(VA), InvlpgbAll(), Invlpgb(VirtAddr(VA - PAGE), 3)], ids=str)
def test_every_cpu_may_use_the_old_translation_until_tlbsync_and_none_after_it(op: object) -> None:
    rig = rig_with_readers(2, op, TlbSync())
    read_by(rig, 1)
    rig.step(0, 2)
    assert [read_by(rig, cpu) for cpu in (1, 2)] == [(1, 2), (1, 2)]
    rig.step(0)
    assert [read_by(rig, cpu) for cpu in (1, 2)] == [(2, 1), (2, 1)]


def test_what_changes_between_the_two_may_be_used_as_it_was_when_it_was_sent() -> None:
    rig = rig_with_readers(2, Invlpgb(VA), 3, TlbSync())
    rig.step(0, 4)
    assert [read_by(rig, cpu) for cpu in (1, 2)] == [(2, 2), (2, 2)], "the second of three translations"


def test_a_cpu_waits_for_what_it_has_sent_itself() -> None:
    rig = rig_with_readers(2, Invlpgb(VA), cpus=2)

    async def syncs() -> None:
        await TlbSync()

    rig.step(0, 2)
    rig.thread(1, syncs)
    rig.step(1, 10)  # its reads come first
    rig.step(1)
    rig.thread(1, load_once)
    assert rig.told(BroadcastCompleted)[0].begun == ()
    assert read_by(rig, 1) == (1, 2), "cpu0 has sent it, and has not waited"


async def load_once() -> None:
    await Load(VA)


def test_the_trace_says_what_was_sent_and_when_it_was_carried_out() -> None:
    rig = rig_with_readers(Invlpgb(VA), InvlpgbAll(), TlbSync(), TlbSync(), cpus=2)
    rig.step(0, 4)
    sent = [number for number, event in enumerate(rig.events) if isinstance(event, BroadcastSent)]
    assert [event.what for event in rig.told(BroadcastSent)] == [Invlpg(VA), InvalidateAll()]
    done = [(event.begun, event.what) for event in rig.told(BroadcastCompleted)]
    assert done == [(tuple(sent), (Invlpg(VA), InvalidateAll())), ((), ())]
    assert rig.told(Invalidated) == []


def test_a_tlb_of_sets_and_ways_carries_it_out_at_the_end() -> None:
    rig = MachineRig(2, model=with_invlpgb(SKYLAKE))

    async def reads_and_tells() -> None:
        await Load(VA)
        await Invlpgb(VA)
        await TlbSync()

    rig.thread(0, reads_and_tells)
    rig.thread(1, load_once)
    rig.step(0)
    rig.step(1)
    rig.step(0)
    held = [bool(cpu.mmu.tlb.entries()) for cpu in rig.machine.cpus]
    rig.step(0)
    assert (held, [bool(cpu.mmu.tlb.entries()) for cpu in rig.machine.cpus]) == ([True, True], [False, False])


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Invlpgb(VA), r"^cpu0 \(lazy\) has no INVLPGB: #UD$"),
        (InvlpgbAll(), r"^cpu0 \(lazy\) has no INVLPGB: #UD$"),
        (TlbSync(), r"^cpu0 \(lazy\) has no TLBSYNC: #UD$"),
    ],
    ids=str,
)
def test_a_cpu_without_it_refuses(op: object, said: str) -> None:
    assert LAZY.invlpgb_count_max == 0
    with pytest.raises(ValueError, match=said):
        alone(op)


@pytest.mark.parametrize("pages", [0, -1, 9])
def test_a_cpu_refuses_more_pages_than_it_takes_at_once(pages: int) -> None:
    rig = rig_with_readers(Invlpgb(VA, pages))
    with pytest.raises(
        ValueError, match=rf"^INVLPGB of {pages} pages on a CPU that takes 1 to 8 at once: #GP$"
    ):
        rig.step(0)


def test_going_back_forgets_what_was_sent_since() -> None:
    rig = rig_with_readers(2, Invlpgb(VA), TlbSync())
    start = rig.machine.mark()
    rig.step(0, 2)
    sent = rig.machine.mark()
    rig.step(0)
    after = [read_by(rig, cpu) for cpu in (1, 2)]
    rig.machine.back(sent)
    assert [read_by(rig, cpu) for cpu in (1, 2)] == [(1, 2), (1, 2)]
    rig.machine.back(start)
    rig.step(0, 3)
    assert [read_by(rig, cpu) for cpu in (1, 2)] == after == [(2, 1), (2, 1)]
