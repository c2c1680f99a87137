"""Entries that change in use, on CPUs that forbid it: what counts as a gap, and what as flushed."""

from __future__ import annotations

import pytest
from judge_lab import ELSEWHERE, FRAMES, HEAD, SPLIT, TAIL_1, Lab, lab, optimize_under

from emu.addr import PAGE_BYTES, VirtAddr
from emu.cpu.ops import FetchAndNot, Load
from emu.paging.models import LAZY, LAZY_BBM_REQUIRED, CpuModel
from emu.paging.pte import PteBit
from hvolab.judge.verdict import Finding, Verdict
from hvolab.subject.script import ToEnd
from kernel_model.boot import Kernel
from kernel_model.flush.breaking import BBM
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.tracking import AF_BBM
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import PMD_SIZE, direct_map
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, mk_pte, pmd_clear, pte_clear, set_pte_at

HERE = FRAMES + 1  # the frame of TAIL_1
CLEAR, FLUSH, FLUSH_OTHER, AGE, USE = "clear", "flush", "flush another page", "age", "use"
TO_ELSEWHERE, BACK = mk_pte(ELSEWHERE, PAGE_KERNEL), mk_pte(HERE, PAGE_KERNEL)


def changes(*deeds: object, model: CpuModel = LAZY_BBM_REQUIRED) -> list[Finding]:
    """What is found of that page table entry: numbers are stored to it."""

    async def body(made: Lab, booted: Kernel) -> None:
        pte = made.walk(TAIL_1).steps[-1].pa
        for deed in deeds:
            if deed == CLEAR:
                await pte_clear(pte)
            elif deed == FLUSH:
                await booted.flush.flush_tlb_kernel_range(TAIL_1, VirtAddr(TAIL_1 + PAGE_BYTES))
            elif deed == AGE:
                await FetchAndNot(direct_map(pte), PteBit.ACCESSED)
            elif deed == USE:
                await Load(TAIL_1)
            elif deed == FLUSH_OTHER:
                other = VirtAddr(TAIL_1 + PAGE_BYTES)
                await booted.flush.flush_tlb_kernel_range(other, VirtAddr(other + PAGE_BYTES))
            else:
                await set_pte_at(pte, deed)

    done = lab(SPLIT, (0, "changes", body), model=model, script=(ToEnd(0),)).run()
    found = [one for one in done.findings if one.verdict is Verdict.LIVE_CHANGE]
    return [one for one in found if one.where.va == TAIL_1]


@pytest.mark.parametrize(
    ("deeds", "said"),
    [
        ((TO_ELSEWHERE,), "became pfn 0xe80 P W A D G NX while it was in use"),
        ((TO_ELSEWHERE, FLUSH), "while it was in use"),
        ((CLEAR, TO_ELSEWHERE), "before a flush of that was complete"),
        ((FLUSH, CLEAR, TO_ELSEWHERE), "before a flush of that was complete"),
        ((CLEAR, FLUSH_OTHER, TO_ELSEWHERE), "before a flush of that was complete"),
        ((CLEAR, CLEAR, TO_ELSEWHERE, FLUSH), "before a flush of that was complete"),
        ((AGE, TO_ELSEWHERE), "was made old at event"),
        ((FLUSH, AGE, AGE, TO_ELSEWHERE), "was made old at event"),
        ((AGE, FLUSH, USE, TO_ELSEWHERE), "while it was in use"),
    ],
)
def test_a_change_without_a_gap_that_was_flushed_is_a_violation(deeds: tuple[object, ...], said: str) -> None:
    (found,) = changes(*deeds)
    assert said in found.why[0]
    assert found.where.code == "set_pte_at"


@pytest.mark.parametrize(
    "deeds",
    [
        (CLEAR, FLUSH, TO_ELSEWHERE),
        (CLEAR, FLUSH_OTHER, FLUSH, TO_ELSEWHERE),
        (AGE, FLUSH, TO_ELSEWHERE),
        (AGE, FLUSH, AGE, TO_ELSEWHERE),
        (AGE, FLUSH, USE, AGE, FLUSH, TO_ELSEWHERE),
        (CLEAR, BACK),
        (mk_pte(HERE, PAGE_KERNEL_RO), BACK),
        (CLEAR,),
        (CLEAR, FLUSH, TO_ELSEWHERE, CLEAR, FLUSH, BACK),
    ],
)
def test_a_gap_that_was_flushed_or_the_same_frame_is_none(deeds: tuple[object, ...]) -> None:
    assert changes(*deeds) == []


def test_each_change_is_looked_at_for_itself() -> None:
    found = changes(TO_ELSEWHERE, FLUSH, CLEAR, FLUSH, BACK, FLUSH, TO_ELSEWHERE)
    assert len({one.event for one in found}) == 2


def test_other_cpus_allow_it() -> None:
    assert changes(TO_ELSEWHERE, model=LAZY) == []


@pytest.mark.parametrize(
    ("policy", "some"),
    [(UPSTREAM, True), (BBM, False), (AF_BBM, False)],
    ids=["upstream", "bbm", "af-bbm"],
)
def test_hvo_changes_entries_in_use_unless_its_policy_breaks_them_first(
    policy: NamedPolicy, some: bool
) -> None:
    done = optimize_under(policy, LAZY_BBM_REQUIRED).run()
    found = {one.where.code for one in done.findings if one.verdict is Verdict.LIVE_CHANGE}
    assert found == ({"set_pte_at", "pmd_populate_kernel"} if some else set())


def test_a_bit_that_is_no_address_is_no_change() -> None:
    assert changes(BACK | PteBit.USER, BACK & ~PteBit.GLOBAL) == []


@pytest.mark.parametrize("page", [0, 1, 511])
def test_a_large_page_is_flushed_with_any_of_its_pages(page: int) -> None:
    """It once had to be the first."""

    async def body(made: Lab, booted: Kernel) -> None:
        pmd = made.walk(HEAD).steps[-1]
        first = VirtAddr(HEAD & ~(PMD_SIZE - 1))
        await pmd_clear(pmd.pa)
        at = VirtAddr(first + page * PAGE_BYTES)
        await booted.flush.flush_tlb_kernel_range(at, VirtAddr(at + PAGE_BYTES))
        await set_pte_at(pmd.pa, pmd.entry ^ (1 << 21))

    done = lab((0, "changes", body), model=LAZY_BBM_REQUIRED, script=(ToEnd(0),), cpus=1).run()
    assert [one for one in done.findings if one.verdict is Verdict.LIVE_CHANGE] == []
