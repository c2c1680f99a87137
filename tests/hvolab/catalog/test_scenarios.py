"""Every scenario of the catalogue: its verdicts, its schedule, and what it claims to show.

Addresses and frame numbers are computed here from the layout: vmemmap at its base, 64 bytes a struct page,
backed at time zero by the last 2 MiB of memory for each 128 MiB of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, TypeVar

import pytest

from emu.addr import PhysAddr
from emu.events import Annotated, Faulted, Finished, GuestSite, IpiSent, Loaded, MachineEvent, Stored
from emu.machine import Machine
from firmware.catalog import program
from hvolab.catalog import SCENARIOS, scenario
from hvolab.catalog.pool import POOL
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.show.pages_view import PagesView, Phase, meaning
from hvolab.subject.names import UnknownName
from hvolab.subject.picker import Replay
from hvolab.subject.run import Completed, Run, collect, run
from hvolab.subject.scenario import Group, Scenario
from hvolab.subject.schedule import parse
from hvolab.subject.script import ScriptPicker
from kernel_model.boot import System
from kernel_model.core.events import FlushBegun, FlushCompleted, PageFreed, SpuriousFault
from kernel_model.core.smp import FlushEverything, FlushPages

VMEMMAP = 0xFFFF_EA00_0000_0000
DIRECT_MAP = 0xFFFF_8880_0000_0000
PAGE = 4096
MIB = 1 << 20
HUGE_PFN = 0x4000
"""First frame of the 2 MiB huge page of every scenario but remap-1g."""
HEAD = VMEMMAP + 64 * HUGE_PFN
TAIL_1 = HEAD + PAGE
FIRST_FRAME = ((128 - 2) * MIB >> 12) + (HEAD - VMEMMAP) // PAGE
"""The frame behind the head's vmemmap page at time zero, with 128 MiB of memory; the tails' follow it."""
QUICK = tuple(candidate for candidate in SCENARIOS if candidate.name not in ("remap-1g", "rollback"))
RW, RO, LARGE = "P W A D G NX", "P A G NX", "P W A D G NX PSE"
_P = TypeVar("_P")


@dataclass
class Seen:
    """A run with everything it was heard to do."""

    run: Run
    events: list[tuple[int, MachineEvent]] = field(default_factory=list)

    @property
    def machine(self) -> Machine:
        return self.run.system.machine

    def finding(self) -> Finding:
        """The one there is."""
        assert len(self.run.findings) == 1
        return self.run.findings[0]

    def use(self) -> Use:
        assert len(self.run.uses) == 1
        return self.run.uses[0]

    def payloads(self, kind: type[_P]) -> list[tuple[int, _P]]:
        return [
            (n, e.payload) for n, e in self.events if isinstance(e, Annotated) and isinstance(e.payload, kind)
        ]

    def number_of(self, wanted: Callable[[MachineEvent], bool]) -> int:
        """The number of the first such event."""
        return next(number for number, event in self.events if wanted(event))

    def word(self, va: int) -> int:
        """The word behind an address now, by this file's own walk."""
        return self.machine.memory.read_word(PhysAddr(leaf(self.machine, va).pa))


def own_run(chosen: Scenario, cpus: int) -> Seen:
    """In the order of the scenario's script."""
    setup = chosen.build(cpus)
    events: list[tuple[int, MachineEvent]] = []
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (collect(events),))
    return Seen(done, events)


@cache
def seen(name: str, cpus: int) -> Seen:
    return own_run(scenario(name), cpus)


def counts(chosen: Scenario) -> list[int]:
    return sorted({cpus for cpus in (chosen.cpus_min, 2, 3, 5) if cpus >= chosen.cpus_min})


CASES = [(chosen.name, cpus) for chosen in QUICK for cpus in counts(chosen)]


# --- page tables, walked here ---------------------------------------------------------------------------


class Mapped(NamedTuple):
    level: int
    pa: int
    flags: str


_FLAGS = ((0, "P"), (1, "W"), (2, "U"), (5, "A"), (6, "D"), (8, "G"), (63, "NX"), (7, "PSE"))


def leaf(machine: Machine, va: int) -> Mapped:
    """What maps an address: read from physical memory, from CR3 down."""
    table = machine.cpus[0].mmu.root << 12
    for level, shift in ((4, 39), (3, 30), (2, 21), (1, 12)):
        entry = machine.memory.read_word(PhysAddr(table + 8 * (va >> shift & 511)))
        assert entry & 1, f"{va:#x} is not mapped at level {level}"
        table = entry & 0x000F_FFFF_FFFF_F000
        if level == 1 or (level < 4 and entry & 0x80):
            text = " ".join(word for bit, word in _FLAGS if entry >> bit & 1)
            return Mapped(level, table + (va & ((1 << shift) - 1)), text)
    raise AssertionError("a walk ends at level 1")


# --- the catalogue --------------------------------------------------------------------------------------


def test_names_are_unique_and_found() -> None:
    assert len({chosen.name for chosen in SCENARIOS}) == len(SCENARIOS)
    for chosen in SCENARIOS:
        assert scenario(chosen.name) is chosen


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(UnknownName) as caught:
        scenario("nowhere")
    names = ", ".join(chosen.name for chosen in SCENARIOS)
    assert str(caught.value) == f"there is no scenario 'nowhere'; there are: {names}"


def test_a_name_with_a_slip_names_those_like_it() -> None:
    with pytest.raises(UnknownName) as caught:
        scenario("lost-updte")
    assert str(caught.value) == "there is no scenario 'lost-updte'; did you mean lost-update?"


@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_a_scenario_says_what_it_asks_expects_and_means(chosen: Scenario) -> None:
    assert chosen.question.endswith("?")
    assert chosen.expected
    assert chosen.means.endswith(".")
    assert all(verdict.is_violation for verdict in chosen.verdicts)


@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_cpus_min_is_the_fewest_the_actors_fit_on(chosen: Scenario) -> None:
    assert max(actor.cpu for actor in chosen.build(chosen.cpus_min).actors) == chosen.cpus_min - 1


# --- every scenario -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_the_violations_are_exactly_those_expected(name: str, cpus: int) -> None:
    done = seen(name, cpus).run
    assert isinstance(done.outcome, Completed)
    assert {f.verdict for f in done.findings if f.verdict.is_violation} == scenario(name).verdicts
    assert done.wrong is bool(scenario(name).verdicts)
    assert not done.model_error


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_every_violation_among_the_uses_is_a_finding_and_nothing_is_found_twice(name: str, cpus: int) -> None:
    done = seen(name, cpus).run
    of_uses = [f for f in done.findings if f.verdict in (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE)]
    wrong = [use for use in done.uses if use.verdict.is_violation]
    assert [(f.verdict, f.where, f.event) for f in of_uses] == [(u.verdict, u.where, u.event) for u in wrong]
    assert len({(f.verdict, f.where) for f in done.findings}) == len(done.findings)


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_its_schedule_replays_to_the_same_run(name: str, cpus: int) -> None:
    first = seen(name, cpus).run
    again = run(scenario(name).build(cpus), lambda _system: Replay(parse(str(first.schedule))))
    assert again.uses == first.uses
    assert again.findings == first.findings
    assert again.events == first.events
    assert again.outcome == first.outcome
    assert again.schedule == first.schedule


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_the_events_are_numbered_without_gaps(name: str, cpus: int) -> None:
    done = seen(name, cpus)
    assert [number for number, _ in done.events] == list(range(done.run.events))


@pytest.mark.parametrize(("name", "cpus"), CASES)
def test_findings_and_uses_point_at_events_of_their_cpu(name: str, cpus: int) -> None:
    done = seen(name, cpus)
    for told in (*done.run.findings, *done.run.uses):
        event = done.events[told.event][1]
        assert event.cpu == told.where.cpu
        if told.where.rip is not None:
            assert isinstance(event, Loaded | Stored | Faulted)
            assert isinstance(event.site, GuestSite)
            assert event.site.rip == told.where.rip


# --- tail-write -----------------------------------------------------------------------------------------

CR2 = VMEMMAP + 64 * HUGE_PFN + PAGE + 40
"""`private`, at offset 40 of the first struct page in the second vmemmap page."""


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_tail_write_is_refused_with_error_code_3(cpus: int) -> None:
    finding = seen("tail-write", cpus).finding()
    assert finding.verdict is Verdict.WRITE_PROTECT
    assert finding.verdict.value == "violation: write-protect"
    assert finding.also == ()
    assert finding.error_code == 3
    assert finding.cr2 == CR2 == 0xFFFF_EA00_0010_1028
    assert finding.where.va == CR2
    assert finding.where.cpu == 1
    assert finding.where.code == "write_tail"
    assert finding.where.instruction == "mov qword ptr [rdi], rsi"
    assert finding.where.rip == program("write_tail").address_of("write")


def test_tail_write_is_told_in_linuxs_own_lines() -> None:
    lines = seen("tail-write", 2).finding().lines
    assert lines[:3] == (
        "BUG: unable to handle page fault for address: ffffea0000101028",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0003) - permissions violation",
    )
    assert lines[3].startswith("PGD ")
    assert [word for word in lines[3].split() if word.isupper()] == ["PGD", "P4D", "PUD", "PMD", "PTE"]
    assert lines[4].startswith("Oops: ")
    assert "0003 [#1]" in lines[4]
    assert lines[-1] == "CR2: ffffea0000101028"


def test_tail_write_names_the_store_that_made_the_page_read_only() -> None:
    done = seen("tail-write", 2)
    pte = done.number_of(lambda event: isinstance(event, Stored) and is_pte_store(event, 1))
    assert any(f"event {pte}" in reason and "set_pte_at" in reason for reason in done.finding().why)


def test_tail_write_kills_the_writer_and_changes_nothing() -> None:
    done = seen("tail-write", 2)
    killed = [event.name for _, event in done.events if isinstance(event, Finished) and event.killed]
    assert killed == ["write_tail"]
    # The head's `private`, which all pages show now: HPG_vmemmap_optimized, and nothing of the value.
    assert done.word(CR2) == 0x10
    assert done.word(HEAD + 40) == 0x10


def test_tail_write_shows_the_page_read_only_and_no_stale_entry() -> None:
    rows = seen("tail-write", 2).finding().tlbs
    assert [row.cpu for row in rows] == [None]
    assert rows[0].page == TAIL_1
    assert " ro " in rows[0].text


# --- stale-read and flush-begun-before ------------------------------------------------------------------

TAIL_WORD = TAIL_1 + 8
"""`compound_head` of the first struct page in the second vmemmap page."""


@pytest.mark.parametrize(
    ("name", "cpus"), [(n, c) for n, c in CASES if n in ("stale-read", "flush-begun-before")]
)
def test_a_stale_read_before_the_flush_is_legal(name: str, cpus: int) -> None:
    done = seen(name, cpus)
    legal = [use for use in done.run.uses if use.verdict is Verdict.LEGAL and use.where.cpu == 1]
    assert len(legal) >= 1
    use = legal[0]
    assert use.access == "read"
    assert use.where.va == TAIL_WORD
    assert use.where.instruction == "mov rbx, qword ptr [rdi]"
    assert use.where.rip == program("read_twice").address_of("second")
    assert use.pfn == FIRST_FRAME + 1
    assert use.current_pfn == leaf(done.machine, TAIL_1).pa >> 12
    assert not done.run.findings


@pytest.mark.parametrize("name", ["stale-read", "flush-begun-before"])
def test_both_loads_give_the_old_value(name: str) -> None:
    """One is a walk before the store, the other a hit after it: both read compound_head of a tail."""
    loaded = guest_values(seen(name, 3), 1, TAIL_WORD)
    assert loaded == [HEAD + 1, HEAD + 1]


def test_stale_read_happens_between_the_store_and_the_flush() -> None:
    done = seen("stale-read", 2)
    store = done.number_of(lambda event: isinstance(event, Stored) and is_pte_store(event, 1))
    flushes = [number for number, _ in done.payloads(FlushBegun)]
    use = done.use()
    assert flushes[0] < store < use.event < flushes[1]
    assert any(f"event {store}" in reason for reason in use.why)


def test_flush_begun_before_spans_the_store_and_is_over_before_the_use() -> None:
    done = seen("flush-begun-before", 3)
    store = done.number_of(lambda event: isinstance(event, Stored) and is_pte_store(event, 1))
    all_flush = next(n for n, p in done.payloads(FlushBegun) if p.function == "flush_tlb_all")
    over = next(n for n, p in done.payloads(FlushCompleted) if p.begun == all_flush)
    use = done.use()
    assert all_flush < store < over < use.event
    assert any(reason.startswith("not covered by flush_tlb_all by cpu2") for reason in use.why)


# --- use-after-free -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_use_after_free_reads_the_poison_of_the_freed_frame(cpus: int) -> None:
    done = seen("use-after-free", cpus)
    finding = done.finding()
    assert finding.verdict is Verdict.USE_AFTER_FREE
    assert finding.also == ()
    assert finding.where.cpu == 1
    assert finding.where.rip == program("read_twice").address_of("second")
    assert finding.pfn == FIRST_FRAME + 1
    assert guest_values(done, 1, TAIL_WORD) == [HEAD + 1, 0xAAAA_AAAA_AAAA_AAAA]
    freed = next(n for n, p in done.payloads(PageFreed) if p.pfn == finding.pfn)
    assert finding.why[-1] == f"pfn {finding.pfn:#x} was freed at event {freed}, before this use"
    assert freed < finding.event


def test_use_after_free_is_no_missed_flush_because_the_flush_is_still_to_come() -> None:
    done = seen("use-after-free", 2)
    assert max(number for number, _ in done.payloads(FlushBegun)) > done.finding().event


# --- missed-cpu -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_missed_cpu_is_the_last_one(cpus: int) -> None:
    done = seen("missed-cpu", cpus)
    finding = done.finding()
    assert finding.verdict is Verdict.MISSED_FLUSH
    assert finding.also == (Verdict.USE_AFTER_FREE,)
    assert finding.where.cpu == cpus - 1
    assert finding.pfn == FIRST_FRAME + 1
    told = [payload.cpus for _, payload in done.payloads(FlushBegun)]
    assert told == [frozenset(range(cpus - 1))] * 2
    interrupted = [event.targets for _, event in done.events if isinstance(event, IpiSent) and flushes(event)]
    assert interrupted == [tuple(range(1, cpus - 1))] * 2


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_missed_cpu_blames_the_flush_that_left_it_out(cpus: int) -> None:
    done = seen("missed-cpu", cpus)
    begun = [number for number, _ in done.payloads(FlushBegun)][1]
    names = ", ".join(map(str, range(cpus - 1)))
    blamed = [reason for reason in done.finding().why if reason.startswith("covered by")]
    assert len(blamed) == 1
    assert f"flush_tlb_kernel_range by cpu0, begun at event {begun}, for cpus {names};" in blamed[0]


def test_missed_cpu_shows_the_stale_entry_beside_the_page_table() -> None:
    rows = seen("missed-cpu", 3).finding().tlbs
    assert [(row.cpu, row.stale) for row in rows] == [(None, False), (2, True)]
    assert rows[1].text.startswith(f"pfn {FIRST_FRAME + 1:#x} rw")


# --- lost-update ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_lost_update_needs_no_stale_entry(cpus: int) -> None:
    done = seen("lost-update", cpus)
    finding = done.finding()
    assert done.run.uses == ()
    assert finding.verdict is Verdict.LOST_UPDATE
    assert finding.where.cpu == 1
    assert finding.where.va == HEAD + 32
    assert finding.where.rip == program("write_head").address_of("write")
    assert finding.pfn == FIRST_FRAME
    assert isinstance(done.events[finding.event][1], Stored)


def test_lost_update_is_lost() -> None:
    done = seen("lost-update", 2)
    assert done.word(HEAD + 32) == 0
    old = PhysAddr((FIRST_FRAME << 12) + 32)
    assert done.machine.memory.read_word(old) == 0xAAAA_AAAA_AAAA_AAAA
    stored = [e for _, e in done.events if isinstance(e, Stored) and e.pa == old and e.value == 0x1234]
    assert len(stored) == 1


# --- spurious-write -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", [2, 3, 5])
def test_spurious_write_is_one_spurious_fault_and_no_violation(cpus: int) -> None:
    done = seen("spurious-write", cpus)
    finding = done.finding()
    assert finding.verdict is Verdict.SPURIOUS
    assert not done.run.wrong
    assert (finding.cr2, finding.error_code) == (CR2, 3)
    assert finding.where.cpu == 1
    assert finding.where.rip == program("read_then_write").address_of("write")
    assert finding.lines == ()
    assert len(done.payloads(SpuriousFault)) == 1
    assert len([event for _, event in done.events if isinstance(event, Faulted)]) == 1


def test_spurious_write_arrives() -> None:
    done = seen("spurious-write", 2)
    assert done.word(CR2) == 0x1234
    assert leaf(done.machine, TAIL_1).flags == RW
    # The first load still saw the head's page, the second what was written.
    assert guest_values(done, 1, CR2) == [0x10, 0x1234]
    # Nobody else's page got it.
    assert done.word(HEAD + 40) == 0
    assert [done.word(HEAD + n * PAGE + 40) for n in range(2, 8)] == [0] * 6


# --- remap ----------------------------------------------------------------------------------------------


def phases_of(
    chosen: Scenario, cpus: int, also: Callable[[System], Callable[..., None]]
) -> tuple[Run, list[Phase]]:
    """The view that the report shows, and one listener more."""
    setup = chosen.build(cpus)
    views: list[PagesView] = []

    def view(system: System) -> PagesView:
        views.append(PagesView(system, setup.watched, setup.tour))
        return views[-1]

    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine), (view, also))
    return done, views[0].phases


def after_each_operation(
    mapped: list[dict[int, Mapped]], pages: range
) -> Callable[[System], Callable[..., None]]:
    """A listener that walks the page tables itself whenever an operation ends."""

    def listener(system: System) -> Callable[..., None]:
        mapped.append({va: leaf(system.machine, va) for va in pages})

        def listen(_number: int, event: MachineEvent) -> None:
            if isinstance(event, Finished) and event.name in ("optimize", "restore"):
                mapped.append({va: leaf(system.machine, va) for va in pages})

        return listen

    return listener


PAGES = range(HEAD, HEAD + 8 * PAGE, PAGE)


@pytest.mark.parametrize("cpus", [1, 2, 3, 5])
def test_remap_shows_what_each_cpu_reads_through_its_own_tlb(cpus: int) -> None:
    mapped: list[dict[int, Mapped]] = []
    done, phases = phases_of(scenario("remap"), cpus, after_each_operation(mapped, PAGES))
    assert [phase.name for phase in phases] == ["before", "optimized", "restored"]
    for phase, tables in zip(phases, mapped, strict=True):
        assert [row.pfn for row in phase.rows] == [tables[va].pa >> 12 for va in PAGES]
        assert [row.flags for row in phase.rows] == [tables[va].flags for va in PAGES]
        assert [row.index for row in phase.rows] == list(range(8))
        for row in phase.rows:
            assert [cpu for cpu, _ in row.read] == list(range(cpus))
    before, optimized, restored = phases
    # Each CPU reads a head and seven tails, then eight heads, then a head and seven tails.
    own = [[meaning(words, p.folio) for _, words in row.read] for p in phases for row in p.rows]
    head, tail = ["a head"] * cpus, ["a tail"] * cpus
    assert own == [head, *[tail] * 7, *[head] * 8, head, *[tail] * 7]
    # Of all that is read through a tail of an optimized folio, nothing differs from the head's page.
    assert {row.read for row in optimized.rows} == {optimized.rows[0].read}
    assert [row.pfn for row in before.rows] == list(range(FIRST_FRAME, FIRST_FRAME + 8))
    assert {row.flags for row in before.rows} == {LARGE}
    assert len({row.pfn for row in optimized.rows}) == 1
    assert [row.flags for row in optimized.rows] == [RW] + [RO] * 7
    assert len({row.pfn for row in restored.rows}) == 8
    assert {row.flags for row in restored.rows} == {RW}
    assert restored.rows[0].pfn == optimized.rows[0].pfn not in {row.pfn for row in before.rows}
    assert done.findings == ()
    assert done.uses == ()


def test_remap_saves_7_pages_and_gives_them_back() -> None:
    _, phases = phases_of(scenario("remap"), 2, after_each_operation([], PAGES))
    counted = [dict(phase.counters) for phase in phases]
    boot = [counters["nr_memmap_boot_pages"] for counters in counted]
    later = [counters["nr_memmap_pages"] for counters in counted]
    assert boot == [512, 512 - 8, 512 - 8]
    assert later == [0, 1, 8]
    saved = [boot[0] + later[0] - boot[n] - later[n] for n in range(3)]
    assert saved == [0, 7, 0]
    # Of the 7 frames one went into the page table of the split.
    free = [phase.free_frames for phase in phases]
    assert [free[1] - free[0], free[2] - free[0]] == [7 - 1, -1]


@pytest.mark.parametrize("cpus", [2, 5])
def test_remap_leaves_the_tails_readable_as_tails(cpus: int) -> None:
    """Their compound_head points to the head again, in every one of the 512 struct pages but the head."""
    done = seen("remap", cpus)
    assert [done.word(HEAD + 64 * n + 8) for n in range(1, 512)] == [HEAD + 1] * 511


# --- remap-1g -------------------------------------------------------------------------------------------

HEAD_1G = VMEMMAP + 64 * 0x40000
PAGES_1G = range(HEAD_1G, HEAD_1G + 4096 * PAGE, PAGE)
SECTIONS_1G = (2048 + 128) // 128


@dataclass
class Remap1g:
    run: Run
    phases: list[Phase]
    mapped: list[dict[int, Mapped]]


@pytest.fixture(scope="module")
def remap_1g() -> Remap1g:
    mapped: list[dict[int, Mapped]] = []
    done, phases = phases_of(scenario("remap-1g"), 1, after_each_operation(mapped, PAGES_1G))
    return Remap1g(done, phases, mapped)


def test_remap_1g_saves_4095_pages_by_the_counters(remap_1g: Remap1g) -> None:
    assert isinstance(remap_1g.run.outcome, Completed)
    assert remap_1g.run.findings == ()
    counted = [dict(phase.counters) for phase in remap_1g.phases]
    boot = [counters["nr_memmap_boot_pages"] for counters in counted]
    later = [counters["nr_memmap_pages"] for counters in counted]
    total = 512 * SECTIONS_1G
    assert boot == [total, total - 4096, total - 4096]
    assert later == [0, 1, 4096]
    free = [phase.free_frames for phase in remap_1g.phases]
    assert [free[1] - free[0], free[2] - free[0]] == [4095 - 8, -8]


def test_remap_1g_saves_4095_pages_by_the_page_tables(remap_1g: Remap1g) -> None:
    before, optimized, restored = remap_1g.mapped
    frames = [{mapped.pa >> 12 for mapped in tables.values()} for tables in (before, optimized, restored)]
    assert [len(found) for found in frames] == [4096, 1, 4096]
    assert not frames[1] & frames[0]
    assert [optimized[va].flags for va in PAGES_1G] == [RW] + [RO] * 4095
    assert {mapped.flags for mapped in restored.values()} == {RW}


def test_remap_1g_splits_its_8_pmds(remap_1g: Remap1g) -> None:
    before, optimized, restored = remap_1g.mapped
    assert {mapped.level for mapped in before.values()} == {2}
    assert {mapped.level for mapped in optimized.values()} == {1}
    assert {mapped.level for mapped in restored.values()} == {1}
    machine = remap_1g.run.system.machine
    levels = [leaf(machine, VMEMMAP + n * 2 * MIB).level for n in range(SECTIONS_1G)]
    first = (HEAD_1G - VMEMMAP) // (2 * MIB)
    assert levels == [2] * first + [1] * 8 + [2] * (SECTIONS_1G - first - 8)


def test_remap_1g_shows_its_first_8_pages(remap_1g: Remap1g) -> None:
    read = [[meaning(words, p.folio) for row in p.rows for _, words in row.read] for p in remap_1g.phases]
    assert read == [["a head"] + ["a tail"] * 7, ["a head"] * 8, ["a head"] + ["a tail"] * 7]


@pytest.mark.slow
def test_remap_1g_replays(remap_1g: Remap1g) -> None:
    first = remap_1g.run
    again = run(scenario("remap-1g").build(1), lambda _system: Replay(parse(str(first.schedule))))
    assert (again.uses, again.findings, again.events) == (first.uses, first.findings, first.events)


@pytest.mark.slow
def test_remap_1g_with_a_second_cpu_interrupts_it() -> None:
    done = own_run(scenario("remap-1g"), 2)
    assert done.run.findings == ()
    assert {event.targets for _, event in done.events if isinstance(event, IpiSent)} == {(1,)}


def test_the_groups_are_as_listed() -> None:
    assert {chosen.name: chosen.group for chosen in SCENARIOS} == {
        "remap": Group.REMAP,
        "remap-1g": Group.REMAP,
        "remap-batch": Group.REMAP,
        "stale-read": Group.STALE,
        "flush-begun-before": Group.STALE,
        "use-after-free": Group.STALE,
        "missed-cpu": Group.STALE,
        "lost-update": Group.STALE,
        "tail-write": Group.FAULT,
        "spurious-write": Group.FAULT,
        "optimize-reader": Group.RACE,
        "optimize-compound-head": Group.RACE,
        "optimize-get-page": Group.RACE,
        "freeze-get-page": Group.RACE,
        "unfreeze-get-page": Group.RACE,
        "restore-reader": Group.RACE,
        "optimize-neighbours": Group.RACE,
        "restore-neighbour": Group.RACE,
        "unfreeze-get-page-2025": Group.RACE,
        "freeze-get-page-v6-9": Group.RACE,
        "optimize-kpageflags": Group.RACE,
        "optimize-compaction": Group.RACE,
        "optimize-gup-fast": Group.RACE,
        **{chosen.name: Group.POOL for chosen in POOL},
        "flush-reader": Group.FLUSH,
        "flush-head-reader": Group.FLUSH,
        "flush-sleeper": Group.FLUSH,
        "pool-up-and-down": Group.KERNEL,
        "frozen-tail": Group.KERNEL,
        "split-neighbours": Group.KERNEL,
        "split-writer": Group.KERNEL,
        "hotplugged": Group.KERNEL,
        "key-optimize": Group.KERNEL,
        "key-restore": Group.KERNEL,
        "error-while-growing": Group.KERNEL,
        "error-while-shrinking": Group.KERNEL,
        "second-error": Group.KERNEL,
        "rollback": Group.KERNEL,
        "restore-out-of-memory": Group.KERNEL,
        "restore-bulk-retry": Group.KERNEL,
        "invlpg-globals": Group.HARDWARE,
        "two-sizes": Group.HARDWARE,
    }


# --- events, asked --------------------------------------------------------------------------------------


def is_pte_store(event: Stored, index: int) -> bool:
    """Whether this store wrote the PTE of the vmemmap page of that index: the 8 PTEs lie side by side."""
    if str(event.site) != "set_pte_at":
        return False
    return event.va >= DIRECT_MAP and (event.pa >> 3) % 512 == ((HEAD >> 12) + index) % 512


def flushes(event: IpiSent) -> bool:
    return isinstance(event.payload, FlushPages | FlushEverything)


def guest_values(done: Seen, cpu: int, va: int) -> list[int]:
    """What the guest on that CPU loaded from an address, in order."""
    return [
        event.value
        for _, event in done.events
        if isinstance(event, Loaded) and event.cpu == cpu and event.va == va
    ]
