"""A CPU without page tables, for kernel code that is tested alone: memory is bytes by virtual address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import (
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
    Load,
    Op,
    Rewrite,
    StackRoom,
    Store,
    ThisCpu,
    Transact,
)
from emu.ledger import Ledger

PAGE = 4096
_T = TypeVar("_T")


class Stuck(Exception):
    """The code waits for something that nobody here will make true."""


class FlatCpu:
    """Runs one routine at a time; memory that was never written reads as 0."""

    def __init__(self) -> None:
        self.number = 0
        self.words: Counter[Word] = Counter()
        self.counters: Counter[str] = Counter()
        self.ledger = Ledger()
        self.stack = 0
        self.announced: list[Any] = []
        self.decide: Callable[[str], int] = lambda _label: 0
        self.ops = 0
        self._pages: dict[int, bytearray] = {}

    def run(self, routine: Coroutine[Any, Any, _T], cpu: int = 0) -> _T:
        """The routine's result. What it raises comes through; Stuck when it would block."""
        self.number = cpu
        result: object = None
        while True:
            try:
                op = routine.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            result = self._perform(op)
            self.ops += 1

    def heard(self, kind: type[_T]) -> list[_T]:
        return [payload for payload in self.announced if isinstance(payload, kind)]

    def _perform(self, op: Op) -> object:
        match op:
            case Load(va=va, size=size):
                return self.read(va, size)
            case Store(va=va, value=value, size=size):
                self.write(va, value, size)
            case CmpXchg(va=va, expected=expected, new=new, size=size):
                old = self.read(va, size)
                if old == expected:
                    self.write(va, new, size)
                return old
            case FetchAdd(va=va, delta=delta, size=size):
                return self._change(va, size, lambda old: old + delta)
            case FetchOr(va=va, bits=bits, size=size):
                return self._change(va, size, lambda old: old | int(bits))
            case FetchAndNot(va=va, bits=bits, size=size):
                return self._change(va, size, lambda old: old & ~int(bits))
            case Copy(to=to, source=source, length=length):
                self.write_bytes(to, self.read_bytes(source, length))
            case Fill(va=va, data=data):
                self.write_bytes(va, data)
            case Rewrite(va=va, length=length, change=change):
                before = self.read_bytes(va, length)
                self.write_bytes(va, change(before))
                return before
            case Await(condition=WordIs(word=word, value=value), then=changes):
                if self.words[word] != value:
                    raise Stuck(f"{word} is {self.words[word]}, not {value}")
                self._add(changes)
            case AddWords(changes=changes):
                self._add(changes)
            case Annotate(payload=payload):
                self.announced.append(payload)
                return len(self.announced) - 1
            case Decide(label=label):
                return self.decide(label)
            case ThisCpu():
                return self.number
            case Count(counter=counter, delta=delta):
                self.counters[counter] += delta
            case StackRoom(size=size):
                self.stack += size
                return self.stack - size
            case Transact(transaction=transaction):
                return transaction(self.ledger)
            case _:
                raise AssertionError(f"no {op} here")
        return None

    def _change(self, va: int, size: int, change: Callable[[int], int]) -> int:
        old = self.read(va, size)
        self.write(va, change(old), size)
        return old

    def _add(self, changes: tuple[tuple[Word, int], ...]) -> None:
        for word, delta in changes:
            self.words[word] += delta

    def read_bytes(self, va: int, length: int) -> bytes:
        assert va % PAGE + length <= PAGE
        page = self._pages.setdefault(va // PAGE, bytearray(PAGE))
        return bytes(page[va % PAGE : va % PAGE + length])

    def write_bytes(self, va: int, data: bytes) -> None:
        assert va % PAGE + len(data) <= PAGE
        page = self._pages.setdefault(va // PAGE, bytearray(PAGE))
        page[va % PAGE : va % PAGE + len(data)] = data

    def read(self, va: int, size: int = 8) -> int:
        return int.from_bytes(self.read_bytes(va, size), "little")

    def write(self, va: int, value: int, size: int = 8) -> None:
        self.write_bytes(va, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
