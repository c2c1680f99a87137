"""Scripts: a schedule as ordering constraints on events rather than picks.

    cpu1 until Load(0xffffea0000101000)
    cpu0 until set_pte_at(0xffffea0000101000) 2 times
    cpu1 translates 0xffffea0000101000 to pfn 0x101 rw
    cpu1 walks 0xffffea0000101000 from a remembered entry to nothing in pfn 0x3000
    cpu1 to its end

A script survives a change in the number of ops, because it is resolved to picks only when it is run. While
the CPU it drives waits, others take their pending interrupts (nothing else of theirs happens). A constraint
that cannot be met is an error. `hvolab.subject.script_text` reads the text form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import Pfn, VirtAddr, page_start
from emu.choice import Choice, DecideQuestion, Question, Step, TakeInterrupt, VersionQuestion
from emu.cpu.cpu import RoutineContext, RoutineRole
from emu.events import MachineEvent
from emu.machine import Machine
from emu.paging.dead_end import DeadEnd
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Lack
from hvolab.subject.pattern import Pattern, matches

# What a script calls the end of a walk that cannot go on.
DEAD_ENDS = {Lack.NOT_PRESENT: "nothing", Lack.RESERVED: "a reserved bit"}


@dataclass(frozen=True, slots=True)
class Until:
    """The CPU runs until, and including, the step in which it does what the pattern says, `times` times."""

    cpu: int
    pattern: Pattern
    times: int = 1

    def __str__(self) -> str:
        return f"cpu{self.cpu} until {self.pattern}{_times(self.times)}"


@dataclass(frozen=True, slots=True)
class Makes:
    """The CPU makes so many steps: for what no event marks."""

    cpu: int
    steps: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} makes {self.steps} step{'' if self.steps == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class ToEnd:
    """The CPU runs until it has nothing left to do."""

    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} to its end"


@dataclass(frozen=True, slots=True)
class AsFar:
    """The CPU runs until it ends, or waits for what only another CPU's steps can bring."""

    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} as far as it goes"


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The CPU takes its oldest pending interrupt."""

    cpu: int

    def __str__(self) -> str:
        return f"cpu{self.cpu} takes an interrupt"


@dataclass(frozen=True, slots=True)
class Translates:
    """From here on, the `times`-th access of the CPU to the page that could, uses that older translation."""

    cpu: int
    page: VirtAddr
    pfn: Pfn
    write: bool
    times: int = 1

    def __str__(self) -> str:
        rights = "rw" if self.write else "ro"
        return f"cpu{self.cpu} translates {self.page:#x} to pfn {self.pfn:#x} {rights}{_times(self.times)}"

    def choice(self, question: Question) -> int | None:
        """The answer this asks for, None where it does not apply."""
        if not isinstance(question, VersionQuestion) or question.cpu != self.cpu:
            return None
        if page_start(question.va) != self.page:
            return None
        fits = (n for n, entry in enumerate(question.entries) if describes(self, entry))
        return next((n for n in fits if n != question.default), None)


@dataclass(frozen=True, slots=True)
class EndsDead:
    """From here on, the `times`-th access of the CPU to the page that could, walks from a remembered entry.

    That walk ends in the table in frame `table`, at an entry that is absent or has a reserved bit set.
    """

    cpu: int
    page: VirtAddr
    table: Pfn
    lack: Lack
    times: int = 1

    def __str__(self) -> str:
        where = f"{DEAD_ENDS[self.lack]} in pfn {self.table:#x}"
        return f"cpu{self.cpu} walks {self.page:#x} from a remembered entry to {where}{_times(self.times)}"

    def choice(self, question: Question) -> int | None:
        """The answer this asks for, None where it does not apply."""
        if not isinstance(question, VersionQuestion) or question.cpu != self.cpu:
            return None
        if page_start(question.va) != self.page:
            return None
        for number in range(question.options):
            one = question.option(number)
            if isinstance(one, DeadEnd) and (one.table, one.lack) == (self.table, self.lack):
                return number
        return None


@dataclass(frozen=True, slots=True)
class Decides:
    """From here on, the `times`-th decision of the CPU of that label comes out as `outcome`."""

    cpu: int
    label: str
    outcome: int
    times: int = 1

    def __str__(self) -> str:
        return f"cpu{self.cpu} decides {self.label}: {self.outcome}{_times(self.times)}"

    def choice(self, question: Question) -> int | None:
        """The answer this asks for, None where it does not apply."""
        if not isinstance(question, DecideQuestion) or question.cpu != self.cpu:
            return None
        return self.outcome if question.label == self.label and self.outcome < question.options else None


Standing: TypeAlias = Translates | EndsDead | Decides
Constraint: TypeAlias = Until | Makes | ToEnd | AsFar | Interrupt | Standing
Script: TypeAlias = tuple[Constraint, ...]


def ordering(script: Script) -> Script:
    """The script without what it asks of TLBs: for a kernel on which there is nothing old to be used."""
    return tuple(one for one in script if not isinstance(one, Translates | EndsDead))


def describes(asked: Translates, entry: TlbEntry) -> bool:
    """Whether the entry is the one asked for."""
    return entry.frame_of(asked.page) == asked.pfn and entry.rights.write == asked.write


def _times(times: int) -> str:
    return "" if times == 1 else f" {times} times"


class ScriptError(Exception):
    """A constraint cannot be met."""


class ScriptPicker:
    """Resolves a script to picks. After its last constraint, runs what is left, lowest CPU first.

    CPUs that nobody runs on take their interrupts at once then: how many there are makes no other order.
    """

    def __init__(self, script: Script, machine: Machine) -> None:
        """Raises ScriptError where it names a CPU that is not there."""
        for constraint in script:
            if constraint.cpu >= len(machine.cpus):
                raise ScriptError(
                    f"'{constraint}': there is no such CPU, {len(machine.cpus)} are numbered from 0"
                )
        self._script = script
        self._machine = machine
        self._at = 0
        self._used: frozenset[int] | None = None  # the CPUs that somebody runs on
        self._count = 0  # how often the current constraint has been met
        self._standing: list[tuple[Standing, int]] = []  # with how often each is still to apply
        machine.trace.listen(self._observe)

    def pick(self, enabled: list[Choice]) -> Choice:
        """The next choice. Raises ScriptError when the current constraint cannot be met any more."""
        if self._used is None:
            self._used = frozenset(cpu.number for cpu in self._machine.cpus if cpu.contexts)
        self._advance()
        if self._at == len(self._script):
            return next((one for one in enabled if self._is_idle(one)), enabled[0])
        constraint = self._script[self._at]
        wanted = TakeInterrupt(constraint.cpu) if isinstance(constraint, Interrupt) else Step(constraint.cpu)
        if wanted in enabled:
            self._count += isinstance(constraint, Interrupt | Makes)
            return wanted
        others: list[Choice] = [choice for choice in enabled if isinstance(choice, TakeInterrupt)]
        if isinstance(constraint, AsFar) and not others:
            self._at, self._count = self._at + 1, 0
            return self.pick(enabled)
        # Who waits may wait for handlers that are taken step by step.
        others += [choice for choice in enabled if self._is_in_handler(choice)]
        waits = self._machine.blocked().get(constraint.cpu)
        if waits is None or not others or isinstance(constraint, Interrupt):
            raise self._unmet(constraint)
        return others[0]

    def _is_in_handler(self, choice: Choice) -> bool:
        contexts = self._machine.cpus[choice.cpu].contexts
        roles = [one.role for one in contexts if isinstance(one, RoutineContext)]
        return isinstance(choice, Step) and RoutineRole.INTERRUPT in roles

    def _is_idle(self, choice: Choice) -> bool:
        """Whether it is an interrupt of a CPU that nobody runs on."""
        return isinstance(choice, TakeInterrupt) and choice.cpu not in (self._used or ())

    def finish(self) -> None:
        """The run is over. Raises ScriptError when a constraint is left that was not met."""
        self._advance()
        if self._at < len(self._script):
            raise self._unmet(self._script[self._at])
        for standing, _ in self._standing:
            raise self._unmet(standing)

    def answer(self, question: Question) -> int:
        for number, (standing, left) in enumerate(self._standing):
            choice = standing.choice(question)
            if choice is None:
                continue
            if left == 1:
                del self._standing[number]
                return choice
            self._standing[number] = (standing, left - 1)
        return question.default

    def _advance(self) -> None:
        while self._at < len(self._script) and self._is_met(self._script[self._at]):
            self._at, self._count = self._at + 1, 0

    def _is_met(self, constraint: Constraint) -> bool:
        match constraint:
            case ToEnd(cpu=cpu) | AsFar(cpu=cpu):
                return not self._machine.cpus[cpu].contexts
            case Until(times=times):
                return self._count >= times
            case Makes(steps=steps):
                return self._count >= steps
            case Interrupt():
                return self._count > 0
            case Translates(times=times) | EndsDead(times=times) | Decides(times=times):
                self._standing.append((constraint, times))
                return True
            case _:
                assert_never(constraint)

    def _observe(self, _number: int, event: MachineEvent) -> None:
        if self._at == len(self._script):
            return
        constraint = self._script[self._at]
        if isinstance(constraint, Until) and event.cpu == constraint.cpu:
            self._count += matches(constraint.pattern, event, self._machine)

    def leave_out(self) -> None:
        """Go on as if the current constraint, and what was to apply from here on, had been met."""
        self._at, self._count = min(self._at + 1, len(self._script)), 0
        self._standing.clear()

    def _unmet(self, constraint: Constraint) -> ScriptError:
        return ScriptError(f"cannot meet '{constraint}': {self._why_not(constraint)}")

    def _why_not(self, constraint: Constraint) -> str:
        waits = self._machine.blocked().get(constraint.cpu)
        match constraint:
            case Interrupt():
                return "none is pending, or interrupts are off"
            case Until() | ToEnd() | AsFar() | Makes():
                return "the CPU has ended" if waits is None else f"the CPU waits for {waits}"
            case Translates() | EndsDead():
                return "no access had that choice"
            case Decides():
                return "there was no such decision"
            case _:
                assert_never(constraint)


class AsFarAsItGoes:
    """A script made for other actors: what cannot be met is left out, and noted in `left_out`."""

    def __init__(self, script: Script, machine: Machine) -> None:
        self.left_out: list[str] = []
        self._picker = ScriptPicker(script, machine)

    def pick(self, enabled: list[Choice]) -> Choice:
        while True:
            try:
                return self._picker.pick(enabled)
            except ScriptError as error:
                self.left_out.append(str(error))
                self._picker.leave_out()

    def answer(self, question: Question) -> int:
        return self._picker.answer(question)

    def finish(self) -> None:
        """What is left does not matter."""
