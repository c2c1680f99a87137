"""The machine: what may happen next, what each op does, traps, interrupts and waiting. Orders are forced."""

from __future__ import annotations

import random

import pytest
from guest_rig import CODE
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_rig import FLUSH, MachineRig, alone, no_traps
from paging_rig import FRAME, PAGE, RO, ROOT, RW, VA, Pick, leaf, read, write
from property_settings import PROPERTY

from emu.addr import PhysAddr, VirtAddr
from emu.choice import Choice, DecideQuestion, Defaults, Question, Step, TakeInterrupt
from emu.cpu.apic import Apic, Ipi
from emu.cpu.condition import Acknowledged, AllOf, EachOnce, InterruptsOn, MemoryIs, Word, WordIs
from emu.cpu.cpu import GuestThread, KernelThread
from emu.cpu.execute import Blocked, OpRefused
from emu.cpu.ops import (
    Acknowledge,
    AddWords,
    Annotate,
    Await,
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
    SendIpi,
    SetInterrupts,
    Store,
    ThisCpu,
)
from emu.cpu.software import ContextKilled, Grain, InterruptHandler, Software, Trap, TrapOutcome
from emu.events import (
    Annotated,
    BusErrorSeen,
    Copied,
    Executed,
    Faulted,
    Filled,
    Finished,
    GuestSite,
    InterruptSite,
    Invalidated,
    IpiAcknowledged,
    IpiSent,
    IpiTaken,
    Loaded,
    RoutineSite,
    Started,
    Stored,
    Trapped,
)
from emu.guest.decode import UnsupportedInstruction
from emu.guest.guest_core import GuestTrap
from emu.machine import MOST_CPUS, Machine
from emu.mmu import Denied, NonCanonical
from emu.paging.models import LAZY, SKYLAKE
from emu.paging.tlb import InvalidateAll, Invlpg
from emu.paging.walk import BusError, FaultCode, PageFault

X, Y = Word("x"), Word("y", 3)
PRESENT_WRITE = FaultCode.WRITE | FaultCode.PROTECTION


# --- what is enabled ------------------------------------------------------------------------------------


async def one_load() -> None:
    await Load(VA)


def test_nothing_is_enabled_before_anything_is_started() -> None:
    rig = MachineRig(3)
    assert rig.enabled() == []
    assert not rig.machine.busy


def test_choices_are_listed_by_cpu_and_a_step_before_an_interrupt() -> None:
    rig = MachineRig(4, interrupts={FLUSH: atomic()})

    async def sender() -> None:
        await SendIpi(frozenset({1, 3}), FLUSH)
        await Load(VA)

    for cpu in (3, 0, 2):
        rig.thread(cpu, sender if cpu == 0 else one_load)
    assert rig.enabled() == [Step(0), Step(2), Step(3)]
    rig.step(0)
    assert rig.enabled() == [Step(0), TakeInterrupt(1), Step(2), Step(3), TakeInterrupt(3)]


def test_what_is_listed_is_what_is_enabled() -> None:
    rig = MachineRig(3, interrupts={FLUSH: atomic()})

    async def sender() -> None:
        await SendIpi(frozenset({2}), FLUSH)

    rig.thread(0, sender)
    rig.step(0)
    every: list[Choice] = [kind(cpu) for cpu in range(-1, 5) for kind in (Step, TakeInterrupt)]
    assert [choice for choice in every if rig.machine.is_enabled(choice)] == rig.enabled()


@pytest.mark.parametrize("choice", [Step(1), TakeInterrupt(0), Step(7), Step(-1), TakeInterrupt(9)])
def test_a_choice_that_is_not_enabled_is_refused_with_those_that_are(choice: Choice) -> None:
    rig = MachineRig(2)
    rig.thread(0, one_load)
    before = rig.machine.trace.next_number
    with pytest.raises(ValueError, match=r"is not enabled; enabled: \[Step\(cpu=0\)\]$") as caught:
        rig.machine.perform(choice, Defaults())
    assert str(caught.value).startswith(repr(choice))
    assert (rig.machine.steps, rig.machine.trace.next_number) == (0, before)


@pytest.mark.parametrize("cpus", [0, -1, 257, 1000])
def test_a_wrong_number_of_cpus_is_refused(cpus: int) -> None:
    with pytest.raises(ValueError, match=f"^{cpus} CPUs: want 1 to 256$"):
        MachineRig(cpus)


@pytest.mark.parametrize("cpus", [1, MOST_CPUS])
def test_a_machine_of_one_or_of_the_most_cpus_runs_and_idle_ones_have_no_engine(cpus: int) -> None:
    rig = MachineRig(cpus)
    for cpu in range(cpus):
        rig.thread(cpu, one_load)
    rig.guest(cpus - 1, "hlt")
    assert all(cpu.core is None for cpu in rig.machine.cpus)
    rig.run()
    assert [cpu.number for cpu in rig.machine.cpus if cpu.core is not None] == [cpus - 1]
    assert len(rig.told(Loaded)) == cpus


def test_the_model_and_root_are_those_given() -> None:
    rig = MachineRig(2, model=SKYLAKE)
    machine = Machine(rig.memory, 1, SKYLAKE, ROOT, Software(no_traps))
    assert (machine.cpus[0].mmu.model, machine.cpus[0].mmu.root) == (SKYLAKE, ROOT)


# --- ops -----------------------------------------------------------------------------------------------


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


def test_annotate_puts_its_payload_into_the_trace_and_returns_the_number() -> None:
    rig = MachineRig(1)
    numbers = []

    async def inner() -> None:
        numbers.append(await Annotate(("begun", 1)))

    async def outer() -> None:
        await Load(VA)
        await inner()

    rig.thread(0, outer)
    rig.run()
    (event,) = rig.told(Annotated)
    assert event == Annotated(0, RoutineSite(("outer", "inner")), ("begun", 1))
    assert rig.events[numbers[0]] is event


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


# --- threads -------------------------------------------------------------------------------------------


def test_threads_of_a_cpu_run_one_after_the_other() -> None:
    rig = MachineRig(1)
    for name in ("first", "second"):
        rig.thread(0, one_load, name)
    assert rig.told(Started) == [Started(0, "first")]
    rig.run()
    assert [event for event in rig.events if isinstance(event, Started | Finished)] == [
        Started(0, "first"),
        Finished(0, "first", killed=False),
        Started(0, "second"),
        Finished(0, "second", killed=False),
    ]
    assert not rig.machine.busy


def test_a_thread_that_does_nothing_ends_at_once_and_many_of_them_too() -> None:
    rig = MachineRig(1)

    async def nothing() -> None:
        pass

    for _ in range(3000):
        rig.thread(0, nothing)
    assert rig.enabled() == []
    assert len(rig.told(Finished)) == 3000


def test_thousands_of_threads_that_do_nothing_end_in_the_step_that_lets_the_first_of_them_begin() -> None:
    """Each begins where the one before it ended: a loop, however many there are."""
    rig = MachineRig(1)

    async def nothing() -> None:
        pass

    rig.thread(0, one_load, "first")
    for _ in range(3000):
        rig.thread(0, nothing)
    rig.thread(0, one_load, "last")
    rig.step(0)
    names = [(event.name, event.killed) for event in rig.told(Finished)]
    assert names == [("first", False), *[("thread", False)] * 3000]
    assert [context.name for context in rig.machine.cpus[0].contexts] == ["last"]


def test_guests_and_kernel_threads_share_a_cpu_and_memory() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await Store(VirtAddr(VA + 8), await Load(VA) + 1)

    rig.guest(0, "mov [rbx], rax; hlt", {"rbx": VA, "rax": 41})
    rig.thread(0, thread)
    rig.run()
    assert rig.word(offset=8) == 42


def test_a_guest_finds_interrupts_on_after_a_thread_that_left_them_off() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await SetInterrupts(enabled=False)

    rig.thread(0, thread)
    rig.guest(0, "pushfq; pop rax; mov [rbx], rax; hlt", {"rbx": VA, "rsp": VA + 0x800})
    rig.run()
    assert rig.word() & 0x200
    assert rig.machine.cpus[0].interrupts_enabled


def test_context_killed_ends_the_thread_as_killed() -> None:
    rig = MachineRig(1)

    async def thread() -> None:
        await Load(VA)
        raise ContextKilled

    rig.thread(0, thread, "unlucky")
    rig.thread(0, one_load, "next")
    rig.run()
    assert Finished(0, "unlucky", killed=True) in rig.events
    assert Finished(0, "next", killed=False) in rig.events


# --- traps ---------------------------------------------------------------------------------------------


def retrying(times: int, seen: list[Trap] | None = None, repair: object = None):
    """A handler that retries that often (performing `repair` each time) and then kills."""
    left = [times]

    async def handler(trap: Trap) -> TrapOutcome:
        if seen is not None:
            seen.append(trap)
        if repair is not None:
            await repair
        left[0] -= 1
        return TrapOutcome.RETRY if left[0] >= 0 else TrapOutcome.KILL

    return handler


async def killing(_trap: Trap) -> TrapOutcome:
    return TrapOutcome.KILL


def table_alias(rig: MachineRig, va: int) -> VirtAddr:
    """An address by which kernel code can store to the page-table entry of `va`."""
    pa = rig.slot(va)
    rig.map(VA + 64 * PAGE, pa >> 12)
    return VirtAddr(VA + 64 * PAGE + pa % PAGE)


def test_after_retry_the_same_op_is_performed_again() -> None:
    """The handler makes the page writable by ops of its own; the store then happens, once."""
    seen: list[Trap] = []
    repair: list[object] = []
    rig = MachineRig(1)
    alias = table_alias(rig, VA)
    repair.append(Store(alias, leaf(FRAME, RW)))
    rig = MachineRig(1, trap=retrying(1, seen, repair[0]))
    assert table_alias(rig, VA) == alias
    rig.preset(rig.slot(VA), leaf(FRAME, RO))

    async def deep() -> int:
        return await FetchAdd(VA, 5)

    async def thread() -> None:
        assert await deep() == 0
        await Load(VA)

    rig.thread(0, thread)
    rig.step(0)
    assert rig.word() == 0
    rig.step(0)  # the handler's store; it then returns
    rig.step(0)  # again
    assert rig.word() == 5
    rig.run()
    denied = Denied(PageFault(VA, PRESENT_WRITE), None)
    assert seen == [Trap(0, RoutineSite(("thread", "deep")), "thread", denied)]
    assert rig.told(Faulted) == [Faulted(0, RoutineSite(("thread", "deep")), denied.fault, None)]


def test_a_handler_that_returns_at_once_lets_the_op_try_again_in_a_step_of_its_own() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(3, seen))
    rig.preset(rig.slot(VA), 0)
    rig.thread(0, one_load)
    for count in (1, 2, 3):
        rig.step(0)
        assert len(seen) == count
    rig.set(rig.slot(VA), leaf(FRAME))
    rig.step(0)
    assert (len(seen), len(rig.told(Loaded))) == (3, 1)


def test_kill_ends_the_context_and_the_cpu_goes_on_with_the_next_thread() -> None:
    rig = MachineRig(1, trap=killing)
    rig.preset(rig.slot(VA + PAGE), 0)
    cleaned = []

    async def thread() -> None:
        try:
            await Load(VirtAddr(VA + PAGE))
        finally:
            cleaned.append(True)

    rig.thread(0, thread, "victim")
    rig.thread(0, one_load, "next")
    rig.run()
    assert cleaned == [True]
    assert [event for event in rig.events if isinstance(event, Finished)] == [
        Finished(0, "victim", killed=True),
        Finished(0, "next", killed=False),
    ]


def test_a_handler_that_returns_something_else_is_an_error() -> None:
    async def handler(_trap: Trap) -> str:
        return "retry"

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.thread(0, one_load)
    with pytest.raises(TypeError, match=r"^trap handler trap returned 'retry'$"):
        rig.step(0)


def test_interrupts_are_off_in_a_trap_handler_and_as_before_after_it() -> None:
    states = []

    async def handler(_trap: Trap) -> TrapOutcome:
        states.append(rig.machine.cpus[0].interrupts_enabled)
        await Load(VirtAddr(VA + PAGE))
        return TrapOutcome.RETRY

    for on in (True, False):
        rig = MachineRig(1, trap=handler)
        rig.preset(rig.slot(VA), 0)

        async def thread(on: bool = on) -> None:
            await SetInterrupts(enabled=on)
            await Load(VA)

        rig.thread(0, thread)
        rig.step(0, 2)
        rig.set(rig.slot(VA), leaf(FRAME))
        rig.step(0)
        states.append(rig.machine.cpus[0].interrupts_enabled)
        rig.run()
    assert states == [False, True, False, False]


def test_a_fault_of_the_handler_itself_nests() -> None:
    depth = []

    async def handler(trap: Trap) -> TrapOutcome:
        depth.append((trap.context, trap.why.fault.va - VA))
        if len(depth) == 1:
            await Load(VirtAddr(VA + 2 * PAGE))  # absent too
            rig.set(rig.slot(VA), leaf(FRAME))
        else:
            rig.set(rig.slot(VA + 2 * PAGE), leaf(FRAME + 2))
        return TrapOutcome.RETRY

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.preset(rig.slot(VA + 2 * PAGE), 0)
    rig.thread(0, one_load)
    rig.run()
    assert depth == [("thread", 0), ("trap", 2 * PAGE)]
    assert [event.va - VA for event in rig.told(Loaded)] == [2 * PAGE, 0]
    assert rig.machine.cpus[0].interrupts_enabled


def test_killing_the_handler_of_a_handler_ends_the_handler_and_leaves_the_thread() -> None:
    """The inner KILL is about the context that faulted: the outer handler. Then the thread tries again."""
    calls = []

    async def handler(trap: Trap) -> TrapOutcome:
        calls.append(trap.context)
        if trap.context == "thread" and len(calls) == 1:
            await Load(VirtAddr(VA + 2 * PAGE))
        return TrapOutcome.KILL

    rig = MachineRig(1, trap=handler)
    rig.preset(rig.slot(VA), 0)
    rig.preset(rig.slot(VA + 2 * PAGE), 0)
    rig.thread(0, one_load)
    rig.run()
    assert calls == ["thread", "trap", "thread"]
    assert rig.told(Finished) == [Finished(0, "trap", killed=True), Finished(0, "thread", killed=True)]
    assert not rig.machine.busy


def test_a_bus_error_and_an_address_that_is_not_canonical_are_traps_with_their_own_events() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(0, seen))
    outside = rig.memory.size
    rig.preset(rig.slot(VA), leaf(outside >> 12))

    async def not_canonical() -> None:
        await Store(VirtAddr(1 << 63), 1)

    rig.thread(0, one_load)
    rig.thread(0, not_canonical)
    rig.run()
    assert [trap.why for trap in seen] == [BusError(VA, PhysAddr(outside)), NonCanonical(1 << 63)]
    assert rig.told(BusErrorSeen) == [BusErrorSeen(0, RoutineSite(("one_load",)), VA, PhysAddr(outside))]
    assert rig.told(Trapped) == [Trapped(0, RoutineSite(("not_canonical",)), 13)]


def test_a_guests_fault_is_handled_and_its_instruction_started_again() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1)
    alias = table_alias(rig, VA)
    rig = MachineRig(1, trap=retrying(1, seen, Store(alias, leaf(FRAME, RW))))
    table_alias(rig, VA)
    rig.preset(rig.slot(VA), leaf(FRAME, RO))
    rig.guest(0, "add qword ptr [rbx], 5; hlt", {"rbx": VA})
    rig.run()
    assert rig.word() == 5
    site = GuestSite("guest", VirtAddr(CODE), "add qword ptr [rbx], 5")
    denied = Denied(PageFault(VA, PRESENT_WRITE), None)
    assert seen == [Trap(0, site, "guest", denied)]
    assert [str(event.site) for event in rig.told(Executed)] == [f"guest {CODE:#x}: add qword ptr [rbx], 5"]


def test_a_guest_that_divides_by_zero_is_told_and_killed() -> None:
    seen: list[Trap] = []
    rig = MachineRig(1, trap=retrying(1, seen))
    rig.guest(0, "div rbx")
    rig.run()
    assert [trap.why for trap in seen] == [GuestTrap(0), GuestTrap(0)]
    assert [event.vector for event in rig.told(Trapped)] == [0, 0]
    assert rig.told(Finished) == [Finished(0, "guest", killed=True)]


def test_an_instruction_that_is_not_modelled_comes_out_of_the_step() -> None:
    rig = MachineRig(1)
    rig.guest(0, "rdtsc")
    with pytest.raises(UnsupportedInstruction, match="rdtsc"):
        rig.step(0)


# --- interrupts ----------------------------------------------------------------------------------------


async def acknowledging(request: int, payload: object) -> None:
    await FlushTlbPages(VA)
    await Acknowledge(request)


def atomic(routine=acknowledging) -> InterruptHandler:
    return InterruptHandler(routine, Grain.ATOMIC)


def stepwise(routine=acknowledging) -> InterruptHandler:
    return InterruptHandler(routine, Grain.STEPWISE)


async def shooting_down() -> None:
    request = await SendIpi(frozenset({1}), FLUSH, "payload")
    await Await(Acknowledged(request))
    await Store(VA, 1)


def test_the_sender_waits_until_every_target_has_acknowledged() -> None:
    rig = MachineRig(3, interrupts={FLUSH: atomic()})

    async def sender() -> None:
        request = await SendIpi(frozenset({1, 2}), FLUSH)
        await Await(Acknowledged(request))

    rig.thread(0, sender)
    rig.step(0)
    assert rig.enabled() == [TakeInterrupt(1), TakeInterrupt(2)]
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all"}
    rig.interrupt(2)
    assert rig.enabled() == [TakeInterrupt(1)]
    rig.interrupt(1)
    assert rig.enabled() == [Step(0)]
    assert rig.machine.blocked() == {}
    rig.step(0)
    assert not rig.machine.busy


def test_an_atomic_handler_is_one_step_with_its_events_in_order() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.thread(0, shooting_down)
    rig.step(0)
    del rig.events[:]
    rig.interrupt(1)
    assert rig.events == [
        IpiTaken(1, 0, FLUSH),
        Invalidated(1, Invlpg(VA, 0, 1)),
        IpiAcknowledged(1, 0),
    ]


def test_a_handler_is_given_the_request_and_its_payload() -> None:
    given_to = []

    async def handler(request: int, payload: object) -> None:
        given_to.append((request, payload, await ThisCpu()))
        await Acknowledge(request)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.run()
    assert given_to == [(0, "payload", 1)]
    assert rig.told(IpiSent) == [IpiSent(0, RoutineSite(("shooting_down",)), 0, (1,), FLUSH, "payload")]


def test_what_an_atomic_handler_does_to_memory_has_its_own_site() -> None:
    async def handler(request: int, payload: object) -> None:
        await Store(VA, await Load(VA) + 1)
        await Acknowledge(request)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    rig.interrupt(1)
    assert rig.told(Stored)[0].site == InterruptSite(FLUSH)
    assert str(InterruptSite(FLUSH)) == "interrupt 0xfd"
    assert rig.word() == 1


def test_a_stepwise_handler_is_a_context_of_its_own_above_what_runs() -> None:
    rig = MachineRig(2, interrupts={FLUSH: stepwise()})
    rig.thread(0, shooting_down)
    rig.thread(1, one_load)
    rig.step(0)
    rig.interrupt(1)
    assert [type(event) for event in rig.events][-1] is IpiTaken
    assert not rig.machine.cpus[1].interrupts_enabled
    rig.step(1)
    assert rig.told(Invalidated) == [Invalidated(1, Invlpg(VA, 0, 1))]
    assert rig.told(IpiAcknowledged) == []
    assert rig.told(Loaded) == []
    rig.step(1)
    assert rig.told(IpiAcknowledged) == [IpiAcknowledged(1, 0)]
    assert rig.machine.cpus[1].interrupts_enabled
    rig.step(1)
    assert len(rig.told(Loaded)) == 1


def test_a_thread_started_while_an_idle_cpu_handles_an_interrupt_runs_after_it() -> None:
    rig = MachineRig(2, interrupts={FLUSH: stepwise()})
    rig.thread(0, shooting_down)
    rig.step(0)
    rig.interrupt(1)
    rig.thread(1, one_load, "late")
    rig.run()
    assert Finished(1, "late", killed=False) in rig.events


def test_a_stepwise_handler_may_wait() -> None:
    async def handler(request: int, payload: object) -> None:
        await Await(WordIs(X, 1))
        await Acknowledge(request)

    rig = MachineRig(3, interrupts={FLUSH: stepwise(handler)})

    async def releasing() -> None:
        await AddWords(((X, 1),))

    rig.thread(0, shooting_down)
    rig.thread(2, releasing)
    rig.step(0)
    rig.interrupt(1)
    assert rig.enabled() == [Step(2)]
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all", 1: "x = 1"}
    rig.run()
    assert rig.word() == 1


def test_an_atomic_handler_that_waits_is_an_error_that_says_for_what() -> None:
    async def handler(request: int, payload: object) -> None:
        await Await(WordIs(Y, 1))

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(Blocked, match=r"^an atomic handler of vector 0xfd waits for y\[3\] = 1$"):
        rig.interrupt(1)


def test_an_atomic_handler_whose_access_faults_is_an_error_that_says_where() -> None:
    async def handler(request: int, payload: object) -> None:
        await Load(VirtAddr(VA + 99 * PAGE))

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(OpRefused, match=str(VA + 99 * PAGE)):
        rig.interrupt(1)


def test_an_atomic_handler_that_is_killed_is_recorded_like_any_context() -> None:
    async def handler(request: int, payload: object) -> None:
        await FlushTlbPages(VA)
        raise ContextKilled

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.thread(1, one_load)
    rig.step(0)
    rig.interrupt(1)
    assert [(event.cpu, event.killed) for event in rig.told(Finished)] == [(1, True)]
    assert rig.machine.is_enabled(Step(1))


def test_a_vector_without_a_handler_is_an_error_that_names_it() -> None:
    rig = MachineRig(2)
    rig.thread(0, shooting_down)
    rig.step(0)
    with pytest.raises(LookupError, match="no handler for vector 0xfd on cpu1"):
        rig.interrupt(1)


def test_with_interrupts_off_no_interrupt_is_taken() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    async def quiet() -> None:
        await SetInterrupts(enabled=False)
        await Load(VA)
        await SetInterrupts(enabled=True)

    rig.thread(0, shooting_down)
    rig.thread(1, quiet)
    rig.step(1)
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [TakeInterrupt(1)]


def test_a_guest_with_interrupts_off_takes_none() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.guest(1, "cli; nop; sti; nop; hlt")
    rig.thread(0, shooting_down)
    rig.step(1)
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.step(1, 2)
    assert rig.enabled() == [Step(1), TakeInterrupt(1)]


def test_a_handler_that_never_acknowledges_is_a_deadlock_and_blocked_says_why() -> None:
    async def handler(request: int, payload: object) -> None:
        await FlushTlbPages(VA)

    rig = MachineRig(2, interrupts={FLUSH: atomic(handler)})
    rig.thread(0, shooting_down)
    rig.run()
    assert rig.enabled() == []
    assert rig.machine.busy
    assert rig.machine.blocked() == {0: "request 0 is acknowledged by all"}
    assert rig.machine.apic.owing(0) == frozenset({1})


def test_two_cpus_that_flush_each_other_take_interrupts_while_they_wait() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    def sender(other: int):
        async def thread() -> None:
            await Await(Acknowledged(await SendIpi(frozenset({other}), FLUSH)))

        return thread

    rig.thread(0, sender(1))
    rig.thread(1, sender(0))
    rig.step(0)
    rig.step(1)
    assert rig.enabled() == [TakeInterrupt(0), TakeInterrupt(1)]
    rig.interrupt(0)
    assert rig.enabled() == [Step(1), TakeInterrupt(1)]
    rig.run()
    assert not rig.machine.busy


def test_two_cpus_that_wait_with_interrupts_off_for_each_other_are_deadlocked() -> None:
    rig = MachineRig(2, interrupts={FLUSH: atomic()})

    def sender(other: int):
        async def thread() -> None:
            await SetInterrupts(enabled=False)
            await Await(Acknowledged(await SendIpi(frozenset({other}), FLUSH)))

        return thread

    for cpu in (0, 1):
        rig.thread(cpu, sender(1 - cpu))
    for cpu in (0, 1):
        rig.step(cpu, 2)
    assert rig.enabled() == []
    assert sorted(rig.machine.blocked()) == [0, 1]


def test_interrupts_are_taken_in_the_order_they_were_sent() -> None:
    taken = []

    async def handler(request: int, payload: object) -> None:
        taken.append(payload)
        await Acknowledge(request)

    rig = MachineRig(3, interrupts={FLUSH: atomic(handler), FLUSH + 1: atomic(handler)})

    def sender(vector: int, payload: str):
        async def thread() -> None:
            await SendIpi(frozenset({2}), vector, payload)

        return thread

    rig.thread(1, sender(FLUSH, "first"))
    rig.thread(0, sender(FLUSH + 1, "second"))
    rig.step(1)
    rig.step(0)
    rig.interrupt(2)
    rig.interrupt(2)
    assert taken == ["first", "second"]


# --- waiting -------------------------------------------------------------------------------------------


def test_an_await_whose_condition_holds_is_a_step() -> None:
    rig, results = alone(Await(WordIs(X, 0)), AddWords(((X, 2), (Y, 1))), Await(WordIs(X, 2)))
    assert results == [None, None, None]
    assert (rig.machine.words[X], rig.machine.words[Y]) == (2, 1)


def test_await_then_adds_in_the_same_step() -> None:
    """A lock: when both wait for 0 and one takes it, the other is no longer enabled."""
    rig = MachineRig(2)

    async def locking() -> None:
        await Await(WordIs(X, 0), then=((X, 1),))
        await Load(VA)
        await AddWords(((X, -1),))

    for cpu in (0, 1):
        rig.thread(cpu, locking)
    assert rig.enabled() == [Step(0), Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "x = 0"}
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def test_a_wait_for_memory_is_over_when_the_word_has_the_value() -> None:
    rig = MachineRig(2)
    pa = PhysAddr(FRAME * PAGE + 8)

    async def waiting() -> None:
        await Await(MemoryIs(pa, 7))

    async def storing() -> None:
        await Store(VirtAddr(VA + 8), 6)
        await Store(VirtAddr(VA + 8), 7)

    rig.thread(0, waiting)
    rig.thread(1, storing)
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "[0x800008] = 0x7"}
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def test_a_wait_for_interrupts_on_and_for_all_of_several() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Await(AllOf((InterruptsOn(1), WordIs(X, 1))))

    async def other() -> None:
        await SetInterrupts(enabled=False)
        await AddWords(((X, 1),))
        await SetInterrupts(enabled=True)

    rig.thread(1, other)
    rig.step(1)
    rig.thread(0, waiting)
    assert rig.machine.blocked() == {0: "cpu1 has IF=1 and x = 1"}
    rig.step(1)
    assert rig.enabled() == [Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]


def pulse(word: Word):
    """The word is 1 for one moment."""

    async def thread() -> None:
        await AddWords(((word, 1),))
        await AddWords(((word, -1),))

    return thread


def test_each_once_remembers_what_has_held_since_the_wait_began() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 1), WordIs(Y, 1))))

    rig.thread(1, pulse(X))
    rig.thread(1, pulse(Y))
    rig.thread(0, waiting)
    rig.step(0)
    rig.step(1, 2)
    assert rig.enabled() == [Step(1)]
    assert rig.machine.blocked() == {0: "once each: x = 1; y[3] = 1"}
    rig.step(1)
    assert rig.enabled() == [Step(0), Step(1)]
    rig.step(1)
    assert rig.enabled() == [Step(0)]  # though neither holds now


def test_each_once_does_not_count_what_held_before_the_wait_began() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 1),)))

    rig.thread(0, waiting)
    rig.thread(1, pulse(X))
    rig.step(1, 2)
    rig.step(0)
    assert rig.enabled() == []


def test_each_once_counts_what_holds_when_the_wait_begins() -> None:
    rig = MachineRig(1)

    async def waiting() -> None:
        await Load(VA)
        await Await(EachOnce((WordIs(X, 0),)))

    rig.thread(0, waiting)
    rig.run()
    assert not rig.machine.busy


def test_each_once_counts_what_holds_when_it_is_the_first_thing_a_thread_does() -> None:
    """The thread is started between steps: nobody else need do anything for it to go on."""
    rig = MachineRig(1)

    async def waiting() -> None:
        await Await(EachOnce((WordIs(X, 0),)))

    rig.thread(0, waiting)
    assert rig.enabled() == [Step(0)]


def test_all_of_wants_its_parts_at_the_same_moment() -> None:
    rig = MachineRig(2)

    async def waiting() -> None:
        await Await(AllOf((WordIs(X, 1), WordIs(Y, 1))))

    rig.thread(0, waiting)
    rig.thread(1, pulse(X))
    rig.thread(1, pulse(Y))
    rig.step(1, 4)
    assert rig.enabled() == []


# --- PAUSE loops ---------------------------------------------------------------------------------------

SPIN = "cmp byte ptr [rbx], 0; jne 0xffffffff81000009; pause; jmp 0xffffffff81000000; hlt"
SPIN_OUT = CODE + 9


def spinning(rig: MachineRig, cpu: int = 1) -> None:
    """A guest that waits for the byte at VA."""
    rig.guest(cpu, SPIN, {"rbx": VA})
    core = rig.machine.cpus[cpu].core
    assert core is not None


async def store_flag() -> None:
    await Store(VA, 1, 1)


def test_the_spin_loop_is_what_it_seems() -> None:
    rig = MachineRig(2)
    rig.thread(0, store_flag)
    rig.step(0)
    spinning(rig)
    rig.run()
    assert [event.site.instruction for event in rig.told(Executed)] == [
        "cmp byte ptr [rbx], 0",
        f"jne {SPIN_OUT:#x}",
    ]


def test_a_pause_loop_waits_until_the_word_is_written_by_another_cpu() -> None:
    rig = MachineRig(2)
    spinning(rig)
    rig.thread(0, store_flag)
    rig.step(1, 3)
    assert rig.enabled() == [Step(0)]
    assert rig.machine.blocked() == {1: "a word it spins on"}
    rig.step(0)
    assert rig.enabled() == [Step(1)]
    rig.run()
    assert not rig.machine.busy


def test_a_write_between_the_read_and_the_pause_is_not_slept_over() -> None:
    """Else the loop waits for a second write, which never comes: a deadlock that no CPU has."""
    rig = MachineRig(2)
    spinning(rig)
    rig.thread(0, store_flag)
    rig.step(1)  # reads 0
    rig.step(0)  # writes 1
    rig.step(1, 2)  # PAUSE
    assert rig.enabled() == [Step(1)]
    rig.run()
    assert not rig.machine.busy


def test_a_write_to_another_word_does_not_wake_the_loop() -> None:
    rig = MachineRig(2)
    spinning(rig)

    async def elsewhere() -> None:
        await Store(VirtAddr(VA + 8), 1)
        await Store(VirtAddr(VA + 4), 1, 4)  # the same aligned word

    rig.thread(0, elsewhere)
    rig.step(1, 3)
    rig.step(0)
    assert rig.enabled() == [Step(0)]
    rig.step(0)
    assert rig.enabled() == [Step(1)]


def test_a_write_of_the_cpus_own_interrupt_handler_wakes_the_loop() -> None:
    async def handler(request: int, payload: object) -> None:
        await Store(VA, 1, 1)
        await Acknowledge(request)

    async def sending() -> None:
        await SendIpi(frozenset({1}), FLUSH)

    for grain in Grain:
        rig = MachineRig(2, interrupts={FLUSH: InterruptHandler(handler, grain)})
        spinning(rig)
        rig.thread(0, sending)
        rig.step(1, 3)
        rig.step(0)
        rig.run()
        assert not rig.machine.busy


def test_a_page_that_is_remapped_under_a_spin_loop_wakes_it() -> None:
    """The word it read is not written: the address now leads to another word, which is already 1."""
    rig = MachineRig(2, interrupts={FLUSH: atomic()})
    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x01")
    alias = table_alias(rig, VA)
    spinning(rig)

    async def remapping() -> None:
        await Store(alias, leaf(FRAME + 1))
        await Await(Acknowledged(await SendIpi(frozenset({1}), FLUSH)))

    rig.thread(0, remapping)
    rig.step(1, 3)
    rig.run()
    assert not rig.machine.busy


def test_an_invlpg_in_a_handler_wakes_a_loop_that_reads_by_a_stale_entry() -> None:
    """The entry was stored before the loop's last read: only the INVLPG makes it see the new word."""
    rig = MachineRig(2, model=SKYLAKE, interrupts={FLUSH: atomic()})
    rig.memory.load_image(PhysAddr((FRAME + 1) * PAGE), b"\x01")
    alias = table_alias(rig, VA)
    spinning(rig)

    async def remapping() -> None:
        await Store(alias, leaf(FRAME + 1))
        await Await(Acknowledged(await SendIpi(frozenset({1}), FLUSH)))

    rig.thread(0, remapping)
    read(rig.machine.cpus[1].mmu, VA)
    rig.step(0)
    rig.step(1, 3)  # reads by the old entry, and waits
    rig.run()
    assert not rig.machine.busy


def test_two_loops_over_a_failing_cmpxchg_do_not_wake_each_other() -> None:
    """A LOCK CMPXCHG that fails stores nothing: else two waiters would take turns for ever."""
    rig = MachineRig(3)
    rig.memory.load_image(PhysAddr(FRAME * PAGE), b"\x01")  # held by CPU 0

    async def releasing() -> None:
        await Store(VA, 0)

    for cpu in (1, 2):
        at = CODE + 0x100 * cpu
        program = f"xor eax, eax; lock cmpxchg [rbx], rcx; je {at + 13:#x}; pause; jmp {at:#x}; hlt"
        rig.guest(cpu, program, {"rbx": VA, "rcx": cpu + 1}, at=at)
    rig.thread(0, releasing)
    for _ in range(40):
        for cpu in (1, 2):
            if rig.machine.is_enabled(Step(cpu)):
                rig.step(cpu)
    assert rig.enabled() == [Step(0)]
    rig.step(0)
    assert rig.enabled() == [Step(1), Step(2)]
    rig.step(1, 4)
    assert rig.told(Finished) != []


def test_a_program_does_not_wait_for_what_the_one_before_it_read() -> None:
    rig = MachineRig(1)
    rig.guest(0, "mov rax, [rbx]; hlt", {"rbx": VA})
    rig.guest(0, "pause; hlt", at=CODE + 0x100)
    rig.run()
    assert not rig.machine.busy


def test_a_loop_that_reads_nothing_does_not_wait() -> None:
    rig = MachineRig(1)
    rig.guest(0, "pause; pause; hlt")
    rig.run()
    assert not rig.machine.busy


def test_two_guests_hand_over_to_each_other() -> None:
    """Each waits with PAUSE for the byte the other sets; they never run at the same time."""
    rig = MachineRig(2)
    rig.guest(0, SPIN.replace("hlt", "mov byte ptr [rcx], 1; hlt"), {"rbx": VA, "rcx": VA + 64})
    second = CODE + 0x100
    setting = "mov byte ptr [rcx], 1; "  # three bytes
    waiting = f"cmp byte ptr [rbx], 0; jne {second + 12:#x}; pause; jmp {second + 3:#x}; hlt"
    rig.guest(1, setting + waiting, {"rbx": VA + 64, "rcx": VA}, at=second)
    rig.run()
    assert not rig.machine.busy
    assert rig.told(Finished) == [Finished(0, "guest", killed=False), Finished(1, "guest", killed=False)]


# --- determinism ---------------------------------------------------------------------------------------


class FromSeed:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def answer(self, question: Question) -> int:
        return self.rng.randrange(question.options)


def busy_machine(*, listens: bool = True) -> MachineRig:
    """Two guests, three kernel threads, interrupts of both grains, faults, a lock, page-table stores."""

    async def handler(trap: Trap) -> TrapOutcome:
        await Annotate(trap.context)
        return TrapOutcome.KILL if await Decide("kill") else TrapOutcome.RETRY

    rig = MachineRig(4, interrupts={FLUSH: atomic(), FLUSH + 1: stepwise()}, trap=handler, listens=listens)
    start_busy_threads(rig)
    return rig


def start_busy_threads(rig: MachineRig) -> None:
    alias = table_alias(rig, VA)

    async def remapping() -> None:
        for frame in (FRAME + 1, FRAME + 2):
            await Store(alias, leaf(frame))
            everyone = frozenset({1, 2, 3})
            await Await(Acknowledged(await SendIpi(everyone, FLUSH + frame % 2)))
            await FlushTlbPages(VA)

    async def locking() -> None:
        for _ in range(3):
            await Await(WordIs(X, 0), then=((X, 1),))
            await FetchAdd(VirtAddr(VA + PAGE), 1)
            await Load(VA)
            await AddWords(((X, -1),))
        await Load(VirtAddr(VA + 50 * PAGE))

    rig.thread(0, remapping)
    rig.thread(1, locking)
    rig.guest(2, "mov [rbx], rax; mov rcx, [rbx]; lock inc qword ptr [rbx]; invlpg [rbx]; hlt", {"rbx": VA})
    rig.guest(3, "mov rax, [rbx]; add [rbx+8], rax; hlt", {"rbx": VA}, at=CODE + 0x100)
    rig.thread(3, locking)


def drive(rig: MachineRig, seed: int, limit: int = 400) -> list[tuple[Choice, int]]:
    """Random choices and answers; returns each choice and the number of events after it."""
    rng, answerer = random.Random(seed), FromSeed(seed)
    done = []
    while (choices := rig.enabled()) and len(done) < limit:
        choice = rng.choice(choices)
        rig.machine.perform(choice, answerer)
        done.append((choice, rig.machine.trace.next_number))
    return done


@pytest.mark.parametrize("seed", range(12))
def test_the_same_choices_and_answers_give_the_same_events(seed: int) -> None:
    first, second = busy_machine(), busy_machine()
    assert drive(first, seed) == drive(second, seed)
    assert [repr(event) for event in first.events] == [repr(event) for event in second.events]
    size = first.memory.size
    assert first.memory.read(PhysAddr(0), size) == second.memory.read(PhysAddr(0), size)
    assert len(first.events) > 50


@pytest.mark.parametrize("seed", range(12))
def test_a_listener_changes_no_event_number(seed: int) -> None:
    assert drive(busy_machine(), seed) == drive(busy_machine(listens=False), seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_machine_that_was_reset_runs_as_a_new_one(seed: int) -> None:
    """Whatever it did before: memory, TLBs, words, interrupts, routines left in the middle."""
    fresh, used = busy_machine(), busy_machine()
    used.machine.reset()
    used.machine.mark_time_zero()
    start_busy_threads(used)
    drive(used, seed + 100, limit=60)
    used.machine.reset()
    assert (used.enabled(), used.machine.busy, used.machine.blocked()) == ([], False, {})
    del used.events[:]
    used.machine.trace.listen(lambda _number, event: used.events.append(event))
    start_busy_threads(used)
    assert drive(fresh, seed) == drive(used, seed)
    assert [repr(event) for event in fresh.events] == [repr(event) for event in used.events]


def test_a_number_is_the_place_in_the_trace() -> None:
    rig = MachineRig(2)
    numbers: list[int] = []
    rig.machine.trace.listen(lambda number, _event: numbers.append(number))
    rig.thread(0, one_load)
    rig.run()
    assert numbers == list(range(len(rig.events)))


def test_listeners_are_told_in_the_order_they_were_added() -> None:
    rig = MachineRig(1, listens=False)
    order: list[str] = []
    rig.machine.trace.listen(lambda _number, _event: order.append("first"))
    rig.machine.trace.listen(lambda _number, _event: order.append("second"))
    rig.thread(0, one_load)
    assert order == ["first", "second"]


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


# --- the interrupt fabric ------------------------------------------------------------------------------


def test_the_apic_numbers_requests_and_queues_them_for_each_target() -> None:
    apic = Apic(3)
    first = apic.send(0, frozenset({1, 2}), 5, "a")
    second = apic.send(2, frozenset({1}), 6, "b")
    assert (first, second) == (0, 1)
    assert apic.interrupted == {1, 2}
    assert [apic.take(1), apic.take(1)] == [Ipi(0, 0, 5, "a"), Ipi(1, 2, 6, "b")]
    assert apic.interrupted == {2}
    assert apic.owing(0) == {1, 2}
    apic.acknowledge(1, 0)
    assert not apic.acknowledged(0)
    apic.acknowledge(2, 0)
    assert apic.acknowledged(0)
    assert not apic.acknowledged(1)


@pytest.mark.parametrize("targets", [{0}, {3}, {-1}, {1, 7}])
def test_the_apic_refuses_targets_that_are_not_there_or_the_sender(targets: set[int]) -> None:
    apic = Apic(3)
    wrong = sorted(targets - {1})
    with pytest.raises(ValueError, match=rf"^cpu0 cannot send an IPI to \[{wrong[0]}\]$"):
        apic.send(0, frozenset(targets), 5, None)
    assert apic.interrupted == set()


@pytest.mark.parametrize(("cpu", "request_number"), [(1, 5), (1, -1), (0, 0), (2, 0)])
def test_the_apic_refuses_an_acknowledgement_that_is_not_owed(cpu: int, request_number: int) -> None:
    apic = Apic(3)
    apic.send(0, frozenset({1}), 5, None)
    with pytest.raises(ValueError, match=f"^cpu{cpu} owes request {request_number} no acknowledgement$"):
        apic.acknowledge(cpu, request_number)


def test_the_apic_refuses_to_be_acknowledged_twice() -> None:
    apic = Apic(2)
    apic.send(0, frozenset({1}), 5, None)
    apic.acknowledge(1, 0)
    with pytest.raises(ValueError, match="owes request 0 no acknowledgement"):
        apic.acknowledge(1, 0)


def test_an_ipi_to_nobody_is_acknowledged_at_once() -> None:
    apic = Apic(1)
    assert apic.acknowledged(apic.send(0, frozenset(), 5, None))


def test_a_word_prints_its_name_and_its_index_unless_0() -> None:
    assert (str(Word("lock")), str(Word("lock", 2))) == ("lock", "lock[2]")


def test_a_guest_thread_and_a_kernel_thread_are_values() -> None:
    assert GuestThread("a", VirtAddr(1), {"rax": 2}) == GuestThread("a", VirtAddr(1), {"rax": 2})
    assert KernelThread("b", one_load) == KernelThread("b", one_load)


def test_the_mmu_of_each_cpu_is_its_own() -> None:
    rig = MachineRig(2, model=SKYLAKE)
    write(rig.machine.cpus[0].mmu, VA)
    assert len(rig.machine.cpus[0].mmu.tlb.entries()) == 1
    assert rig.machine.cpus[1].mmu.tlb.entries() == ()
