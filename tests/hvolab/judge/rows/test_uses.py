"""Uses of translations and frames, one rule at a time: rows 1 to 4 and 9 of the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from judge_lab import (
    ELSEWHERE,
    FRAMES,
    HEAD,
    HUGE,
    SPLIT,
    TAIL_1,
    TAIL_2,
    TAIL_3,
    WORD,
    Body,
    Lab,
    NeverCompletes,
    SilentFlush,
    after_split,
    cached_then,
    guest,
    lab,
    oldest,
    only_finding,
    only_use,
    reader,
    split,
    verdicts,
)

from emu.addr import PAGE_BYTES, Pfn, VirtAddr
from emu.cpu.ops import Annotate, Copy, Fill, Load, Store
from emu.paging.models import LAZY, SKYLAKE, ZEN_3, CpuModel, MultiHit
from emu.paging.pte import Pte, PteBit
from hvolab.catalog.common import optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import BeginsFlush, Finishes, Loads, SetsPte
from hvolab.subject.script import ToEnd, Until
from kernel_model.boot import Kernel
from kernel_model.core.events import FlushBegun, FlushCompleted, OperationBegun, OperationReturned
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import NamedPolicy, Ticket
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.layout import PMD_SIZE, VMEMMAP_START, direct_map, pfn_to_page
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_TABLE, page_table

# --- what is no use -------------------------------------------------------------------------------------


def test_using_what_the_page_table_says_is_nothing_to_tell() -> None:
    done = lab(SPLIT, reader(), script=after_split(ToEnd(1))).run()
    assert (done.uses, done.findings) == ((), ())


@pytest.mark.parametrize(
    "bits",
    [
        PAGE_KERNEL | PteBit.SOFT_9,
        PAGE_KERNEL | PteBit.SOFT_10 | PteBit.SOFT_11,
        PteBit(PAGE_KERNEL & ~PteBit.ACCESSED),
        PteBit(PAGE_KERNEL & ~PteBit.DIRTY),
        PteBit(PAGE_KERNEL | 0x7F << 52),
    ],
    ids=["bit 9", "bits 10 and 11", "A", "D", "bits 52 to 58"],
)
def test_accessed_dirty_and_software_bits_make_no_new_version(bits: PteBit) -> None:
    async def touch(made: Lab, _kernel: Kernel) -> None:
        await made.set_pte(TAIL_1, FRAMES + 1, bits)

    done = lab(SPLIT, (0, "touch", touch), reader(), script=cached_then(Finishes("touch"))).run()
    assert (done.uses, done.findings) == ((), ())


def test_accesses_outside_vmemmap_are_not_judged() -> None:
    """The direct map stays as it is; a use of it is none of the monitor's business."""
    source = "again:\n mov rax, [rdi]\n dec rsi\n jne again\n hlt"
    done = lab(guest(0, source, word=int(direct_map(0x70_0000)), times=5), cpus=1).run()
    assert (done.uses, done.findings) == ((), ())


# --- legal and equivalent -------------------------------------------------------------------------------


async def remap_tail(made: Lab, _kernel: Kernel) -> None:
    await made.set_pte(TAIL_1, ELSEWHERE)


async def remap_and_flush(made: Lab, booted: Kernel) -> None:
    await made.set_pte(TAIL_1, ELSEWHERE)
    await booted.flush.flush_tlb_kernel_range(TAIL_1, TAIL_2)


def test_a_stale_use_that_no_flush_was_owed_for_is_legal() -> None:
    done = lab(SPLIT, (0, "remap", remap_tail), reader(), script=cached_then(Finishes("remap"))).run()
    use = only_use(done)
    assert (use.verdict, use.also, use.access) == (Verdict.LEGAL, (), "read")
    assert (use.pfn, use.current_pfn) == (FRAMES + 1, ELSEWHERE)
    assert use.where.va == WORD
    assert use.where.instruction == "mov rbx, qword ptr [rdi]"
    assert use.why[-1] == "no flush that covers the page has completed yet"
    assert not done.findings


def test_the_reason_names_the_store_and_the_functions() -> None:
    done = lab(SPLIT, (0, "remap", remap_tail), reader(), script=cached_then(Finishes("remap"))).run()
    told = only_use(done).why[1]
    assert told.startswith("its PTE was changed at event ")
    assert "by cpu0 in set_pte_at < set_pte < remap_tail: " in told
    assert told.endswith(f"P W A D G NX pfn {FRAMES + 1:#x} -> P W A D G NX pfn {ELSEWHERE:#x}")


def test_a_use_while_the_flush_is_under_way_is_legal() -> None:
    done = lab(SPLIT, (0, "remap", remap_and_flush), reader(), script=cached_then(BeginsFlush())).run()
    use = only_use(done)
    assert use.verdict is Verdict.LEGAL
    assert use.why[-1].startswith("pending: flush_tlb_kernel_range by cpu0, begun at event ")
    assert use.why[-1].endswith(", for cpus 0, 1; not completed")


def test_after_the_flush_the_entry_is_gone() -> None:
    done = lab(SPLIT, (0, "remap", remap_and_flush), reader(), script=cached_then(Finishes("remap"))).run()
    assert (done.uses, done.findings) == ((), ())


def test_the_same_frame_with_fewer_rights_is_not_the_same_translation() -> None:
    async def protect(made: Lab, _kernel: Kernel) -> None:
        await made.set_pte(TAIL_1, FRAMES + 1, PAGE_KERNEL_RO)

    done = lab(SPLIT, (0, "protect", protect), reader(), script=cached_then(Finishes("protect"))).run()
    assert only_use(done).verdict is Verdict.LEGAL


def test_a_large_entry_used_after_the_split_is_equivalent() -> None:
    script = (Until(1, Loads(WORD)), Until(0, BeginsFlush()), ToEnd(1), ToEnd(0))
    done = lab(optimize(0), reader(), script=script).run()
    use = only_use(done)
    assert (use.verdict, use.also) == (Verdict.EQUIVALENT, ())
    assert use.pfn == use.current_pfn == FRAMES + 1
    assert " 2M -> " in use.why[0]
    assert use.why[1].startswith("its PMD was changed at event ")
    assert not done.findings


async def there_and_back(made: Lab, _kernel: Kernel) -> None:
    await made.set_pte(TAIL_1, ELSEWHERE)
    await made.set_pte(TAIL_1, FRAMES + 1)


def test_going_back_to_an_old_value_is_a_new_version_and_equivalent() -> None:
    done = lab(SPLIT, (0, "swing", there_and_back), reader(), script=cached_then(Finishes("swing"))).run()
    assert only_use(done).verdict is Verdict.EQUIVALENT


def test_an_equivalent_use_is_owed_no_flush() -> None:
    async def operation(made: Lab, booted: Kernel) -> None:
        begun = await Annotate(OperationBegun("swing", (HUGE.folio,)))
        await there_and_back(made, booted)
        await Annotate(OperationReturned("swing", begun, 0, ()))

    done = lab(SPLIT, (0, "swing", operation), reader(), script=cached_then(Finishes("swing"))).run()
    assert only_use(done).verdict is Verdict.EQUIVALENT
    assert not done.findings


def test_like_uses_are_counted_not_repeated() -> None:
    source = "mov rax, [rdi]\nagain:\n mov rbx, [rdi]\n dec rsi\n jne again\n hlt"
    looper = guest(1, source, word=int(WORD), times=7)
    done = lab(SPLIT, (0, "remap", remap_tail), looper, script=cached_then(Finishes("remap"))).run()
    use = only_use(done)
    assert (use.verdict, use.times) == (Verdict.LEGAL, 7)


def test_a_kernel_routine_is_judged_like_a_guest() -> None:
    async def reads(_lab: Lab, _kernel: Kernel) -> None:
        await Load(WORD)
        await Load(WORD)

    done = lab(
        SPLIT, (0, "remap", remap_tail), (1, "reads", reads), script=cached_then(Finishes("remap"))
    ).run()
    use = only_use(done)
    assert use.verdict is Verdict.LEGAL
    assert (use.where.code, use.where.instruction, use.where.rip) == ("reads", None, None)


BULK: dict[str, tuple[Any, str]] = {
    "copied from": (Copy(direct_map(ELSEWHERE << 12), TAIL_1, 64), "read"),
    "copied to": (Copy(TAIL_1, direct_map(ELSEWHERE << 12), 64), "write"),
    "filled": (Fill(TAIL_1, bytes(64)), "write"),
}


@pytest.mark.parametrize("name", BULK)
def test_a_bulk_access_is_a_use_of_its_page(name: str) -> None:
    op, access = BULK[name]

    async def reads_then_moves(_lab: Lab, _kernel: Kernel) -> None:
        await Load(WORD)
        await op

    script = cached_then(Finishes("remap"))
    done = lab(SPLIT, (0, "remap", remap_tail), (1, "moves", reads_then_moves), script=script).run()
    use = only_use(done)
    assert (use.verdict, use.access, use.where.va) == (Verdict.LEGAL, access, TAIL_1)


@pytest.mark.parametrize("model", [SKYLAKE, ZEN_3], ids=lambda model: model.name)
def test_a_stale_translation_from_a_directory_entry_is_stale(model: CpuModel) -> None:
    """The page table of 2 MiB of vmemmap is exchanged: a walk that starts at the old one is out of date."""
    other = VirtAddr(TAIL_2 + 8)
    table = 0xE90

    async def exchange(made: Lab, _kernel: Kernel) -> None:
        pmd = made.walk(HEAD).steps[-2].pa
        await Fill(direct_map(table << 12), page_table(0xD00, PAGE_KERNEL))
        await Store(direct_map(pmd), Pte.make(Pfn(table), PAGE_TABLE))

    # cpu1 reads page 1, which makes it remember the directory entry, and then page 2 for the first time.
    source = "mov rax, [rdi]\nnop\nmov rbx, [rsi]\nhlt"
    both = guest(1, source, word=int(WORD), other=int(other))
    made = lab(SPLIT, (0, "exchange", exchange), both, script=cached_then(Finishes("exchange")), model=model)
    use = only_use(made.run())
    assert use.verdict is Verdict.LEGAL
    assert (use.pfn, use.current_pfn) == (FRAMES + 2, 0xD00 + (HEAD - VMEMMAP_START) // PAGE_BYTES + 2)


# --- missed-flush ---------------------------------------------------------------------------------------


def test_a_flush_that_left_the_cpu_out_is_missed() -> None:
    script = cached_then(Finishes("remap"))
    done = lab(SPLIT, (0, "remap", remap_and_flush), reader(), script=script, policy=SKIPS_LAST_CPU).run()
    finding = only_finding(done)
    assert (finding.verdict, finding.also) == (Verdict.MISSED_FLUSH, ())
    assert finding.where.cpu == 1
    assert finding.pfn == FRAMES + 1
    assert finding.why[-1].startswith("covered by flush_tlb_kernel_range by cpu0, begun at event ")
    assert finding.why[-1].endswith(": the entry should be gone")
    assert only_use(done).verdict is Verdict.MISSED_FLUSH
    assert [(row.cpu, row.stale) for row in finding.tlbs] == [(None, False), (1, True)]


def test_a_flush_that_says_it_is_over_and_did_nothing_is_missed() -> None:
    script = cached_then(Finishes("remap"))
    done = lab(
        (0, "split", split), (0, "remap", remap_and_flush), reader(), script=script, policy=NEVER
    ).run()
    assert only_finding(done).verdict is Verdict.MISSED_FLUSH


def test_upstreams_own_operation_without_any_flush() -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, policy=NEVER).run()
    finding, *left = done.findings
    assert {one.cause[:2] for one in left} == {"I2"}  # what CPU 0 still holds
    assert (finding.verdict, finding.also) == (Verdict.MISSED_FLUSH, (Verdict.USE_AFTER_FREE,))
    assert "for cpus none; completed" in finding.why[2]


SILENT = NamedPolicy("silent", "neither flushes nor says so", SilentFlush)


def test_an_operation_that_returned_without_a_flush_owed_one() -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, policy=SILENT).run()
    finding = done.findings[0]
    assert (finding.verdict, finding.also) == (Verdict.MISSED_FLUSH, (Verdict.USE_AFTER_FREE,))
    assert finding.why[2].startswith("hugetlb_vmemmap_optimize_folio returned at event ")
    assert finding.why[2].endswith(" and no flush since that store covers the page")


def test_until_the_operation_returns_it_may_still_flush() -> None:
    # The frames are freed before the operation returns: stop before the first is.
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), Until(0, SetsPte(TAIL_3)), ToEnd(1), ToEnd(0))
    done = lab(optimize(0), reader(), script=script, policy=SILENT).run()
    assert only_use(done).verdict is Verdict.LEGAL
    assert {one.cause[:2] for one in done.findings} == {"I1", "I2"}  # it has not


def test_a_flush_that_was_issued_and_is_not_complete_is_not_missed_when_its_operation_returns() -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    policy = NamedPolicy("never-completes", "", NeverCompletes)
    done = lab(optimize(0), reader(), script=script, policy=policy).run()
    shown = {verdict for one in done.findings for verdict in (one.verdict, *one.also)}
    assert Verdict.MISSED_FLUSH not in shown
    assert done.findings[0].verdict is Verdict.USE_AFTER_FREE
    assert done.findings[0].why[2].startswith("pending: flush_tlb_kernel_range by cpu0, begun at event ")


def test_who_goes_on_before_the_others_have_flushed_relies_on_it_all_the_same() -> None:
    """Completion is when rely() returns, not when a policy likes to say so."""

    class NoWait(UpstreamFlush):
        async def rely(self, ticket: Ticket) -> None:
            """At once."""

    script = cached_then(Finishes("remap"))
    policy = NamedPolicy("no-wait", "", NoWait)
    done = lab(
        (0, "split", split), (0, "remap", remap_and_flush), reader(), script=script, policy=policy
    ).run()
    assert only_finding(done).verdict is Verdict.MISSED_FLUSH


def flush_of(start: int, end: int) -> Body:
    """Remaps page 1, then pretends to have flushed a range."""

    async def body(made: Lab, _kernel: Kernel) -> None:
        await made.set_pte(TAIL_1, ELSEWHERE)
        begun = await Annotate(FlushBegun("flush_tlb_kernel_range", start, end, frozenset()))
        await Annotate(FlushCompleted(begun))

    return body


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (HEAD, TAIL_1),
        (TAIL_2, TAIL_3),
        (TAIL_2, TAIL_2 + 8 * PAGE_BYTES),
        (VMEMMAP_START - PMD_SIZE, VMEMMAP_START),
        (VMEMMAP_START + PMD_SIZE, VMEMMAP_START + 2 * PMD_SIZE),
    ],
    ids=["the page before", "the page after", "pages after", "far before", "far after"],
)
def test_a_flush_of_other_pages_covers_nothing(start: int, end: int) -> None:
    done = lab(
        SPLIT, (0, "remap", flush_of(start, end)), reader(), script=cached_then(Finishes("remap"))
    ).run()
    assert only_use(done).verdict is Verdict.LEGAL
    assert not done.findings


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (TAIL_1, TAIL_2),
        (HEAD, TAIL_2),
        (TAIL_1, TAIL_3),
        (VMEMMAP_START, VMEMMAP_START + PMD_SIZE),
        (0, 1 << 64),
        # Bytes are flushed by whole pages.
        (TAIL_1, TAIL_1 + 1),
        (TAIL_2 - 1, TAIL_2),
    ],
)
def test_a_flush_of_the_page_covers_it(start: int, end: int) -> None:
    done = lab(
        SPLIT, (0, "remap", flush_of(start, end)), reader(), script=cached_then(Finishes("remap"))
    ).run()
    assert only_finding(done).verdict is Verdict.MISSED_FLUSH


def test_a_flush_begun_before_the_store_covers_nothing() -> None:
    async def flush_around(made: Lab, _kernel: Kernel) -> None:
        begun = await Annotate(FlushBegun("flush_tlb_all", 0, 1 << 64, frozenset({0, 1})))
        await made.set_pte(TAIL_1, ELSEWHERE)
        await Annotate(FlushCompleted(begun))

    done = lab(SPLIT, (0, "remap", flush_around), reader(), script=cached_then(Finishes("remap"))).run()
    use = only_use(done)
    assert use.verdict is Verdict.LEGAL
    assert use.why[2].startswith("not covered by flush_tlb_all by cpu0, begun at event ")
    assert use.why[2].endswith("it began before the store")


def test_one_lazy_cpu_left_out_is_found_too() -> None:
    script = cached_then(Finishes("remap"))
    made = lab(
        SPLIT, (0, "remap", remap_and_flush), reader(), script=script, policy=SKIPS_LAST_CPU, model=LAZY
    )
    made.strategy = oldest
    assert Verdict.MISSED_FLUSH in verdicts(made.run())


# --- use-after-free -------------------------------------------------------------------------------------


async def free_tail(_lab: Lab, booted: Kernel) -> None:
    """Gives back the frame behind page 1, which stays mapped."""
    await booted.pages.free_bootmem_page(pfn_to_page(FRAMES + 1))


def test_a_frame_freed_while_it_is_mapped_is_used_after_free_even_by_a_walk() -> None:
    done = lab(SPLIT, (0, "free", free_tail), reader(), script=after_split(ToEnd(0), ToEnd(1))).run()
    uses = [use for use in done.uses if use.where.cpu == 1]
    assert {use.verdict for use in uses} == {Verdict.USE_AFTER_FREE}
    assert len(uses) == 2  # one instruction walks, the other hits
    assert all(use.pfn == use.current_pfn == FRAMES + 1 for use in uses)
    assert verdicts(done) == [Verdict.USE_AFTER_FREE] * 2


def test_setting_the_accessed_flag_does_not_make_a_translation_younger() -> None:
    """Mapped without A, freed, then walked: the walk sets A, and the frame is used after it was freed."""

    async def map_then_free(made: Lab, booted: Kernel) -> None:
        await made.set_pte(TAIL_1, FRAMES + 1, PteBit(PAGE_KERNEL & ~PteBit.ACCESSED))
        await booted.flush.flush_tlb_all()
        await free_tail(made, booted)

    done = lab(SPLIT, (0, "free", map_then_free), reader(), script=after_split(ToEnd(0), ToEnd(1))).run()
    assert {use.verdict for use in done.uses if use.where.cpu == 1} == {Verdict.USE_AFTER_FREE}


def test_whoever_holds_the_frame_now_it_was_freed() -> None:
    taken: list[VirtAddr | None] = []

    async def free_and_allocate(made: Lab, booted: Kernel) -> None:
        await made.set_pte(TAIL_1, ELSEWHERE)
        await free_tail(made, booted)
        taken.append(await booted.pages.alloc_page("somebody else"))

    done = lab(SPLIT, (0, "free", free_and_allocate), reader(), script=cached_then(Finishes("free"))).run()
    assert taken == [pfn_to_page(FRAMES + 1)]
    finding = only_finding(done)
    assert (finding.verdict, finding.also) == (Verdict.USE_AFTER_FREE, ())
    assert finding.why[-1].startswith(f"pfn {FRAMES + 1:#x} was freed at event ")


def test_a_frame_freed_before_it_was_mapped_is_in_use() -> None:
    """Restore takes back the frames that optimize freed: reading them is as right as can be."""
    script = (Until(0, Finishes("optimize")), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), restore(0), reader(), script=script).run()
    assert (done.uses, done.findings) == ((), ())


def test_a_frame_that_never_left_the_folio_was_not_freed() -> None:
    """A tail's entry to the shared page, used after restore gave the tail its own: stale, but not freed."""
    script = (Until(0, Finishes("optimize")), Until(1, Loads(WORD)), Until(0, SetsPte(TAIL_1)), ToEnd(1))
    done = lab(optimize(0), restore(0), reader(), script=script).run()
    assert only_use(done).verdict is Verdict.LEGAL
    assert not done.findings


# --- tlb-multihit ---------------------------------------------------------------------------------------


STRICT = replace(LAZY, name="strict", multi_hit=MultiHit.MACHINE_CHECK)


def test_two_sizes_for_one_address_are_a_multihit_where_the_model_forbids_it() -> None:
    script = (Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, policy=NEVER, model=STRICT).run()
    found = [f for f in done.findings if f.verdict is Verdict.TLB_MULTIHIT and f.where.cpu == 1]
    assert len(found) == 1
    assert found[0].where.va == WORD
    # Those of cpu0 too, for which a walk made now gives the second size.
    assert {f.cause for f in done.findings if f.verdict is Verdict.TLB_MULTIHIT} <= {
        "2M and 4K entries for one address",
        "4K and 2M entries for one address",
    }


@pytest.mark.parametrize(
    "model", [STRICT, replace(SKYLAKE, multi_hit=MultiHit.MACHINE_CHECK)], ids=["lazy", "sets"]
)
def test_once_the_split_is_flushed_there_is_no_multihit(model: CpuModel) -> None:
    script = (Until(1, Loads(WORD)), Until(0, SetsPte(HEAD)), ToEnd(1), ToEnd(0))
    done = lab(optimize(0), reader(), script=script, model=model).run()
    assert not [f for f in done.findings if f.where.cpu == 1]


def test_both_sizes_are_fine_on_a_cpu_that_uses_either() -> None:
    script = (Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, policy=NEVER, model=LAZY).run()
    assert Verdict.TLB_MULTIHIT not in verdicts(done)
