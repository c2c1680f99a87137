"""Answers about struct pages: wrong only when they were true at no instant while the reader looked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mutants import MUTANTS

from emu.addr import VirtAddr
from emu.paging.models import LAZY, LAZY_SINGLE, CpuModel
from emu.paging.walk import Walk
from hvolab.catalog import scenario
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
from hvolab.judge.question import Asks, PageQuestion
from hvolab.judge.rows.answers import Answers
from hvolab.judge.sight.sight import Sight
from hvolab.judge.told import Told
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import Loads, SetsPte
from hvolab.subject.run import run
from hvolab.subject.scenario import vmemmap_page
from hvolab.subject.script import ScriptPicker, ToEnd, Until
from kernel_model.boot import BootConfig, System, boot
from kernel_model.mm.page import Offset, PageFlag, field

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
HEAD = HUGE_PAGE.folio
TAIL = vmemmap_page(HUGE_PAGE, 1)  # its first struct page


def answers() -> tuple[System, Answers]:
    system = boot(BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE,)))
    return system, Answers(Sight(system.machine), Told(), {})


def poke(system: System, asked: Answers, va: VirtAddr, value: int) -> None:
    found = system.machine.cpus[0].mmu.peek(va)
    assert isinstance(found, Walk)
    system.machine.memory.write_word(found.pa, value)
    asked.changed(found.pa, 8)


@pytest.mark.parametrize(
    ("question", "page", "right"),
    [
        (PageQuestion.COMPOUND_HEAD, HEAD, HEAD),
        (PageQuestion.COMPOUND_HEAD, TAIL, HEAD),
        (PageQuestion.PAGE_HEAD, HEAD, 1),
        (PageQuestion.PAGE_HEAD, TAIL, 0),
        (PageQuestion.PAGE_TAIL, HEAD, 0),
        (PageQuestion.PAGE_TAIL, TAIL, 1),
        (PageQuestion.PAGE_COUNT, TAIL, 0),
    ],
)
def test_what_is_true_of_a_folio_in_the_pool(question: PageQuestion, page: VirtAddr, right: int) -> None:
    _, asked = answers()
    asked.ask(0, Asks(question, page, "rax"))
    asked.accessed(0)
    assert asked.answer(0, right) is None
    asked.ask(0, Asks(question, page, "rax"))
    asked.accessed(0)
    assert asked.answer(0, right + 2) is not None


def test_an_answer_that_was_true_for_a_moment_between_two_accesses_is_right() -> None:
    system, asked = answers()
    asked.ask(0, Asks(PageQuestion.COMPOUND_HEAD, TAIL, "rax"))
    asked.accessed(0)
    poke(system, asked, field(TAIL, Offset.COMPOUND_HEAD), 0x1001)
    poke(system, asked, field(TAIL, Offset.COMPOUND_HEAD), HEAD + 1)
    asked.accessed(0)
    assert asked.answer(0, 0x1000) is None


def test_an_answer_that_became_true_after_the_last_access_is_wrong() -> None:
    system, asked = answers()
    asked.ask(0, Asks(PageQuestion.COMPOUND_HEAD, TAIL, "rax"))
    asked.accessed(0)
    poke(system, asked, field(TAIL, Offset.COMPOUND_HEAD), 0x1001)
    wrong = asked.answer(0, 0x1000)
    assert wrong is not None
    assert wrong.true == (HEAD,)
    assert str(wrong) == (
        f"compound_head({TAIL:#x}) was answered 0x1000, which was true at no instant while the reader looked"
    )


def test_a_fake_head_is_a_tail() -> None:
    """PG_head in an aligned struct page, and behind it one that says tail: its head is the right answer."""
    system, asked = answers()
    poke(system, asked, TAIL, PageFlag.HEAD)
    poke(system, asked, field(TAIL, Offset.COMPOUND_HEAD), 0)
    asked.ask(0, Asks(PageQuestion.COMPOUND_HEAD, TAIL, "rax"))
    asked.accessed(0)
    assert asked.answer(0, TAIL) is not None


def test_a_reader_that_never_looked_is_not_judged() -> None:
    _, asked = answers()
    asked.ask(0, Asks(PageQuestion.COMPOUND_HEAD, TAIL, "rax"))
    assert asked.answer(0, 7) is None
    assert asked.idle


def test_two_loads_that_straddle_the_remap_give_an_answer_that_was_true() -> None:
    """The first load is of the tail, everything else of the time when it is a fake head."""
    setup = scenario("optimize-compound-head").build(2)
    word = field(TAIL, Offset.COMPOUND_HEAD)
    setup = replace(setup, script=(Until(0, SetsPte(TAIL)), Until(1, Loads(word)), ToEnd(0), ToEnd(1)))
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine))
    assert done.findings == ()


def test_an_answer_from_before_the_key_was_raised_is_wrong_when_the_remap_came_first() -> None:
    (mutant,) = [one for one in MUTANTS if one.name == "key after the remap"]
    done = explore(mutant.setup(), Reduced(), ALL, Budget())
    wrong = [one.finding for one in done.found if one.finding.verdict is Verdict.WRONG_METADATA]
    asked = f"compound_head({TAIL:#x}) was answered {TAIL:#x}"
    assert [finding.cause for finding in wrong] == [
        f"{asked}, which was true at no instant while the reader looked"
    ]
    assert wrong[0].why == (f"true while it looked: {HEAD:#x}",)


@pytest.mark.parametrize(("model", "wrong"), [(LAZY_SINGLE, 0), (LAZY, 1)], ids=["single", "set"])
def test_upstream_answers_right_where_a_cpu_cannot_go_back_to_an_old_translation(
    model: CpuModel, wrong: int
) -> None:
    setup = scenario("optimize-compound-head").build(2)
    done = explore(replace(setup, boot=replace(setup.boot, model=model)), Reduced(), ALL, Budget())
    assert done.coverage.complete
    assert len(done.found) == wrong
