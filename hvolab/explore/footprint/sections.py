"""RCU read-side sections, as far as orders matter: who begins a wait, enters a section, or leaves one.

synchronize_rcu() waits for the CPUs that are inside a section when it begins. So its begin and a CPU's entry
can come in either order, and it matters which. Its end comes after the exits it had to wait for, and cares
about nothing else: an exit of a section that was begun later, or left earlier, may come before or after it.
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet

from emu.addr import PAGE_SHIFT
from emu.cpu.condition import EachOnce, Plain
from emu.cpu.cpu import Cpu, RoutineContext
from emu.cpu.ops import Await
from emu.kept import Kept
from emu.machine import Machine
from hvolab.judge.sight.resource import Kind, Resource, Touched
from kernel_model.core.rcu import nesting_word, outside
from kernel_model.core.spinlock import preempt_count


class Sections(Kept):
    """Follows one run."""

    kept = ("_inside", "_begun", "_owed")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._parts: dict[Plain, int] = {outside(cpu.number): cpu.number for cpu in machine.cpus}
        self._inside = [self._is_inside(cpu) for cpu in machine.cpus]
        self._decides: set[Touched] = set()
        for cpu in machine.cpus:
            word = nesting_word(cpu.number)
            self._decides |= {word >> 3, Resource(Kind.BULK_WRITE, word >> PAGE_SHIFT)}
            self._decides |= {preempt_count(cpu.number), Resource(Kind.INTERRUPT_FLAG, cpu.number)}
        self._begun: dict[int, Await] = {}  # CPU -> the wait it began last
        self._owed: dict[int, set[Touched]] = {}  # CPU -> exits its wait is for

    def passed(self, writes: AbstractSet[Touched]) -> set[Touched]:
        """A step has made these writes: the sections it entered and left."""
        if self._decides.isdisjoint(writes):
            return set()
        found: set[Touched] = set()
        for cpu in self._machine.cpus:
            inside = self._is_inside(cpu)
            if inside != self._inside[cpu.number]:
                kind = Kind.SECTION_ENTERED if inside else Kind.SECTION_LEFT
                found.add(Resource(kind, cpu.number))
                self._inside[cpu.number] = inside
        return found

    def begins(self, cpu: Cpu) -> set[Touched] | None:
        """What a wait for sections that this CPU has just begun depends on; None if it has begun none.

        The empty set for one that is over something else.
        """
        if not (isinstance(cpu.top, RoutineContext) and isinstance(cpu.top.pending, Await)):
            return None
        pending = cpu.top.pending
        if self._begun.get(cpu.number) is pending or not isinstance(pending.condition, EachOnce):
            return None
        self._begun[cpu.number] = pending
        if not self.knows(pending.condition):
            return set()
        numbers = [self._parts[part] for part in pending.condition.parts]
        self._owed[cpu.number] = {
            Resource(Kind.SECTION_LEFT, number)
            for bit, number in enumerate(numbers)
            if not cpu.top.once >> bit & 1
        }
        return {Resource(Kind.SECTION_ENTERED, number) for number in numbers}

    def knows(self, condition: EachOnce) -> bool:
        """Whether it is over sections, and nothing else."""
        return all(part in self._parts for part in condition.parts)

    def owed(self, cpu: int) -> set[Touched]:
        """The exits that the end of the CPU's wait comes after."""
        return self._owed.get(cpu, set())

    def state(self) -> Hashable:
        """What waits under way are for; who is inside a section the machine says."""
        waiting = (cpu for cpu in self._machine.cpus if self._waits(cpu))
        return frozenset((cpu.number, frozenset(self.owed(cpu.number))) for cpu in waiting)

    def _waits(self, cpu: Cpu) -> bool:
        """Whether it is in the wait that it began last, or a handler above that."""
        begun = self._begun.get(cpu.number)
        return begun is not None and any(
            isinstance(context, RoutineContext) and context.pending is begun for context in cpu.contexts
        )

    def _is_inside(self, cpu: Cpu) -> bool:
        return bool(
            self._machine.words[preempt_count(cpu.number)]
            or not cpu.interrupts_enabled
            or self._machine.memory.read_word(nesting_word(cpu.number))
        )
