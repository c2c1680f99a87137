"""Writes to read-only struct pages: what is refused, and what is only spurious."""

from __future__ import annotations

import pytest
from catalog_runs import CR2, HEAD, PAGE, RW, TAIL_1, guest_values, is_pte_store, leaf, seen

from emu.events import Faulted, Finished, Stored
from firmware.catalog import program
from hvolab.judge.verdict import Verdict
from kernel_model.core.events import SpuriousFault


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
