"""What is printed: readable at 80 columns, no escape codes without a terminal, nothing taken for markup."""

from __future__ import annotations

import io
import shlex
from functools import cache

import pytest
from large_runs import LARGE_RUNS
from rich.console import Console

from hvolab.catalog import SCENARIOS, scenario
from hvolab.judge.verdict import Finding, TlbRow, Use, Verdict, Where
from hvolab.show.pages_view import PageRow, PagesView, Phase, meaning
from hvolab.show.report import (
    Invocation,
    Order,
    show_end,
    show_finding,
    show_phases,
    show_question,
    show_timeline,
    show_use,
)
from hvolab.show.timeline import Line, Timeline
from hvolab.subject.costs import CostTable
from hvolab.subject.outcome import Completed, Deadlocked, OutOfSteps, Run
from hvolab.subject.run import run
from hvolab.subject.scenario import Setup, with_program
from hvolab.subject.script import ScriptPicker
from kernel_model.boot import System

NAMES = tuple(chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS)
FOLIO = 0xFFFF_EA00_0010_0000
MARKUP = "[bold red]it[/bold red] [/] [link=x]"
"""Text that would be swallowed, or raise, if it were taken for markup."""


def screen(width: int = 80, *, terminal: bool = False) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, legacy_windows=False
    )


def text_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def flat(console: Console) -> str:
    """The text without line breaks and frames, to look for sentences that were wrapped."""
    return " ".join(text_of(console).replace("│", " ").split())


@cache
def ran(name: str, cpus: int = 3) -> tuple[Setup, Run, tuple[Line, ...], tuple[Phase, ...]]:
    setup = scenario(name).build(cpus)
    timelines: list[Timeline] = []
    views: list[PagesView] = []

    def watch(system: System) -> Timeline:
        timelines.append(Timeline(system))
        return timelines[0]

    def view(system: System) -> PagesView:
        views.append(PagesView(system, setup.watched, setup.tour))
        return views[0]

    listeners = (view,) if name == "remap" else (watch,)
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), listeners)
    return (
        setup,
        done,
        tuple(timelines[0].lines if timelines else ()),
        tuple(views[0].phases if views else ()),
    )


def show(name: str, console: Console) -> None:
    """Everything that `hvolab run` shows."""
    _, done, lines, phases = ran(name)
    chosen = scenario(name)
    show_question(console, chosen, 3)
    show_timeline(console, list(lines), {0, 1, 2})
    show_phases(console, list(phases))
    for use in done.uses:
        show_use(console, use)
    for finding in done.findings:
        show_finding(console, finding, Invocation(chosen, 3).replay(done.schedule))
    show_end(console, Invocation(chosen, 3), done, Order.OWN)


# --- on any screen --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_a_terminal_there_are_no_escape_codes(name: str) -> None:
    console = screen()
    show(name, console)
    text = text_of(console)
    assert "\x1b" not in text
    assert all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_wider_than_the_screen_but_the_replay(name: str, width: int) -> None:
    console = screen(width)
    show(name, console)
    lines = text_of(console).splitlines()
    assert lines
    assert [line for line in lines if len(line) > width and not line.startswith("replay ")] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_question_what_came_and_what_it_means_are_all_there(name: str) -> None:
    console = screen()
    show(name, console)
    text = flat(console)
    chosen = scenario(name)
    assert f"asked {chosen.question}" in text
    assert f"as expected {chosen.expected}" in text
    assert f"means {chosen.means}" in text


def test_a_terminal_gets_colours() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", _environ={})
    show("tail-write", console)
    assert "\x1b[" in text_of(console)


# --- questions and ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("cpus", "words"), [(1, "remap, 1 CPU "), (2, "remap, 2 CPUs ")])
def test_the_number_of_cpus_is_said(cpus: int, words: str) -> None:
    console = screen()
    show_question(console, scenario("remap"), cpus)
    assert words in text_of(console)


def with_outcome(done: Run, outcome: Completed | Deadlocked | OutOfSteps) -> Run:
    return Run(done.schedule, outcome, done.uses, done.findings, done.events, done.system, done.sight)


def test_an_end_that_was_not_expected_says_what_was_found() -> None:
    console = screen()
    show_end(console, Invocation(scenario("stale-read"), 2), ran("tail-write")[1], Order.OTHER)
    text = flat(console)
    assert "found violation: write-protect" in text
    assert "in its own order " in text
    assert "as expected" not in text


def test_an_end_without_the_violation_expected_says_so() -> None:
    console = screen()
    show_end(console, Invocation(scenario("tail-write"), 2), ran("stale-read")[1], Order.OTHER)
    assert "found no violation" in flat(console)


def test_a_deadlock_is_said_with_what_is_waited_for() -> None:
    console = screen()
    outcome = Deadlocked(((0, "[lock] = 0"), (2, "a word it spins on")))
    show_end(
        console, Invocation(scenario("stale-read"), 2), with_outcome(ran("stale-read")[1], outcome), Order.OWN
    )
    assert "deadlock: cpu0 waits for [lock] = 0; cpu2 waits for a word it spins on" in flat(console)


def test_a_run_that_was_cut_off_says_after_how_many_steps() -> None:
    console = screen()
    show_end(
        console,
        Invocation(scenario("stale-read"), 2),
        with_outcome(ran("stale-read")[1], OutOfSteps(1234)),
        Order.OWN,
    )
    assert "cut off after 1234 steps" in flat(console)


def test_cycles_are_told_in_whose_they_are() -> None:
    console = screen()
    table = CostTable("a machine of mine", grace_period=10_000_000, invlpg=1)
    done = ran("stale-read")[1]
    show_end(console, Invocation(scenario("stale-read"), 2, (), (table,)), done, Order.OWN)
    cycles = 10_000_000 * done.costs.grace_periods + done.costs.invlpgs
    assert cycles > 10_000_000
    assert f"cost {cycles} cycles on a machine of mine" in flat(console)


# --- timelines ------------------------------------------------------------------------------------------


def test_a_timeline_has_a_column_for_each_cpu_that_acts() -> None:
    console = screen(100)
    show_timeline(console, [Line(5, 0, "", "one", "one"), Line(9, 2, "", "two", "two")], {0, 2})
    header, first, second = (line.rstrip() for line in text_of(console).splitlines())
    assert header.split() == ["event", "cpu0", "cpu2"]
    assert first.split() == ["5", "one"]
    assert second.split() == ["9", "two"]
    assert second.index("two") == header.index("cpu2")


def test_a_timeline_is_in_the_order_of_events_at_80_columns() -> None:
    console = screen()
    _, _, lines, _ = ran("stale-read")
    show_timeline(console, list(lines), {0, 1, 2})
    numbers = [int(line[:5]) for line in text_of(console).splitlines()[1:] if line[:5].strip()]
    assert numbers == [line.number for line in lines]


def test_names_in_a_timeline_are_not_taken_for_markup() -> None:
    console = screen(120)
    show_timeline(console, [Line(0, 0, "", MARKUP, MARKUP)], {0})
    assert MARKUP in text_of(console)


# --- pages ----------------------------------------------------------------------------------------------


def test_phases_show_what_each_cpu_reads() -> None:
    console = screen()
    _, _, _, phases = ran("remap")
    show_phases(console, list(phases))
    lines = [line.split() for line in text_of(console).splitlines()]
    titles = [line[0] for line in lines if line and line[0].endswith(":")]
    assert titles == ["before:", "optimized:", "restored:"]
    rows = [line for line in lines if line and line[0] in "01234567"]
    assert [row[0] for row in rows] == list("01234567") * 3
    heads = [" ".join(row).count("a head") for row in rows]
    assert heads == [3, *[0] * 7, *[3] * 8, 3, *[0] * 7]


def test_phases_show_the_counters() -> None:
    console = screen(100)
    show_phases(
        console,
        [Phase("mine", FOLIO, (PageRow(0, 0x7F00, "4K", "P A", ((0, (0x40, 0)),)),), 17, (("nr", 3),))],
    )  # type: ignore[arg-type]
    text = text_of(console)
    assert text.startswith("mine: 17 frames free, nr 3")
    assert "0 (head)" in text
    assert "0x7f00" in text
    assert "cpu0 sees there" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((0x40, 0), "a head"),
        ((0x40, FOLIO + 8), "a head"),
        ((0, FOLIO + 1), "a tail"),
        # The lowest bit of compound_head decides, whatever the flags say.
        ((0x40, FOLIO + 1), "a tail"),
        ((0, FOLIO + 0x41), f"a tail of {FOLIO + 0x40:#x}"),
        ((0, 1), "a tail of 0x0"),
        ((0, 0), "neither"),
        ((0x3F, FOLIO), "neither"),
        ((0xAAAA_AAAA_AAAA_AAAA, 0xAAAA_AAAA_AAAA_AAAA), "neither"),
    ],
)
def test_what_a_reader_takes_a_struct_page_for(words: tuple[int, int], expected: str) -> None:
    assert meaning(words, FOLIO) == expected  # type: ignore[arg-type]


# --- uses and findings ----------------------------------------------------------------------------------


def use(**changes: object) -> Use:
    fields = {
        "verdict": Verdict.LEGAL,
        "also": (),
        "where": Where(1, FOLIO, "mine.S", "mov rax, qword ptr [rdi]", 0x1000),
        "event": 5,
        "access": "read",
        "pfn": 0x7F01,
        "current_pfn": 0x4200,
        "why": ("because",),
        "times": 1,
    }
    return Use(**{**fields, **changes})  # type: ignore[arg-type]


def finding(**changes: object) -> Finding:
    fields = {
        "verdict": Verdict.KERNEL,
        "also": (),
        "where": Where(1, FOLIO, "mine.S", "mov rax, qword ptr [rdi]", 0x1000),
        "event": 5,
        "cause": "the cause",
        "why": ("first", "second"),
    }
    return Finding(**{**fields, **changes})  # type: ignore[arg-type]


def shown(told: Use | Finding, replay: str = "hvolab run x") -> str:
    console = screen(160)
    if isinstance(told, Use):
        show_use(console, told)
    else:
        show_finding(console, told, replay)
    return text_of(console)


def test_a_use_is_shown_with_its_verdict_and_reasons() -> None:
    lines = shown(use(why=("one", "two"))).splitlines()
    code = "mine.S: mov rax, qword ptr [rdi]"
    assert lines[0].split(maxsplit=1) == ["saw", f"a stale read by cpu1 at {FOLIO:#x} ({code}): legal"]
    assert [line.strip() for line in lines[1:]] == ["one", "two"]


def test_a_use_seen_more_than_once_says_how_often() -> None:
    assert ", 7 times: equivalent" in shown(use(verdict=Verdict.EQUIVALENT, times=7))
    assert "times" not in shown(use())


def test_a_use_in_kernel_code_has_no_instruction() -> None:
    assert "(copy_page): legal" in shown(use(where=Where(0, FOLIO, "copy_page", None, None)))


@pytest.mark.parametrize("name", [MARKUP, "[/]", "a\\", "[red]x[-red].S"])
def test_names_in_a_use_are_not_taken_for_markup(name: str) -> None:
    text = shown(use(where=Where(1, FOLIO, name, "nop", 0x1000), why=(f"why {name}",)))
    assert f"({name}: nop)" in text
    assert f"why {name}" in text


@pytest.mark.parametrize("name", [MARKUP, "[/]", "a\\", "[red]x[-red].S"])
def test_names_in_a_finding_are_not_taken_for_markup(name: str) -> None:
    made = finding(
        where=Where(1, FOLIO, name, f"nop {name}", 0x1000),
        cause=f"cause {name}",
        why=(f"why {name}",),
        lines=(f"line {name}",),
        tlbs=(TlbRow(None, FOLIO, f"row {name}", stale=False),),
    )
    text = shown(made, f"hvolab run '{name}'")
    assert f"cpu1, {name}, 0x1000:  nop {name}" in text
    for word in ("cause", "why", "line", "row"):
        assert f"{word} {name}" in text
    assert f"replay hvolab run '{name}'\n" in text


def test_a_finding_shows_the_translations_of_its_page() -> None:
    rows = (
        TlbRow(None, FOLIO, "pfn 0x4200 ro nx", stale=False),
        TlbRow(0, FOLIO, "pfn 0x4200 ro nx", stale=False),
        TlbRow(2, FOLIO, "pfn 0x7f01 rw nx", stale=True),
    )
    text = shown(finding(tlbs=rows))
    assert f"page {FOLIO:#x}" in text
    lines = [line.strip("│ ") for line in text.splitlines()]
    assert [" ".join(line.split()) for line in lines if "pfn" in line] == [
        "page table pfn 0x4200 ro nx",
        "TLB of cpu0 pfn 0x4200 ro nx",
        "TLB of cpu2 pfn 0x7f01 rw nx <- STALE",
    ]


def test_the_reasons_of_a_finding_are_numbered() -> None:
    lines = [line.strip("│ ") for line in shown(finding()).splitlines()]
    assert lines[lines.index("why") :][:3] == ["why", "1. first", "2. second"]


def test_what_else_holds_is_said() -> None:
    text = shown(finding(verdict=Verdict.MISSED_FLUSH, also=(Verdict.USE_AFTER_FREE, Verdict.LOST_UPDATE)))
    assert "violation: missed-flush" in text.splitlines()[0]
    assert "also: violation: use-after-free, violation: lost-update" in text
    assert "also" not in shown(finding())


def test_a_finding_without_a_place_is_shown_all_the_same() -> None:
    lines = [
        line.strip("│ ") for line in shown(finding(where=Where(0, 0, "", None, None), why=())).splitlines()
    ]
    assert lines[1] == "the cause"
    assert lines[2].startswith("╰")


@pytest.mark.parametrize("width", [20, 80, 200])
def test_the_replay_line_stays_one_line(width: int) -> None:
    replay = "hvolab run x --schedule 'v1 " + " ".join(["0*12 i1"] * 60) + "'"
    console = screen(width)
    show_finding(console, finding(), replay)
    assert text_of(console).splitlines()[-1] == f"replay {replay}"


def test_an_invocation_replays_with_its_options() -> None:
    _, done, _, _ = ran("stale-read")
    words = ("--program", "it's [a] $mine.S", "--until", "before")
    line = Invocation(scenario("stale-read"), 3, words).replay(done.schedule)
    assert shlex.split(line) == [
        "hvolab",
        "run",
        "stale-read",
        "--cpus",
        "3",
        *words,
        "--schedule",
        str(done.schedule),
    ]


def test_a_program_with_a_name_like_markup_can_be_run_and_shown() -> None:
    name = "[bold]x[-bold].S"
    setup = with_program(scenario("missed-cpu").build(2), name, "mov rax, [rdi]\nnop\nmov rbx, [rdi]\nhlt")
    timelines: list[Timeline] = []

    def watch(system: System) -> Timeline:
        timelines.append(Timeline(system))
        return timelines[0]

    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (watch,))
    console = screen(200)
    show_timeline(console, timelines[0].lines, timelines[0].actors)
    show_finding(console, done.findings[0], "hvolab run x")
    text = text_of(console)
    assert f"[{name} starts]" in text
    assert f"cpu1, {name}, 0x" in text
