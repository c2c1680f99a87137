"""What each op does, to memory, to the TLB, and to the trace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_programs import PRESENT_WRITE, retrying
from machine_rig import MachineRig, alone
from paging_rig import FRAME, PAGE, RO, RW, VA, leaf
from property_settings import PROPERTY

from emu.addr import PhysAddr, VirtAddr
from emu.choice import DecideQuestion, Defaults, Question, Step
from emu.cpu.ops import (
    Annotate,
    CmpXchg,
    Copy,
    Count,
    Decide,
    FetchAdd,
    FetchAndNot,
    FetchOr,
    Fill,
    FlushTlb,
    FlushTlbPages,
    Load,
    LoadBytes,
    Rewrite,
    SetInterrupts,
    Store,
    ThisCpu,
)
from emu.events import Annotated, Copied, Faulted, Filled, Invalidated, Loaded, RoutineSite, Stored
from emu.paging.models import SKYLAKE
from emu.paging.tlb import InvalidateAll, Invlpg
from emu.paging.walk import PageFault


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_loads_and_stores_move_that_many_bytes_little_endian(size: int) -> None:
    value = 0x1122334455667788
    rig, results = alone(Store(VA, value), Load(VA, size), Store(VirtAddr(VA + 16), value, size))
    assert results == [None, int.from_bytes(value.to_bytes(8, "little")[:size], "little"), None]
    assert rig.word(offset=16) == value & ((1 << 8 * size) - 1)


MASKS = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 2**64 - 1}


@settings(PROPERTY, max_examples=60)
@given(st.sampled_from((1, 2, 4, 8)), *[st.integers(0, 2**64 - 1)] * 3)
def test_read_modify_writes_against_integers(size: int, old: int, first: int, second: int) -> None:
    mask = MASKS[size]

    def after(op: object) -> tuple[object, int]:
        rig, results = alone(Store(VA, old), op)
        untouched = old & ~mask
        assert rig.word() & ~mask == untouched
        return results[1], rig.word() & mask

    assert after(FetchAdd(VA, first, size)) == (old & mask, (old + first) & mask)
    assert after(FetchOr(VA, first, size)) == (old & mask, (old | first) & mask)
    assert after(FetchAndNot(VA, first, size)) == (old & mask, old & ~first & mask)
    assert after(CmpXchg(VA, old, second, size)) == (old & mask, second & mask)
    equal = (old ^ first) & mask == 0
    assert after(CmpXchg(VA, first, second, size)) == (old & mask, (second if equal else old) & mask)


def test_a_negative_delta_wraps() -> None:
    rig, results = alone(FetchAdd(VA, -1), FetchAdd(VA, -1, 4))
    assert results == [0, 0xFFFF_FFFF]
    assert rig.word() == 0xFFFF_FFFF_FFFF_FFFE


def test_a_cmpxchg_that_fails_is_a_write_access_and_told_as_a_read() -> None:
    rig = MachineRig(1, trap=retrying(1))
    rig.preset(rig.slot(VA), leaf(FRAME, RO))

    async def thread() -> None:
        assert await CmpXchg(VA, 5, 6) == 0

    rig.thread(0, thread)
    rig.step(0)
    assert [event.fault for event in rig.told(Faulted)] == [PageFault(VA, PRESENT_WRITE)]
    rig.set(rig.slot(VA), leaf(FRAME, RW))
    rig.run()
    assert [type(event) for event in rig.events if isinstance(event, Loaded | Stored)] == [Loaded]
    assert rig.told(Loaded)[-1].value == 0


def test_copy_and_fill_are_one_step_each() -> None:
    rig = MachineRig(1)
    data = bytes(range(256)) * 16

    async def thread() -> None:
        await Fill(VA, data)
        await Copy(VirtAddr(VA + PAGE + 8), VirtAddr(VA + 4), 100)

    rig.thread(0, thread)
    rig.step(0, 2)
    assert rig.memory.read(PhysAddr(FRAME * PAGE), PAGE) == data
    assert rig.memory.read(PhysAddr((FRAME + 1) * PAGE + 8), 100) == data[4:104]
    (filled,), (copied,) = rig.told(Filled), rig.told(Copied)
    assert (filled.va, filled.pa, filled.length) == (VA, FRAME * PAGE, PAGE)
    assert (copied.to, copied.source_va, copied.length) == (VA + PAGE + 8, VA + 4, 100)
    assert (copied.to_pa, copied.source_pa) == ((FRAME + 1) * PAGE + 8, FRAME * PAGE + 4)


@pytest.mark.parametrize(
    "op",
    [
        FetchAdd(VirtAddr(VA + PAGE - 4), 1),
        CmpXchg(VirtAddr(VA + PAGE - 1), 0, 1, 2),
        Rewrite(VirtAddr(VA + 1), PAGE, bytes.upper),
    ],
    ids=repr,
)
def test_a_locked_op_over_a_page_boundary_is_the_kernels_mistake_and_says_so(op: object) -> None:
    with pytest.raises(ValueError, match=r"^kernel op of \d+ bytes at 0x[0-9a-f]+ crosses a page boundary$"):
        alone(op)


def test_a_plain_op_over_a_page_boundary_is_one_access_to_each_page() -> None:
    """Only a wild pointer makes such; hardware does not mind."""
    rig = MachineRig(1)
    got: list[object] = []
    text = bytes(range(256)) * 16

    async def thread() -> None:
        await Fill(VirtAddr(VA + 1), text)
        await Store(VirtAddr(VA + PAGE - 3), 0x1122_3344_5566_7788)
        got.append(await Load(VirtAddr(VA + PAGE - 3)))
        await Copy(VirtAddr(VA + PAGE + 8), VirtAddr(VA + PAGE - 3), 8)
        got.append(await Load(VirtAddr(VA + PAGE + 8)))
        got.append(await LoadBytes(VirtAddr(VA + 1), 4096))

    rig.thread(0, thread)
    rig.run()
    whole = bytearray(text)
    whole[PAGE - 4 : PAGE + 4] = (0x1122_3344_5566_7788).to_bytes(8, "little")
    assert got[:2] == [0x1122_3344_5566_7788] * 2
    assert got[2] == bytes(whole)[:4096]
    assert [event.va for event in rig.told(Filled)] == [VA + 1, VA + PAGE]


def test_invlpg_and_flush_are_carried_out_on_this_cpu_alone() -> None:
    rig = MachineRig(2)

    async def thread() -> None:
        await FlushTlbPages(VA, 3)
        await FlushTlb()

    rig.thread(1, thread)
    rig.run()
    assert rig.told(Invalidated) == [
        Invalidated(1, Invlpg(VA, 0, 3)),
        Invalidated(1, InvalidateAll()),
    ]


def test_each_cpu_reads_by_its_own_tlb() -> None:
    rig = MachineRig(2, model=SKYLAKE)
    seen: list[int] = []

    async def reader() -> None:
        seen.append(await Load(VA))
        seen.append(await Load(VA))

    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x07")
    for cpu in (0, 1):
        rig.thread(cpu, reader)
    rig.step(0)
    rig.set(rig.slot(VA), leaf(FRAME + 1))
    rig.step(0)
    rig.step(1, 2)
    assert seen == [0, 0, 7, 7]


def test_decide_asks_the_answerer_and_its_default_is_the_ordinary_one() -> None:
    class Last:
        asked: list[Question] = []  # noqa: RUF012

        def answer(self, question: Question) -> int:
            self.asked.append(question)
            return question.options - 1

    results = []

    async def thread() -> None:
        results.append(await Decide("allocation fails", 3))

    for answerer in (Defaults(), Last()):
        rig = MachineRig(1)
        rig.thread(0, thread)
        rig.run(answerer)
    assert results == [0, 2]
    assert Last.asked == [DecideQuestion(0, "allocation fails", 3)]


def test_annotate_puts_its_payload_into_the_trace_and_returns_a_handle() -> None:
    rig = MachineRig(1)
    handles = []

    async def inner() -> None:
        handles.append(await Annotate(("begun", 1)))

    async def outer() -> None:
        await Load(VA)
        await inner()

    rig.thread(0, outer)
    rig.run()
    (event,) = rig.told(Annotated)
    assert event == Annotated(0, RoutineSite(("outer", "inner")), ("begun", 1))
    assert handles == [0]


def test_this_cpu_and_count_are_no_scheduling_points() -> None:
    rig = MachineRig(3)
    seen = []

    async def thread() -> None:
        seen.append(await ThisCpu())
        await Count("free", 5)
        await Load(VA)
        await Count("free", -2)
        seen.append(await ThisCpu())

    for cpu in (0, 2):
        rig.thread(cpu, thread)
    assert seen == [0, 2]
    assert rig.machine.count("free") == 10
    rig.step(2)
    assert not rig.machine.is_enabled(Step(2))
    assert rig.machine.count("free") == 8
    assert rig.machine.counters == {("free", 0): 5, ("free", 2): 3}
    assert rig.machine.count("nothing") == 0


def test_set_interrupts_returns_what_it_was() -> None:
    _, results = alone(
        SetInterrupts(enabled=False), SetInterrupts(enabled=False), SetInterrupts(enabled=True)
    )
    assert results == [True, False, False]


def test_an_exception_of_kernel_code_comes_out_of_the_step() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await Load(VA)
        raise ZeroDivisionError("in kernel code")

    rig.thread(0, thread)
    with pytest.raises(ZeroDivisionError, match="in kernel code"):
        rig.step(0)
