"""Answers about struct pages: was what a reader concluded ever true while it looked?

A reader asks a question, looks at vmemmap a few times, and answers. The answer is wrong when it was true at
no instant between its first and its last access. What is true is read off the page tables and memory as they
are, by the rule of include/linux/page-flags.h with the static key taken as raised: a fake head is a tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from emu.addr import PAGE_MASK, VirtAddr
from emu.memory import PhysicalMemory
from emu.paging.walk import Walk, Walked
from hvolab.judge.question import Asks, Question
from kernel_model.mm.page import Offset, PageFlag, nth_page


@dataclass(slots=True)
class _Open:
    """A question under way: the answers that were true, in order, and how many up to the last access."""

    asks: Asks
    true: list[int | None] = field(default_factory=list)
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer that was never true, and those that were."""

    asks: Asks
    answer: int
    true: tuple[int | None, ...]

    def __str__(self) -> str:
        asked = f"{self.asks.question.value}({self.asks.page:#x})"
        return f"{asked} was answered {self.answer:#x}, which was true at no instant while the reader looked"


class Answers:
    """The questions under way, by CPU."""

    def __init__(self, memory: PhysicalMemory, peek: Callable[[VirtAddr], Walked]) -> None:
        self._memory = memory
        self._peek = peek
        self._open: dict[int, _Open] = {}

    @property
    def idle(self) -> bool:
        return not self._open

    def ask(self, cpu: int, asks: Asks) -> None:
        """The reader has begun; its first access is still to come."""
        self._open[cpu] = _Open(asks)

    def accessed(self, cpu: int) -> None:
        """That CPU has accessed vmemmap."""
        question = self._open.get(cpu)
        if question is None:
            return
        if not question.true:
            question.true.append(self._truth(question.asks))
        question.seen = len(question.true)

    def changed(self) -> None:
        """Memory was stored to: what is true may have changed for those who have begun to look."""
        for question in self._open.values():
            if question.true:
                now = self._truth(question.asks)
                if now != question.true[-1]:
                    question.true.append(now)

    def answer(self, cpu: int, answer: int) -> Wrong | None:
        """The reader has answered."""
        question = self._open.pop(cpu, None)
        if question is None or not question.seen or answer in question.true[: question.seen]:
            return None
        return Wrong(question.asks, answer, tuple(question.true[: question.seen]))

    def _truth(self, asks: Asks) -> int | None:
        """The right answer now; None when nothing is mapped there."""
        head = self._compound_head(asks.page)
        match asks.question:
            case Question.COMPOUND_HEAD:
                return head
            case Question.PAGE_TAIL:
                return None if head is None else int(head != asks.page)
            case Question.PAGE_HEAD:
                flags = self._word(VirtAddr(asks.page + Offset.FLAGS))
                return None if flags is None else int(bool(flags & PageFlag.HEAD) and head == asks.page)
            case Question.PAGE_COUNT:
                count = None if head is None else self._word(VirtAddr((head + Offset.REFCOUNT) & ~7))
                return None if count is None else count >> 32
            case _:
                assert_never(asks.question)

    def _compound_head(self, page: VirtAddr) -> VirtAddr | None:
        own, flags = self._word(VirtAddr(page + Offset.COMPOUND_HEAD)), self._word(page)
        if own is None or flags is None:
            return None
        if own & 1:
            return VirtAddr(own - 1)
        if not page & PAGE_MASK and flags & PageFlag.HEAD:
            following = self._word(VirtAddr(nth_page(page, 1) + Offset.COMPOUND_HEAD))
            if following is not None and following & 1:
                return VirtAddr(following - 1)
        return page

    def _word(self, va: VirtAddr) -> int | None:
        found = self._peek(va)
        return self._memory.read_word(found.pa) if isinstance(found, Walk) else None
