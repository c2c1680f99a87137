"""Grace periods: who is waited for, and who is not."""

from __future__ import annotations

import pytest
from hvo_lab import KEY, MIB, Call, Deadlock, Lab, lab_2m

from emu.addr import VirtAddr
from emu.choice import Step
from emu.cpu.condition import Word
from emu.cpu.ops import Load, SetInterrupts, Store
from emu.events import Executed, MachineEvent
from firmware.catalog import program
from firmware.load import load_program
from kernel_model.boot import BootConfig
from kernel_model.core.events import GracePeriodBegun, GracePeriodEnded
from kernel_model.core.spinlock import spin_lock, spin_unlock
from kernel_model.layout import PerCpu

# A reader as guest code: the CPU's own nesting word, no lock prefix needed.
READER = load_program("reader", "inc qword ptr [rdx]\nnop\nnop\ndec qword ptr [rdx]\nhlt\n")
TWO_SECTIONS = load_program(
    "two_sections",
    "inc qword ptr [rdx]\nnop\ndec qword ptr [rdx]\ninc qword ptr [rdx]\nnop\ndec qword ptr [rdx]\nhlt\n",
    origin=0xFFFF_FFFF_8110_1000,
)
NESTED = load_program(
    "nested",
    "inc qword ptr [rdx]\ninc qword ptr [rdx]\ndec qword ptr [rdx]\nnop\ndec qword ptr [rdx]\nhlt\n",
    origin=0xFFFF_FFFF_8110_2000,
)
LOCK = Word("some lock")


def small(cpus: int = 3) -> Lab:
    return Lab(BootConfig(16 * MIB, cpus, ()))


def read_on(lab: Lab, cpu: int, reader: object = READER) -> None:
    lab.start_guest(reader, cpu, rdx=PerCpu(cpu).rcu_nesting)  # type: ignore[arg-type]


def steps(lab: Lab, cpu: int, count: int) -> None:
    for _ in range(count):
        lab.perform(Step(cpu))


def synchronize(lab: Lab, cpu: int = 0) -> Call:
    """Call synchronize_rcu() and let it come to where it waits."""
    call = lab.start(lab.kernel.rcu.synchronize_rcu, cpu)
    lab.perform(Step(cpu))
    assert isinstance(lab.heard()[-1], GracePeriodBegun)
    return call


def waits(lab: Lab, cpu: int = 0) -> bool:
    return Step(cpu) not in lab.machine.enabled()


def test_with_no_reader_a_grace_period_is_over_at_once() -> None:
    lab = small()
    lab.call(lab.kernel.rcu.synchronize_rcu)
    begun, ended = lab.heard()
    assert begun == GracePeriodBegun()
    assert ended == GracePeriodEnded(lab.number_of(begun))


def test_a_reader_that_began_before_is_waited_for() -> None:
    lab = small()
    read_on(lab, 1)
    steps(lab, 1, 1)
    synchronize(lab)
    assert waits(lab)
    steps(lab, 1, 2)
    assert waits(lab)
    steps(lab, 1, 1)  # dec: it leaves
    assert not waits(lab)
    lab.run()


def test_a_reader_that_starts_during_the_grace_period_and_outlives_it_is_not_waited_for() -> None:
    lab = small()
    read_on(lab, 1)
    steps(lab, 1, 1)
    call = synchronize(lab)
    read_on(lab, 2)
    steps(lab, 2, 2)  # inside now
    assert waits(lab)
    steps(lab, 1, 3)  # the old one leaves
    assert not waits(lab)
    steps(lab, 0, 2)
    assert call.returned
    assert lab.word_at(PerCpu(2).rcu_nesting) == 1, "still inside"
    lab.run()


def test_a_cpu_that_left_once_is_not_waited_for_when_it_is_inside_again() -> None:
    lab = small()
    read_on(lab, 1, TWO_SECTIONS)
    steps(lab, 1, 2)
    call = synchronize(lab)
    steps(lab, 1, 2)  # out, and in again
    assert lab.word_at(PerCpu(1).rcu_nesting) == 1
    assert not waits(lab)
    steps(lab, 0, 2)
    assert call.returned
    lab.run()


def test_leaving_the_inner_of_two_nested_sections_is_not_leaving() -> None:
    lab = small()
    read_on(lab, 1, NESTED)
    steps(lab, 1, 2)
    synchronize(lab)
    steps(lab, 1, 1)
    assert lab.word_at(PerCpu(1).rcu_nesting) == 1
    assert waits(lab)
    steps(lab, 1, 2)
    assert not waits(lab)
    lab.run()


def test_two_readers_need_not_be_outside_at_the_same_time() -> None:
    lab = small()
    for cpu in (1, 2):
        read_on(lab, cpu)
        steps(lab, cpu, 1)
    synchronize(lab)
    steps(lab, 1, 4)  # to its end; a new one on the same CPU
    read_on(lab, 1)
    steps(lab, 1, 2)
    assert waits(lab)
    steps(lab, 2, 3)
    assert not waits(lab)
    lab.run()


def test_a_cpu_with_interrupts_off_counts_as_a_reader() -> None:
    lab = small()

    async def with_interrupts_off() -> None:
        await SetInterrupts(False)
        await Load(VirtAddr(KEY))
        await SetInterrupts(True)
        await Load(VirtAddr(KEY))

    lab.start(with_interrupts_off, cpu=1)
    steps(lab, 1, 1)
    synchronize(lab)
    steps(lab, 1, 1)
    assert waits(lab)
    steps(lab, 1, 1)
    assert not waits(lab)
    lab.run()


def test_a_held_spinlock_counts_as_a_reader() -> None:
    lab = small()

    async def locked() -> None:
        await spin_lock(LOCK)
        await Load(VirtAddr(KEY))
        await spin_unlock(LOCK)
        await Load(VirtAddr(KEY))

    lab.start(locked, cpu=1)
    steps(lab, 1, 1)
    synchronize(lab)
    steps(lab, 1, 1)
    assert waits(lab)
    steps(lab, 1, 1)
    assert not waits(lab)
    lab.run()


def test_going_from_one_kind_of_section_to_another_without_a_gap_is_not_leaving() -> None:
    lab = small()
    nesting = PerCpu(1).rcu_nesting

    async def overlapping() -> None:
        await Store(nesting, 1)
        await SetInterrupts(False)
        await Store(nesting, 0)
        await spin_lock(LOCK)
        await SetInterrupts(True)
        await spin_unlock(LOCK)
        await Load(VirtAddr(KEY))

    lab.start(overlapping, cpu=1)
    steps(lab, 1, 1)
    synchronize(lab)
    for _ in range(4):
        steps(lab, 1, 1)
        assert waits(lab)
    steps(lab, 1, 1)
    assert not waits(lab)
    lab.run()


def test_a_reader_may_not_wait_for_itself() -> None:
    lab = small()

    async def inside() -> None:
        await Store(PerCpu(0).rcu_nesting, 1)
        await lab.kernel.rcu.synchronize_rcu()

    lab.start(inside)
    with pytest.raises(Deadlock, match="once each"):
        lab.run()


def test_two_grace_periods_at_the_same_time() -> None:
    lab = small(cpus=4)
    read_on(lab, 2)
    steps(lab, 2, 1)
    first = synchronize(lab, 0)
    read_on(lab, 3)
    steps(lab, 3, 1)
    second = synchronize(lab, 1)
    steps(lab, 2, 3)
    assert not waits(lab, 0)
    assert waits(lab, 1), "the second has one more to wait for"
    lab.run()
    assert first.returned
    assert second.returned
    begun = [number for number, event in enumerate(lab.events) if _payload(event) == GracePeriodBegun()]
    assert sorted(ended.begun for ended in lab.heard(GracePeriodEnded)) == begun


def _payload(event: MachineEvent | None) -> object:
    return getattr(event, "payload", None)


# --- with the kernel's own reader -------------------------------------------------------------------------


def test_get_page_unless_zero_is_waited_for_from_enter_to_leave() -> None:
    lab = lab_2m(cpus=2)
    code = program("get_page_unless_zero")
    page = lab.page(0x3000)  # a frame in use
    lab.write_struct(0x3000, lab.struct_page(0x3000)._replace(refcount=1))
    lab.start_guest(code, 1, rdi=page, rsi=KEY, rdx=PerCpu(1).rcu_nesting)

    def at(label: str) -> object:
        """Whether the event is the end of the instruction at that label."""
        return lambda event: isinstance(event, Executed) and event.site.rip == code.address_of(label)

    lab.run_until(1, at("enter"))  # type: ignore[arg-type]
    synchronize(lab)
    for label in ("test_key", "read_count", "read_again", "unless_zero", "try"):
        lab.run_until(1, at(label))  # type: ignore[arg-type]
        assert waits(lab), label
    lab.run_until(1, at("leave"))  # type: ignore[arg-type]
    assert not waits(lab)
    lab.run()
    assert lab.struct_page(0x3000).refcount == 2


def test_optimizing_waits_for_a_walker_that_saw_the_folio_before_it_was_frozen() -> None:
    """bd225530a4c7: the walker's write comes before the first remap, never after."""
    lab = lab_2m(cpus=2)
    huge = lab.config.huge_pages[0]
    code = program("get_page_unless_zero")
    tail = huge.folio + 64 * 64
    lab.start_guest(code, 1, rdi=tail, rsi=KEY, rdx=PerCpu(1).rcu_nesting)
    lab.run_until(1, lambda event: isinstance(event, Executed) and event.site.rip == code.address_of("enter"))
    hvo = lab.kernel.hvo
    lab.start(lambda: hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio), 0)
    while not waits(lab) or "once each" not in lab.machine.blocked()[0]:
        enabled = [choice for choice in lab.machine.enabled() if choice != Step(1)]
        lab.perform(enabled[0])
    assert lab.vmemmap() == lab.initial, "nothing is remapped, nothing even split"
    assert lab.key() == 1, "but fake heads are looked for already"
    lab.run()
    assert lab.optimized(huge)
    assert len(lab.heard(GracePeriodEnded)) == 1
