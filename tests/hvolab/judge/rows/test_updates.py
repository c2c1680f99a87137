"""Stores that got lost, row 5; and those that did not."""

from __future__ import annotations

import pytest
from judge_lab import (
    ELSEWHERE,
    FIELD,
    FRAMES,
    HEAD,
    SPLIT,
    TAIL_1,
    TAIL_3,
    TAIL_FIELD,
    VALUE,
    Lab,
    after_split,
    guest,
    lab,
    only_finding,
    value_at,
    verdicts,
    writer,
)

from emu.addr import PAGE_BYTES
from emu.cpu.ops import Copy
from hvolab.catalog.common import optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import CopiesFrom, Finishes, Frees, Loads, Pattern, SetsPte, Stores
from hvolab.subject.script import Script, ToEnd, Until
from kernel_model.boot import Kernel
from kernel_model.layout import direct_map


def test_a_store_to_the_head_between_the_copy_and_set_pte_at_is_lost() -> None:
    done = lab(optimize(0), writer(FIELD), script=(Until(0, CopiesFrom(HEAD)), ToEnd(1))).run()
    finding = only_finding(done)
    assert (finding.verdict, finding.also) == (Verdict.LOST_UPDATE, ())
    assert not done.uses  # the store itself went through a translation that was current
    assert (finding.where.va, finding.pfn) == (FIELD, FRAMES)
    assert finding.why[0] == f"cpu1 stored {VALUE:#x} over 0x0 in pfn {FRAMES:#x}"
    assert finding.why[1].startswith("the page had been copied at event ")
    assert finding.why[2].startswith("when hugetlb_vmemmap_optimize_folio returned the address leads to pfn ")
    assert finding.why[2].endswith(", which holds 0x0")


def test_a_store_through_an_old_writable_tail_entry_is_legal_and_lost() -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(TAIL_FIELD)), Until(0, SetsPte(TAIL_1)), ToEnd(1))
    done = lab(optimize(0), writer(TAIL_FIELD, name="read_then_write"), script=script).run()
    uses = [use for use in done.uses if use.where.cpu == 1]
    assert [(use.verdict, use.access) for use in uses] == [(Verdict.LEGAL, "write"), (Verdict.LEGAL, "read")]
    finding = only_finding(done)
    assert finding.verdict is Verdict.LOST_UPDATE
    assert (finding.where.va, finding.pfn, finding.where.cpu) == (TAIL_FIELD, FRAMES + 1, 1)


async def move_head(made: Lab, _kernel: Kernel) -> None:
    """What optimize does to the head page, and nothing else."""
    await Copy(direct_map(ELSEWHERE << 12), HEAD, PAGE_BYTES)
    await made.set_pte(HEAD, ELSEWHERE)


def test_a_store_through_an_old_head_entry_is_legal_and_lost() -> None:
    script = after_split(Until(1, Loads(FIELD)), Until(0, SetsPte(HEAD)), ToEnd(1), ToEnd(0))
    done = lab(SPLIT, (0, "move", move_head), writer(FIELD, name="read_then_write"), script=script).run()
    assert {use.verdict for use in done.uses if use.where.cpu == 1} == {Verdict.LEGAL}
    finding = only_finding(done)
    assert (finding.verdict, finding.pfn) == (Verdict.LOST_UPDATE, FRAMES)


@pytest.mark.parametrize(
    "script",
    [
        (ToEnd(1), ToEnd(0)),
        (Until(0, SetsPte(HEAD)), ToEnd(1), ToEnd(0)),
        (ToEnd(0), ToEnd(1)),
    ],
    ids=["before the copy", "after set_pte_at", "after the operation"],
)
def test_a_store_that_arrives_is_not_lost(script: Script) -> None:
    made = lab(optimize(0), writer(FIELD), script=script)
    done = made.run()
    assert not done.findings
    assert value_at(made, FIELD) == VALUE


def test_a_store_of_what_is_there_anyway_is_not_lost() -> None:
    done = lab(optimize(0), writer(FIELD, 0), script=(Until(0, CopiesFrom(HEAD)), ToEnd(1))).run()
    assert not done.findings


def test_the_last_store_decides() -> None:
    source = "mov [rdi], rsi\nnop\nmov [rdi], rsi\nhlt"
    script = (
        Until(0, CopiesFrom(HEAD)),
        Until(1, Stores(FIELD)),
        Until(0, SetsPte(HEAD)),
        ToEnd(0),
        ToEnd(1),
    )
    made = lab(optimize(0), guest(1, source, word=int(FIELD), value=VALUE), script=script)
    # The first store is lost when the operation returns; the second arrives and is not.
    assert verdicts(made.run()) == [Verdict.LOST_UPDATE]
    assert value_at(made, FIELD) == VALUE
    arrives = (
        Until(0, CopiesFrom(HEAD)),
        Until(1, Stores(FIELD)),
        Until(0, Frees(FRAMES)),
        ToEnd(1),
        ToEnd(0),
    )
    made = lab(optimize(0), guest(1, source, word=int(FIELD), value=VALUE), script=arrives)
    assert verdicts(made.run()) == []


@pytest.mark.parametrize("pattern", [CopiesFrom(HEAD), SetsPte(TAIL_1), SetsPte(TAIL_3)], ids=str)
def test_a_store_to_the_head_while_the_tails_are_restored_arrives(pattern: Pattern) -> None:
    script = (Until(0, Finishes("optimize")), Until(0, pattern), ToEnd(1), ToEnd(0))
    made = lab(optimize(0), restore(0), writer(FIELD), script=script)
    assert not made.run().findings
    assert value_at(made, FIELD) == VALUE


def test_a_part_of_a_word_stored_over_is_not_the_loss_of_the_word() -> None:
    """Eight bytes arrive, then four of them are stored over: memory holds what was stored last, all of it."""
    source = "mov [rdi], rsi\nmov dword ptr [rdi + 4], esi\nhlt"
    script = (Until(0, Finishes("optimize")), Until(0, CopiesFrom(HEAD)), ToEnd(1), ToEnd(0))
    made = lab(optimize(0), restore(0), guest(1, source, word=int(FIELD), value=VALUE), script=script)
    done = made.run()
    assert value_at(made, FIELD) == VALUE << 32 | VALUE
    assert not done.findings


def test_what_is_lost_to_no_operation_is_told_at_the_end() -> None:
    script = after_split(Until(0, CopiesFrom(HEAD)), ToEnd(1), ToEnd(0))
    done = lab(SPLIT, (0, "move", move_head), writer(FIELD), script=script).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.LOST_UPDATE
    assert finding.why[2].startswith(f"at the end of the run the address leads to pfn {ELSEWHERE:#x}")
