"""What judges have said: each kind once, the first kept."""

from __future__ import annotations

from dataclasses import replace

from hvolab.judge.told import Told
from hvolab.judge.verdict import Finding, Use, Verdict, Where

HERE = Where(1, 0xFFFF_EA00_0000_1008, "reader", "mov rax, [rdi]", 0x1000)
USE = Use(Verdict.LEGAL, (), HERE, 20, "read", 5, 6, ("why",))
FINDING = Finding(Verdict.KERNEL, (), HERE, 20, "I1: some words", ())


def elsewhere(va: int, cpu: int = 1) -> Where:
    return replace(HERE, va=va, cpu=cpu)


def test_like_uses_are_counted_and_the_first_is_kept() -> None:
    told = Told()
    assert told.use(USE)
    assert not told.use(replace(USE, event=30, why=("later",)))
    assert told.uses == (replace(USE, times=2),)


def test_uses_that_differ_in_what_is_told_are_two() -> None:
    told = Told()
    others = [
        replace(USE, verdict=Verdict.EQUIVALENT),
        replace(USE, also=(Verdict.USE_AFTER_FREE,)),
        replace(USE, where=elsewhere(8)),
        replace(USE, access="write"),
        replace(USE, pfn=7),
        replace(USE, current_pfn=None),
    ]
    assert [told.use(one) for one in (USE, *others)] == [True] * 7
    assert told.uses == (USE, *others)


def test_a_finding_is_told_as_often_as_it_is_made() -> None:
    told = Told()
    told.finding(FINDING)
    told.finding(FINDING)
    assert told.findings == [FINDING] * 2


def test_a_broken_invariant_is_told_once_for_a_cause_a_cpu_and_an_address() -> None:
    told = Told()
    others = [
        replace(FINDING, cause="I2: others"),
        replace(FINDING, where=elsewhere(HERE.va, 0)),
        replace(FINDING, where=elsewhere(8)),
    ]
    for one in (FINDING, *others, FINDING, *others):
        told.once(replace(one, event=len(told.findings)))
    assert [(one.cause, one.where) for one in told.findings] == [
        (one.cause, one.where) for one in (FINDING, *others)
    ]


def test_a_warning_is_told_once_a_run_whoever_comes_there_first() -> None:
    told = Told()
    told.warning(FINDING)
    told.warning(replace(FINDING, where=elsewhere(8, 0)))
    told.warning(replace(FINDING, cause="another"))
    assert [one.cause for one in told.findings] == [FINDING.cause, "another"]


def test_of_a_page_of_which_something_was_told_nothing_more_is_said_at_the_end() -> None:
    told = Told()
    told.finding(FINDING)
    same_page, other_page, other_cpu = (
        elsewhere(HERE.va ^ 8),
        elsewhere(HERE.va + 4096),
        elsewhere(HERE.va, 0),
    )
    told.unless_known([replace(FINDING, cause="I2", where=one) for one in (same_page, other_page, other_cpu)])
    assert [one.where for one in told.findings] == [HERE, other_page, other_cpu]


def test_what_is_found_together_does_not_hide_one_another() -> None:
    """Two invariants broken on one page at the end are both told; the same of it twice is not."""
    told = Told()
    second = replace(FINDING, cause="I2")
    told.unless_known([FINDING, second, FINDING])
    assert told.findings == [FINDING, second]
