"""The machine: what may happen next, in which order it is listed, and the same picks give the same events."""

from __future__ import annotations

import random

import pytest
from guest_rig import CODE
from machine_programs import X, atomic, one_load, stepwise, table_alias
from machine_rig import FLUSH, MachineRig, no_traps
from paging_rig import FRAME, PAGE, ROOT, VA, leaf, write

from emu.addr import PhysAddr, VirtAddr
from emu.choice import Choice, Defaults, Question, Step, TakeInterrupt
from emu.cpu.condition import Acknowledged, WordIs
from emu.cpu.ops import AddWords, Annotate, Await, Decide, FetchAdd, FlushTlbPages, Load, SendIpi, Store
from emu.cpu.software import Software, Trap, TrapOutcome
from emu.events import Loaded
from emu.machine import MOST_CPUS, Machine
from emu.paging.models import SKYLAKE

# --- what is enabled ----------------------------------------------------------------------------------


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


# --- determinism --------------------------------------------------------------------------------------


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


# --- the interrupt fabric -----------------------------------------------------------------------------


def test_the_mmu_of_each_cpu_is_its_own() -> None:
    rig = MachineRig(2, model=SKYLAKE)
    write(rig.machine.cpus[0].mmu, VA)
    assert len(rig.machine.cpus[0].mmu.tlb.entries()) == 1
    assert rig.machine.cpus[1].mmu.tlb.entries() == ()
