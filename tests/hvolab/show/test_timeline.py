"""The timeline: the significant events of a run, in order, each in the column of its CPU."""

from __future__ import annotations

import io
import re
from functools import cache
from itertools import pairwise

import pytest
from rich.console import Console

from hvolab.catalog import scenario
from hvolab.show.report import show_timeline
from hvolab.show.timeline import Line, Row, Timeline, Tone, folded
from hvolab.subject.outcome import Run
from hvolab.subject.run import run
from hvolab.subject.script import ScriptPicker
from kernel_model.boot import System

FIRST_FRAME = 0x7F00
"""128 MiB, huge page at frame 0x4000: its vmemmap pages are 256 to 263 of the block at frame 0x7e00."""


@cache
def told(name: str, cpus: int) -> tuple[Run, tuple[Line, ...]]:
    setup = scenario(name).build(cpus)
    timelines: list[Timeline] = []

    def watch(system: System) -> Timeline:
        timelines.append(Timeline(system))
        return timelines[0]

    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (watch,))
    return done, tuple(timelines[0].lines)


def check(name: str, cpus: int, story: list[tuple[int, str]]) -> None:
    """The lines contain these, in this order: the CPU, and a pattern its text contains."""
    _, lines = told(name, cpus)
    at = 0
    assert story
    for cpu, pattern in story:
        found = next(
            (n for n in range(at, len(lines)) if lines[n].cpu == cpu and re.search(pattern, str(lines[n]))),
            None,
        )
        rest = "\n".join(f"cpu{line.cpu} {line}" for line in lines[at:])
        assert found is not None, f"no {pattern!r} on cpu{cpu} in\n{rest}"
        at = found + 1


STALE_READ = [
    (0, r"^\[optimize starts\]$"),
    (1, r"^\[read_twice starts\]$"),
    (0, r"^hugetlb_optimize_vmemmap_key 0 -> 1$"),
    (1, r"^takes an IPI$"),
    (0, r"^synchronize_rcu begins$"),
    (0, r"^the grace period is over$"),
    (0, r"^copy_page: head page -> pfn 0x"),
    (0, r"^splits a PMD: page table in pfn 0x"),
    (0, r"^flush_tlb_kernel_range begins, 512 pages$"),
    (0, r"^flushes its whole TLB$"),
    (1, r"^flushes its whole TLB$"),
    (0, r"^the flush is complete$"),
    (0, r"^set_pte_at\(head page\) = pfn 0x[0-9a-f]+ rw$"),
    (1, r"reads 0xffffea0000100001 at tail page 1 \+ 0x8, pfn 0x7f01 by a walk$"),
    (0, r"^set_pte_at\(tail page 1\) = pfn 0x[0-9a-f]+ ro$"),
    (1, r"reads 0xffffea0000100001 at tail page 1 \+ 0x8, pfn 0x7f01 by its TLB \(STALE\)$"),
    (1, r"^\[read_twice ends\]$"),
    (0, r"^set_pte_at\(tail page 2\) = pfn 0x[0-9a-f]+ ro \.\.\. tail page 7 \(6 times\)$"),
    (0, r"^flush_tlb_kernel_range begins, 8 pages$"),
    (0, r"^INVLPG x 8 from 0xffffea0000100000$"),
    (1, r"^INVLPG x 8 from 0xffffea0000100000$"),
    (0, r"^the flush is complete$"),
    (0, r"^frees pfn 0x7f07, tail page 7 until now \.\.\. pfn 0x7f00 \(8 times\)$"),
    (0, r"^hugetlb_vmemmap_optimize_folio returns$"),
    (0, r"^\[optimize ends\]$"),
]


def test_the_story_of_stale_read() -> None:
    check("stale-read", 2, STALE_READ)


def test_the_store_the_stale_use_and_the_flush_are_in_order_whoever_else_is_there() -> None:
    check(
        "stale-read",
        5,
        [(0, r"set_pte_at\(tail page 1\)"), (1, "STALE"), (0, "begins, 8 pages"), (4, "INVLPG")],
    )


def test_the_story_of_use_after_free() -> None:
    story = [
        (0, r"^set_pte_at\(tail page 1\) .* tail page 7 \(7 times\)$"),
        (0, r"^frees pfn 0x7f07, tail page 7 until now"),
        (1, r"reads 0xaaaaaaaaaaaaaaaa at tail page 1 \+ 0x8, pfn 0x7f01 by its TLB \(STALE\)"),
        (0, r"^flush_tlb_kernel_range begins, 8 pages$"),
        (0, r"^the flush is complete$"),
    ]
    check("use-after-free", 2, story)


def test_the_story_of_lost_update() -> None:
    story = [
        (0, r"^copy_page: head page -> "),
        (1, r"writes 0x1234 at head page \+ 0x20, pfn 0x7f00 by a walk$"),
        (0, r"^set_pte_at\(head page\)"),
    ]
    check("lost-update", 2, story)


def test_the_story_of_tail_write() -> None:
    story = [
        (0, r"^\[optimize ends\]$"),
        (1, r"^#PF error code 3 at 0xffffea0000101028$"),
        (1, r"does not permit it: Oops$"),
        (1, r"^\[write_tail is killed\]$"),
    ]
    check("tail-write", 2, story)


def test_the_story_of_spurious_write() -> None:
    story = [
        (1, r"reads 0x10 at tail page 1 \+ 0x28, pfn 0x[0-9a-f]+ by a walk$"),
        (0, r"^copy_page: head page -> pfn 0x7f06"),
        (0, r"^set_pte_at\(tail page 1\) = pfn 0x7f06 rw$"),
        (1, r"^drops its entries for 0xffffea0000101028 \(page fault\)$"),
        (1, r"^#PF error code 3 at 0xffffea0000101028$"),
        (1, r"spurious, retry$"),
        (1, r"writes 0x1234 at tail page 1 \+ 0x28, pfn 0x7f06 by a walk$"),
        (1, r"reads 0x1234 at tail page 1 \+ 0x28, pfn 0x7f06 by its TLB$"),
        (0, r"^hugetlb_optimize_vmemmap_key 1 -> 0$"),
        (0, r"^hugetlb_vmemmap_restore_folio returns 0$"),
    ]
    check("spurious-write", 2, story)


def test_the_story_of_a_flush_begun_before() -> None:
    story = [
        (2, r"^flush_tlb_all begins$"),
        (1, r"^flushes its whole TLB$"),
        (1, r"by a walk$"),
        (0, r"^set_pte_at\(tail page 1\)"),
        (2, r"^the flush is complete$"),
        (1, r"\(STALE\)$"),
    ]
    check("flush-begun-before", 3, story)


NAMES = ("stale-read", "flush-begun-before", "use-after-free", "missed-cpu", "lost-update", "tail-write")


@pytest.mark.parametrize("name", [*NAMES, "spurious-write"])
def test_lines_are_in_the_order_of_their_events(name: str) -> None:
    done, lines = told(name, 3)
    assert all(a.number < b.number for a, b in pairwise(lines))
    assert lines[-1].number < done.events
    assert {line.cpu for line in lines} <= set(range(3))


@pytest.mark.parametrize("name", [*NAMES, "spurious-write"])
def test_every_use_and_finding_about_a_guest_is_a_line(name: str) -> None:
    done, lines = told(name, 3)
    by_number = {line.number: line for line in lines}
    told_of = (*done.uses, *done.findings)
    assert told_of
    assert [by_number[one.event].cpu for one in told_of] == [one.where.cpu for one in told_of]


@pytest.mark.parametrize("name", NAMES)
def test_stale_is_said_of_the_stale_uses_and_of_nothing_else(name: str) -> None:
    done, lines = told(name, 3)
    stale = {use.event for use in done.uses if use.pfn != use.current_pfn}
    assert {line.number for line in lines if "STALE" in line.text} == stale


def test_only_lines_of_one_kind_and_cpu_are_merged() -> None:
    _, lines = told("stale-read", 2)
    merged = [line for line in lines if line.count > 1]
    assert [(line.kind != "", line.count) for line in merged] == [(True, 6), (True, 8)]
    single = [line for line in lines if line.count == 1]
    assert single
    assert [str(line) for line in single] == [line.text for line in single]


def test_a_merged_line_tells_the_first_the_last_and_how_many() -> None:
    line = Line(7, 0, "free", "frees pfn 0x7, tail page 7 until now", "pfn 0x1", 4)
    assert str(line) == "frees pfn 0x7, tail page 7 until now ... pfn 0x1 (4 times)"


def test_the_frames_of_the_folio_are_named_by_what_they_were() -> None:
    _, lines = told("stale-read", 2)
    freed = next(line for line in lines if line.kind == "free")
    assert freed.text == f"frees pfn {FIRST_FRAME + 7:#x}, tail page 7 until now"
    assert freed.last == f"pfn {FIRST_FRAME:#x}"


# --- who only looks on ----------------------------------------------------------------------------------


def test_cpus_on_which_nothing_runs_share_a_column_and_a_row() -> None:
    lines = [
        Line(1, 0, "", "stores", "stores"),
        *(Line(2 + cpu, cpu, "ipi", "takes an IPI", "") for cpu in (2, 3, 4)),
        Line(9, 5, "", "flushes", "flushes"),
        Line(10, 1, "", "loads", "loads", tone=Tone.ALARM),
        Line(11, 7, "", "flushes", "flushes"),
    ]
    assert folded(lines, {0, 1}) == [
        Row(1, 0, "stores"),
        Row(4, None, "cpu2 to cpu5: takes an IPI; flushes"),
        Row(10, 1, "loads", Tone.ALARM),
        Row(11, None, "cpu7: flushes"),
    ]


def test_an_alarm_of_who_looks_on_stays_one() -> None:
    (row,) = folded([Line(1, 3, "", "Oops", "Oops", tone=Tone.ALARM), Line(2, 5, "", "flushes", "")], {0})
    assert row == Row(1, None, "cpu3, cpu5: Oops; flushes", Tone.ALARM)


@pytest.mark.parametrize("width", [80, 160])
def test_eight_cpus_are_readable(width: int) -> None:
    setup = scenario("flush-reader").build(8)
    timelines: list[Timeline] = []

    def watch(system: System) -> Timeline:
        timelines.append(Timeline(system))
        return timelines[0]

    run(setup, lambda system: ScriptPicker(setup.script, system.machine), (watch,))
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    show_timeline(console, timelines[0].lines, timelines[0].actors)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines()[0].split() == ["event", "cpu0", "cpu1", "the", "others"]
    assert len(text.splitlines()) < 100
    assert max(map(len, text.splitlines())) <= width
