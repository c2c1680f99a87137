"""Routines by their histories: what has been asked once is looked up, not run again.

A history is how a routine began and the results of its ops so far; what comes next depends on nothing else.
So the histories form a tree: at each node the op that is asked for then, or how the routine ended. The
coroutine is made only where the tree ends, by giving it the results that led there; it must ask for what it
asked for then.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TypeAlias, assert_never

from emu.cpu.ops import Awaitable, Rewrite
from emu.cpu.routine import Code, ContextKilled, Root, Routine, functions_of
from emu.guest.known import KnownInstructions


class Unrepeatable(ValueError):
    """A routine's next step is not a function of its history. One line."""

    def __init__(self, root: Root, functions: tuple[str, ...], why: str) -> None:
        super().__init__(f"{root}{f', in {functions[-1]}()' if functions else ''}: {why}")


def _another(before: _Following, now: _Following) -> str:
    return (
        f"its next step depends on something outside the machine: {_words(now)} after the results after "
        f"which it was {_words(before)}"
    )


@dataclass(frozen=True, slots=True)
class _Awaits:
    """The routine awaits `op`, in these functions."""

    op: object
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Returned:
    value: object


@dataclass(frozen=True, slots=True)
class _Killed:
    message: str


_Following: TypeAlias = _Awaits | _Returned | _Killed


@dataclass(slots=True, eq=False)
class HistoryNode:
    """What a routine does after the results that led here. `next` is None before it has begun.

    `before` is the node before the last of `depth` results, None where there is none.
    """

    next: _Following | None = None
    before: HistoryNode | None = None
    result: Hashable = None
    depth: int = 0
    after: dict[Hashable, HistoryNode] = field(default_factory=dict)

    @property
    def awaited(self) -> object:
        """What the routine awaits there; None where it awaits nothing."""
        return self.next.op if isinstance(self.next, _Awaits) else None

    def path(self, since: int) -> list[HistoryNode]:
        """The nodes that led here, this one last, from those with more than `since` results on."""
        found: list[HistoryNode] = []
        node: HistoryNode | None = self
        while node is not None and node.depth > since:
            found.append(node)
            node = node.before
        return found[::-1]


class Recall:
    """What is known of how routines go on. While `checking` each is run as well, and compared.

    And what is known of instructions; while checking, nothing.
    """

    def __init__(self) -> None:
        self.checking = False
        self._instructions = KnownInstructions()
        self._roots: dict[Root, HistoryNode] = {}

    def begin(self, root: Root, code: Callable[[], Code]) -> Routine:
        """A routine that begins so. What is given to it must be hashable, or it is begun anew."""
        try:
            node = self._roots.setdefault(root, HistoryNode())
        except TypeError:
            return code()
        return Recalled(root, node, code, self)

    @property
    def instructions(self) -> KnownInstructions | None:
        return None if self.checking else self._instructions

    @property
    def nodes(self) -> int:
        """How many histories are known."""
        count, left = 0, [*self._roots.values()]
        while left:
            node = left.pop()
            count += 1
            left += node.after.values()
        return count


class Recalled:
    """A routine under way, at a node of its histories."""

    def __init__(self, root: Root, node: HistoryNode, code: Callable[[], Code], recall: Recall) -> None:
        self._root = root
        self._node = node
        self._make = code
        self._recall = recall
        self._code: Code | None = None
        self._at = 0  # how many results the code has been given

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that it is in, outermost first."""
        found = self._node.next
        return found.functions if isinstance(found, _Awaits) else ()

    def send(self, result: Hashable, /) -> object:
        """As of a coroutine. Raises Unrepeatable."""
        known = self._node.after.get(result)
        if known is None or self._recall.checking:
            known = self._asked(result, known)
        self._node = known
        match known.next:
            case _Awaits(op=op):
                return op
            case _Returned(value=value):
                raise StopIteration(value)
            case _Killed(message=message):
                raise ContextKilled(message)
            case None:
                raise AssertionError("a routine that has not begun is before every result")
            case _:
                assert_never(known.next)

    def close(self) -> None:
        self._drop()

    @property
    def node(self) -> HistoryNode:
        """Where it is: a value to come back to."""
        return self._node

    def on_to(self, node: HistoryNode) -> None:
        """To a node behind where it is: what lies between has been done. Its code learns that when needed."""
        self._node = node

    def back(self, node: HistoryNode) -> None:
        """To a node on the way to where it is. A coroutine past it is made anew: it cannot go back."""
        if self._at > node.depth:
            self._drop()
        self._node = node

    def _drop(self) -> None:
        if self._code is not None:
            self._code.close()
            self._code, self._at = None, 0

    def _asked(self, result: Hashable, known: HistoryNode | None) -> HistoryNode:
        """What the code itself does next. What it raises, but to end its context, is not kept."""
        code = self.caught_up()
        found = self._next(code, result)
        self._at += 1
        if known is not None:
            self._compare(code, known, found)
            return known
        node = HistoryNode(found, self._node, result, self._node.depth + 1)
        return self._node.after.setdefault(result, node)

    def caught_up(self) -> Code:
        """The coroutine, given everything that led here. Raises Unrepeatable."""
        code = self._code
        if code is None:
            code = self._code = self._make()
        for node in self._node.path(self._at):
            self._compare(code, node, self._next(code, node.result))
            self._at += 1
        return code

    def _compare(self, code: Code, known: HistoryNode, found: _Following) -> None:
        before = known.next
        assert before is not None
        if not _same(before, found):
            raise Unrepeatable(self._root, functions_of(code), _another(before, found))

    def _next(self, code: Code, result: Hashable) -> _Following:
        """What the code does next. Raises Unrepeatable for an op that could be another one later."""
        try:
            op = code.send(result)
        except StopIteration as stop:
            return _Returned(stop.value)
        except ContextKilled as killed:
            return _Killed(str(killed))
        if isinstance(op, Awaitable) and not _is_a_value(op):
            said = f"what it awaits can change after that: {type(op).__name__} of {_parts(op)}"
            raise Unrepeatable(self._root, functions_of(code), said)
        return _Awaits(op, functions_of(code))


def _is_a_value(op: object) -> bool:
    """Whether the op says the same for ever. A function over variables of another would not."""
    try:
        hash(op)
    except TypeError:
        return False
    return not (isinstance(op, Rewrite) and getattr(op.change, "__closure__", None))


def _same(one: _Following, other: _Following) -> bool:
    """Whether both are the same. What a Rewrite makes is its own affair, what a thread returns nobody's."""
    match one, other:
        case _Awaits(op=Rewrite() as a), _Awaits(op=Rewrite() as b):
            return (a.va, a.length) == (b.va, b.length)
        case _Returned(value=a), _Returned(value=b):
            return a == b or not isinstance(a, Enum)
        case _:
            return one == other


def _words(what: _Following) -> str:
    match what:
        case _Awaits(op=Awaitable() as op):
            return f"{type(op).__name__}({_parts(op)})"
        case _Awaits(op=op):
            return repr(op)
        case _Returned():
            return "its end"
        case _Killed(message=message):
            return f"its end ({message})"
        case _:
            assert_never(what)


def _parts(op: object) -> str:
    named = ((one.name, getattr(op, one.name)) for one in fields(op))  # type: ignore[arg-type]
    return ", ".join(f"{name}={_value(value)}" for name, value in named)


def _value(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) and value > 0xFFFF else repr(value)
