"""Answers about struct pages, row 7: was what a reader concluded ever true while it looked?

A reader asks a question, looks at vmemmap a few times, and answers. The answer is wrong when it was true at
no instant between its first and its last access. What is true is read off the page tables and memory as they
are, by the rule of include/linux/page-flags.h with the static key taken as raised: a fake head is a tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from emu.addr import PAGE_MASK, VirtAddr
from emu.events import Copied, Filled, Finished, Loaded, MachineEvent, Site, Started, Stored
from hvolab.judge.describe import place_of
from hvolab.judge.question import Asks, PageQuestion
from hvolab.judge.sight.sight import Sight
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Verdict
from kernel_model.mm.page import Offset, PageFlag, nth_page


@dataclass(frozen=True, slots=True)
class _Open:
    """A question under way: the answers that were true, in order, and how many up to the last access.

    `looked_at`: the words (address / 8) that the latest of them was read off, those of page tables included.
    """

    asks: Asks
    true: tuple[int | None, ...] = ()
    seen: int = 0
    looked_at: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Wrong:
    """An answer that was never true, and those that were."""

    asks: Asks
    answer: int
    true: tuple[int | None, ...]

    def __str__(self) -> str:
        asked = f"{self.asks.question.value}({self.asks.page:#x})"
        return f"{asked} was answered {self.answer:#x}, which was true at no instant while the reader looked"


_OpenOrNone: TypeAlias = _Open | None
_NONE: _OpenOrNone = None


class Answers:
    """Follows the readers of a setup: `questions` has what the guest program of a CPU and name asks."""

    def __init__(self, sight: Sight, told: Told, questions: Mapping[tuple[int, str], Asks]) -> None:
        self._sight = sight
        self._told = told
        self._questions = questions
        self._open = sight.cells("a question under way", _NONE)  # by CPU

    def observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Started(cpu=cpu, name=name):
                if (cpu, name) in self._questions:
                    self.ask(cpu, self._questions[cpu, name])
            case Finished(cpu=cpu, name=name, killed=killed):
                asks = self._questions.get((cpu, name))
                registers = self._sight.registers(cpu)
                if asks is not None and registers is not None and not killed:
                    wrong = self.answer(cpu, registers[asks.register])
                    if wrong is not None:
                        self._tell(number, cpu, self._sight.site(cpu), wrong)
            case Loaded(cpu=cpu, va=va):
                if self._open.peek(cpu) is not None and self._sight.is_judged(va):
                    self.accessed(cpu)
            case Stored(pa=pa, size=length):
                self.changed(pa, length)
            case Copied(to_pa=pa, length=length) | Filled(pa=pa, length=length):
                self.changed(pa, length)
            case _:
                pass  # neither begins nor ends a question, nor changes what is true

    def ask(self, cpu: int, asks: Asks) -> None:
        """The reader has begun; its first access is still to come."""
        self._open.set(_Open(asks), cpu)

    def accessed(self, cpu: int) -> None:
        """That CPU has accessed vmemmap."""
        question = self._open.get(cpu)
        if question is None:
            return
        # Asked at every access, so that each is ordered against what may make another answer true.
        now, looked_at = self._truth(question.asks)
        true = question.true if question.true[-1:] == (now,) else (*question.true, now)
        self._open.set(_Open(question.asks, true, len(true), looked_at), cpu)

    @property
    def idle(self) -> bool:
        return not self._open.holding()

    def answer(self, cpu: int, answer: int) -> Wrong | None:
        """The reader has answered."""
        question = self._open.get(cpu)
        self._open.set(None, cpu)
        if question is None or not question.seen or answer in question.true[: question.seen]:
            return None
        return Wrong(question.asks, answer, question.true[: question.seen])

    def changed(self, pa: int, length: int) -> None:
        """A store to these bytes: what is true may have changed for those who have begun to look.

        A store beside what they have looked at changes nothing; one that hits it is ordered by that.
        """
        words = range(pa >> 3, (pa + length + 7) >> 3)
        for cpu in self._open.holding():
            question = self._open.peek(cpu)
            if question is None or question.looked_at.isdisjoint(words):
                continue
            now, looked_at = self._truth(question.asks)
            if now != question.true[-1]:
                true = (*question.true, now)
                self._open.set(_Open(question.asks, true, question.seen, looked_at), cpu)

    def _truth(self, asks: Asks) -> tuple[int | None, frozenset[int]]:
        """The right answer now, None when nothing is mapped there; and the words it was read off."""
        with self._sight.looking() as looked_at:
            right = self._right(asks)
        return right, frozenset(looked_at)

    def _right(self, asks: Asks) -> int | None:
        head = self._compound_head(asks.page)
        match asks.question:
            case PageQuestion.COMPOUND_HEAD:
                return head
            case PageQuestion.PAGE_TAIL:
                return None if head is None else int(head != asks.page)
            case PageQuestion.PAGE_HEAD:
                flags = self._sight.word(VirtAddr(asks.page + Offset.FLAGS))
                return None if flags is None else int(bool(flags & PageFlag.HEAD) and head == asks.page)
            case PageQuestion.PAGE_COUNT:
                count = None if head is None else self._sight.word(VirtAddr((head + Offset.REFCOUNT) & ~7))
                return None if count is None else count >> 32
            case _:
                assert_never(asks.question)

    def _compound_head(self, page: VirtAddr) -> VirtAddr | None:
        own, flags = self._sight.word(VirtAddr(page + Offset.COMPOUND_HEAD)), self._sight.word(page)
        if own is None or flags is None:
            return None
        if own & 1:
            return VirtAddr(own - 1)
        if not page & PAGE_MASK and flags & PageFlag.HEAD:
            following = self._sight.word(VirtAddr(nth_page(page, 1) + Offset.COMPOUND_HEAD))
            if following is not None and following & 1:
                return VirtAddr(following - 1)
        return page

    def _tell(self, number: int, cpu: int, site: Site, wrong: Wrong) -> None:
        true = ", ".join("nothing" if one is None else f"{one:#x}" for one in wrong.true)
        why = (f"true while it looked: {true}",)
        place = place_of(cpu, wrong.asks.page, site)
        rows = tlb_rows(self._sight, wrong.asks.page)
        self._told.finding(Finding(Verdict.WRONG_METADATA, (), place, number, str(wrong), why, tlbs=rows))
