"""Stale entries: which flush, which free and which copy decides."""

from __future__ import annotations

import pytest
from catalog_runs import (
    CASES,
    FIRST_FRAME,
    HEAD,
    TAIL_1,
    TAIL_WORD,
    flushes,
    guest_values,
    is_pte_store,
    leaf,
    seen,
)

from emu.addr import PhysAddr
from emu.events import IpiSent, Stored
from firmware.catalog import program
from hvolab.judge.verdict import Verdict
from kernel_model.core.events import FlushBegun, FlushCompleted, PageFreed


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
