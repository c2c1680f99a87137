"""A TLB that really holds entries, and every fill and eviction it could make: the oracle of the lazy TLB.

A program is a list of events on one CPU: stores to page-table words, invalidations, accesses. Between any
two events the TLB may fill whatever can be walked then, or lose anything it holds. `explicit_outcomes`
tries all of it and returns every list of results the accesses can have. Nothing here shares code with the
package but the numbers of the bits: it has its own walk over a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

PRESENT, WRITE, LARGE, GLOBAL = 1, 2, 0x80, 0x100
RESERVED = 1 << 51  # beyond 40 bits of physical address
FRAME_MASK = 0x000F_FFFF_FFFF_F000


class Holds(Enum):
    """How many translations of one page and size the TLB holds at a time."""

    ONE = "a fill replaces"
    SEVERAL = "a fill adds"


@dataclass(frozen=True)
class Stores:
    pa: int
    value: int


@dataclass(frozen=True)
class Reads:
    va: int


@dataclass(frozen=True)
class Writes:
    va: int


@dataclass(frozen=True)
class InvalidatesPage:
    va: int


@dataclass(frozen=True)
class InvalidatesAll:
    """Globals included."""


@dataclass(frozen=True)
class LoadsRoot:
    """MOV CR3: everything but globals."""

    root: int


@dataclass(frozen=True)
class Sends:
    """Another CPU's INVLPGB: this is carried out at any time before its TLBSYNC has ended."""

    what: InvalidatesPage | InvalidatesAll


@dataclass(frozen=True)
class Syncs:
    """Its TLBSYNC."""


Event: TypeAlias = Stores | Reads | Writes | InvalidatesPage | InvalidatesAll | LoadsRoot | Sends | Syncs
# A frame, or None for a page fault.
Outcome: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True)
class Held:
    """A translation: virtual page, size in bytes, first frame."""

    page: int
    size: int
    frame: int
    writable: bool
    is_global: bool

    def covers(self, va: int) -> bool:
        return self.page <= va < self.page + self.size


@dataclass(frozen=True)
class Directory:
    """A remembered directory entry: for these addresses it leads to `table`, whose entries are of `level`."""

    level: int
    first: int
    end: int
    table: int
    writable: bool


@dataclass(frozen=True)
class State:
    root: int
    held: frozenset[Held]
    directories: frozenset[Directory]
    to_carry_out: frozenset[InvalidatesPage | InvalidatesAll] = frozenset()


Words: TypeAlias = dict[int, int]


def _read(words: Words, at: Directory, va: int) -> tuple[int, int]:
    """The entry for `va` in that table, and how many bytes it translates."""
    span = 1 << (12 + 9 * (at.level - 1))
    return words.get((at.table << 12) + 8 * (va // span % 512), 0), span


def _follow(words: Words, at: Directory, va: int) -> Held | Directory | None:
    """One step of a walk: to a translation, to the next table, or nowhere."""
    word, span = _read(words, at, va)
    if not word & PRESENT or word & RESERVED:
        return None
    writable = at.writable and bool(word & WRITE)
    frame = (word & FRAME_MASK) >> 12
    first = va // span * span
    if at.level == 1 or (at.level < 4 and word & LARGE):
        return Held(first, span, frame & ~((span >> 12) - 1), writable, bool(word & GLOBAL))
    return Directory(at.level - 1, first, first + span, frame, writable)


def _top(state: State) -> Directory:
    return Directory(4, 0, 1 << 64, state.root, writable=True)


def _walk_now(words: Words, state: State, va: int) -> Held | None:
    at: Held | Directory | None = _top(state)
    while isinstance(at, Directory):
        at = _follow(words, at, va)
    return at


def _remembering(words: Words, state: State, pages: tuple[int, ...]) -> State:
    """All directory entries that can be remembered are: having one more never takes a walk away."""
    known = set(state.directories)
    while True:
        starts = {_top(state), *known}
        found = {
            below
            for at in starts
            for va in pages
            if at.first <= va < at.end and isinstance(below := _follow(words, at, va), Directory)
        }
        if found <= known:
            return replace(state, directories=frozenset(known))
        known |= found


def _fillable(words: Words, state: State, pages: tuple[int, ...], *, remembers: bool) -> set[Held]:
    found: set[Held] = set()
    for va in pages:
        if (now := _walk_now(words, state, va)) is not None:
            found.add(now)
        if remembers:
            for at in state.directories:
                if at.first <= va < at.end and isinstance(leaf := _follow(words, at, va), Held):
                    found.add(leaf)
    return found


def _filled(state: State, new: Held, holds: Holds) -> State:
    others = state.held
    if holds is Holds.ONE:
        others = frozenset(one for one in others if (one.page, one.size) != (new.page, new.size))
    return replace(state, held=others | {new})


def _whatever_happens(
    words: Words, states: set[State], pages: tuple[int, ...], holds: Holds, *, remembers: bool
) -> set[State]:
    """Every state that fills and evictions can lead to."""

    def remembering(state: State) -> State:
        return _remembering(words, state, pages) if remembers else state

    todo = [remembering(state) for state in states]
    seen = set(todo)
    while todo:
        state = todo.pop()
        after = [_filled(state, new, holds) for new in _fillable(words, state, pages, remembers=remembers)]
        after += [replace(state, held=state.held - {one}) for one in state.held]
        after += [remembering(_carried_out(state, one)) for one in state.to_carry_out]
        for one in after:
            if one not in seen:
                seen.add(one)
                todo.append(one)
    return seen


def _dropped(state: State, va: int) -> State:
    """After an INVLPG of `va`, or a page fault there."""
    held = frozenset(one for one in state.held if not one.covers(va))
    return replace(state, held=held, directories=frozenset())


def _carried_out(state: State, what: InvalidatesPage | InvalidatesAll) -> State:
    """One of those that were sent."""
    left = replace(state, to_carry_out=state.to_carry_out - {what})
    if isinstance(what, InvalidatesPage):
        return _dropped(left, what.va)
    return replace(left, held=frozenset(), directories=frozenset())


def _leads_nowhere(words: Words, at: Held | Directory | None, va: int) -> bool:
    while isinstance(at, Directory):
        at = _follow(words, at, va)
    return at is None


def _access(words: Words, state: State, va: int, *, writes: bool) -> Iterator[tuple[int | None, State]]:
    matching = [one for one in state.held if one.covers(va)]
    for one in matching:
        if writes and not one.writable:
            yield None, _dropped(state, va)
        else:
            yield one.frame + ((va - one.page) >> 12), state
    if not matching:
        now = _walk_now(words, state, va)
        remembered = [at for at in state.directories if at.first <= va < at.end]
        if (
            now is None
            or (writes and not now.writable)
            or any(_leads_nowhere(words, at, va) for at in remembered)
        ):
            yield None, _dropped(state, va)


def _apply(words: Words, state: State, event: Event) -> Iterator[tuple[Outcome, State]]:
    match event:
        case Stores():
            yield (), state
        case Reads(va=va):
            for result, after in _access(words, state, va, writes=False):
                yield (result,), after
        case Writes(va=va):
            for result, after in _access(words, state, va, writes=True):
                yield (result,), after
        case InvalidatesPage(va=va):
            yield (), _dropped(state, va)
        case InvalidatesAll():
            yield (), replace(state, held=frozenset(), directories=frozenset())
        case LoadsRoot(root=root):
            held = frozenset(one for one in state.held if one.is_global)
            yield (), State(root, held, frozenset(), state.to_carry_out)
        case Sends(what=what):
            yield (), replace(state, to_carry_out=state.to_carry_out | {what})
        case Syncs():
            if not state.to_carry_out:
                yield (), state


def explicit_outcomes(
    words: Words,
    root: int,
    program: list[Event],
    pages: tuple[int, ...],
    holds: Holds,
    *,
    remembers: bool,
    visited: list[int] | None = None,
) -> set[Outcome]:
    """Every list of results of the program's accesses. `remembers`: directory entries are cached too.

    `visited` gets the number of states of the TLB that were tried before each event.
    """
    words = dict(words)
    reached: dict[Outcome, set[State]] = {(): {State(root, frozenset(), frozenset())}}
    for event in program:
        after: dict[Outcome, set[State]] = {}
        for outcome, states in reached.items():
            possible = _whatever_happens(words, states, pages, holds, remembers=remembers)
            if visited is not None:
                visited.append(len(possible))
            for state in possible:
                for results, new in _apply(words, state, event):
                    after.setdefault(outcome + results, set()).add(new)
        if isinstance(event, Stores):
            words[event.pa] = event.value
        reached = after
    return set(reached)
