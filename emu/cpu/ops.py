"""What code running on a CPU can ask of it: kernel routines `await` these, and each is one scheduling point.

    old = await Load(va)

Between two awaits nothing else runs on any CPU. Addresses are virtual and go through the MMU and TLB of
the CPU the routine runs on; a fault there is handled by that CPU's trap handler, after which the op is
performed again. What an announcement or an interrupt request returns is a handle (`emu.cpu.handles`). What is
`Aside` is no scheduling point: it is carried out together with the op before it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self, TypeAlias, TypeVar

from emu.addr import VirtAddr
from emu.choice import About
from emu.cpu.condition import Condition, Word
from emu.ledger import Transaction

R = TypeVar("R")


class Awaitable(Generic[R]):
    """Awaiting an op hands it to the machine and returns the machine's answer."""

    __slots__ = ()

    def __await__(self) -> Generator[Awaitable[R], R, R]:
        return (yield self)


@dataclass(frozen=True, slots=True)
class Load(Awaitable[int]):
    """The little-endian value of `size` (1, 2, 4 or 8) bytes at `va`, within one 4 KiB page."""

    va: VirtAddr
    size: int = 8


@dataclass(frozen=True, slots=True)
class Store(Awaitable[None]):
    """Write `size` bytes within one 4 KiB page."""

    va: VirtAddr
    value: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class CmpXchg(Awaitable[int]):
    """LOCK CMPXCHG: the old value; `new` was written iff it equals `expected`. A write access either way."""

    va: VirtAddr
    expected: int
    new: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class FetchAdd(Awaitable[int]):
    """LOCK XADD: add `delta` (modulo the size) and return the old value."""

    va: VirtAddr
    delta: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class FetchOr(Awaitable[int]):
    """LOCK OR: set `bits` and return the old value."""

    va: VirtAddr
    bits: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class FetchAndNot(Awaitable[int]):
    """LOCK AND with the complement: clear `bits` and return the old value."""

    va: VirtAddr
    bits: int
    size: int = 8


@dataclass(frozen=True, slots=True)
class Copy(Awaitable[None]):
    """Copy `length` bytes; neither range crosses a 4 KiB page. One op, so never seen half done."""

    to: VirtAddr
    source: VirtAddr
    length: int


@dataclass(frozen=True, slots=True)
class LoadBytes(Awaitable[bytes]):
    """Read `length` bytes, at most one 4 KiB page and within one, as one op."""

    va: VirtAddr
    length: int


@dataclass(frozen=True, slots=True)
class Fill(Awaitable[None]):
    """Write `data`, at most one 4 KiB page and within one, as one op."""

    va: VirtAddr
    data: bytes


@dataclass(frozen=True, slots=True)
class Rewrite(Awaitable[bytes]):
    """Write what `change` makes of `length` bytes, at most one 4 KiB page and within one, as one op.

    Returns the bytes as they were. `change` must depend on nothing but its argument.
    """

    va: VirtAddr
    length: int
    change: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class FlushTlbPages(Awaitable[None]):
    """`pages` INVLPGs on this CPU from `va` on, in one step: they concern this CPU's TLB alone."""

    va: VirtAddr
    pages: int = 1


@dataclass(frozen=True, slots=True)
class FlushTlb(Awaitable[None]):
    """INVPCID type 2 on this CPU: everything, globals included."""


@dataclass(frozen=True, slots=True)
class Invlpgb(Awaitable[None]):
    """INVLPGB of `pages` 4 KiB pages from `va` on, globals included, on all CPUs (R14)."""

    va: VirtAddr
    pages: int = 1


@dataclass(frozen=True, slots=True)
class InvlpgbAll(Awaitable[None]):
    """INVLPGB of everything, globals included, on all CPUs."""


@dataclass(frozen=True, slots=True)
class TlbSync(Awaitable[None]):
    """TLBSYNC: every INVLPGB that this CPU has executed is done on all CPUs."""


@dataclass(frozen=True, slots=True)
class SetInterrupts(Awaitable[bool]):
    """STI or CLI: make IF `enabled`; returns what it was."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class SendIpi(Awaitable[int]):
    """Queue an interrupt of that vector on each target CPU; returns a handle of the request."""

    targets: frozenset[int]
    vector: int
    payload: object = None


@dataclass(frozen=True, slots=True)
class NeedTick(Awaitable[None]):
    """There is something to do at the next tick of the local timer of each of these CPUs.

    A timer ticks whether or not anybody asks; one whose handler would find nothing to do is no step.
    """

    cpus: frozenset[int]


@dataclass(frozen=True, slots=True)
class Acknowledge(Awaitable[None]):
    """In an interrupt routine: tell the sender that this CPU has done what was asked. `request`: a handle."""

    request: int


@dataclass(frozen=True, slots=True)
class Await(Awaitable[None]):
    """Block until `condition` holds; then, in the same step, add to the named words."""

    condition: Condition
    then: tuple[tuple[Word, int], ...] = ()


@dataclass(frozen=True, slots=True)
class AddWords(Awaitable[None]):
    """Add to named words in one step."""

    changes: tuple[tuple[Word, int], ...]


@dataclass(frozen=True, slots=True)
class Decide(Awaitable[int]):
    """A free choice of the software's environment: 0 to `options - 1`; 0 is the ordinary outcome."""

    label: str
    options: int = 2
    about: About = About.OUTCOME


class Refers:
    """A payload that speaks of an earlier one of the same routine.

    To the routine `begun` is the handle that announcing that one returned; in the trace it is its event.
    """

    __slots__ = ()
    begun: int

    def numbered(self, numbers: Sequence[int] | Mapping[int, int]) -> Self:
        return replace(self, begun=numbers[self.begun])  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Annotate(Awaitable[int]):
    """Put `payload` into the trace, as a step of its own; returns a handle of it."""

    payload: object


@dataclass(frozen=True, slots=True)
class ThisCpu(Awaitable[int]):
    """The number of the CPU the routine runs on. Not a scheduling point."""


@dataclass(frozen=True, slots=True)
class Count(Awaitable[None]):
    """Add to a per-CPU counter of this CPU. Not a scheduling point."""

    counter: str
    delta: int


@dataclass(frozen=True, slots=True)
class StackRoom(Awaitable[int]):
    """Take `size` bytes of this CPU's kernel stack, or give them back if negative. Not a scheduling point.

    Returns how many bytes were taken before. What a routine has not given back ends with it.
    """

    size: int


@dataclass(frozen=True, slots=True)
class Transact(Awaitable[R], Generic[R]):
    """Carry out a transaction on what software knows beside memory. Not a scheduling point."""

    transaction: Transaction[R]


WordOp: TypeAlias = Load | Store | CmpXchg | FetchAdd | FetchOr | FetchAndNot
Aside: TypeAlias = ThisCpu | Count | StackRoom | Transact[object]
Op: TypeAlias = (
    WordOp
    | Copy
    | LoadBytes
    | Fill
    | Rewrite
    | FlushTlbPages
    | FlushTlb
    | Invlpgb
    | InvlpgbAll
    | TlbSync
    | SetInterrupts
    | SendIpi
    | NeedTick
    | Acknowledge
    | Await
    | AddWords
    | Decide
    | Annotate
    | Aside
)
