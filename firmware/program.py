"""`Program`: one assembled guest program with what a reader and a caller must know about it.

Promises: immutable; the code lies inside the one 4096-byte page that starts at `origin`; every label is an
absolute virtual address inside that code or just behind it. Does not promise that the code is correct,
ends, or is mapped anywhere: loading and running are the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

PAGE_SIZE = 4096
"""Bytes in the one page a program may fill."""

ARGUMENT_REGISTERS = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
"""Registers an argument or a result may live in: all 64-bit general registers but rsp, which programs leave
alone."""


class UnknownLabel(KeyError):
    """A label was asked for that the program does not have."""

    def __init__(self, program: str, label: str, known: tuple[str, ...]) -> None:
        super().__init__(label)
        self.program = program
        self.label = label
        self.known = known

    def __str__(self) -> str:
        return (
            f"program {self.program} has no label {self.label!r}; it has: {', '.join(self.known) or 'none'}"
        )


@dataclass(frozen=True, slots=True)
class Argument:
    """A register the caller sets before the program runs; `unit` says what the number counts or is."""

    name: str
    register: str
    meaning: str
    unit: str


@dataclass(frozen=True, slots=True)
class Result:
    """A register that holds an answer once the program has halted."""

    name: str
    register: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Program:
    """An assembled guest program.

    `question` is one sentence: what running it shows. `origin` is the virtual address of the first byte of
    `code`, which is also where execution starts. `labels` maps names to absolute virtual addresses, in
    source order.

    Raises ValueError when the code is empty, is longer than a page or does not start one, when a label lies
    outside the code, or when an argument or result names a register that is not one of `ARGUMENT_REGISTERS`
    or is named twice.
    """

    name: str
    question: str
    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]
    source: str = field(repr=False)
    origin: int
    code: bytes = field(repr=False)
    labels: Mapping[str, int] = field(hash=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.origin < 1 << 64 or self.origin % PAGE_SIZE:
            raise ValueError(f"program {self.name}: origin {self.origin:#x} is not the start of a page")
        if not 0 < len(self.code) <= PAGE_SIZE:
            raise ValueError(
                f"program {self.name}: {len(self.code)} bytes of code; 1 to {PAGE_SIZE} are allowed"
            )
        for label, address in self.labels.items():
            if not self.origin <= address <= self.end:
                raise ValueError(
                    f"program {self.name}: label {label!r} at {address:#x} lies outside the code"
                )
        for registers in ([a.register for a in self.arguments], [r.register for r in self.results]):
            for register in registers:
                if register not in ARGUMENT_REGISTERS:
                    raise ValueError(f"program {self.name}: {register!r} cannot hold an argument or a result")
                if registers.count(register) > 1:
                    raise ValueError(f"program {self.name}: {register!r} is described twice")
        # A copy behind a proxy: the caller's own dictionary must not be a way to change a frozen value.
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    @property
    def end(self) -> int:
        """Virtual address of the first byte behind the code."""
        return self.origin + len(self.code)

    def address_of(self, label: str) -> int:
        """Absolute virtual address of `label`; raises UnknownLabel, which lists the labels there are."""
        try:
            return self.labels[label]
        except KeyError:
            raise UnknownLabel(self.name, label, tuple(self.labels)) from None
