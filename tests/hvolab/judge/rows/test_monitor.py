"""The monitor's verdicts, one rule at a time, on small systems driven by scripts; and no false alarms.

Each test has cpu1 cache a translation, cpu0 change it, and cpu1 use it again. The systems are real ones of 16
MiB with one 2 MiB huge page, whose vmemmap pages are backed by frames 0xe20 to 0xe27.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from emu.addr import PAGE_BYTES, Pfn, PhysAddr, VirtAddr
from emu.choice import Choice, Question, VersionQuestion
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import Annotate, Await, Copy, Fill, Load, Store
from emu.mmu import without_rule
from emu.paging.models import LAZY, MODELS, SKYLAKE, ZEN_3, CpuModel, MultiHit
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Rule
from emu.paging.walk import Walk
from firmware.catalog import program
from firmware.load import load_program
from firmware.program import Argument
from hvolab.catalog import scenario
from hvolab.catalog.common import optimize, restore
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Pct
from hvolab.judge.verdict import Finding, Use, Verdict
from hvolab.subject.pattern import (
    BeginsFlush,
    CopiesFrom,
    Finishes,
    Frees,
    Loads,
    Pattern,
    SetsPte,
    Stores,
)
from hvolab.subject.picker import Picker
from hvolab.subject.run import Completed, Deadlocked, Limits, OutOfSteps, Run, run
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page, with_program
from hvolab.subject.script import Script, ScriptPicker, ToEnd, Until
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.core.events import FlushBegun, FlushCompleted, OperationBegun, OperationReturned
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.lists import LIST_POISON1
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.policy import FlushSite, NamedPolicy
from kernel_model.layout import PMD_SIZE, VMEMMAP_START, direct_map, pfn_to_page
from kernel_model.mm.hstate import HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import PageFlag
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_TABLE, mk_pte, page_table, set_pte_at

HUGE = HugePage(Pfn(0x800), HSTATE_2M)
HEAD, TAIL_1, TAIL_2, TAIL_3 = (vmemmap_page(HUGE, n) for n in range(4))
WORD = VirtAddr(TAIL_1 + 8)
FRAMES = 0xE20
"""Of the head's page at time zero."""
ELSEWHERE = 0xE80
"""A frame of the same block that nothing here uses, nor frees."""
VALUE = 0x1234

Body = Callable[["Lab", Kernel], Awaitable[None]]


# --- the lab --------------------------------------------------------------------------------------------


@dataclass
class Lab:
    """A system to boot, what runs on it, and its run."""

    boot: BootConfig
    actors: list[GuestActor | KernelActor]
    script: Script
    picker: Callable[[Lab], Picker] | None = None
    most_steps: int = 20_000
    system: System | None = None

    def run(self) -> Run:
        setup = Setup(self.boot, tuple(self.actors), self.script, (HEAD, TAIL_1))

        def picker_for(system: System) -> Picker:
            self.system = system
            return self.picker(self) if self.picker else ScriptPicker(self.script, system.machine)

        return run(setup, picker_for, limits=Limits(self.most_steps))

    def walk(self, va: int) -> Walk:
        assert self.system is not None
        found = self.system.machine.cpus[0].mmu.peek(VirtAddr(va))
        assert isinstance(found, Walk)
        return found

    async def set_pte(self, va: int, pfn: int, bits: PteBit = PAGE_KERNEL) -> None:
        """set_pte_at() by the kernel, of a page that is mapped by a PTE."""
        found = self.walk(va)
        assert len(found.steps) == 4
        await set_pte_at(found.steps[-1].pa, mk_pte(pfn, bits))


def lab(*actors: GuestActor | KernelActor | tuple[int, str, Body], script: Script = (), **boot: Any) -> Lab:
    """A lab with these actors; a tuple is a kernel routine that is given the lab."""
    made = Lab(BootConfig(16 << 20, boot.pop("cpus", 2), (HUGE,), **boot), [], script)
    for actor in actors:
        made.actors.append(kernel(made, *actor) if isinstance(actor, tuple) else actor)
    return made


def kernel(made: Lab, cpu: int, name: str, body: Body) -> KernelActor:
    async def routine(booted: Kernel, _huge: HugePage) -> None:
        await body(made, booted)

    return KernelActor(cpu, name, routine)


def guest(cpu: int, source: str, name: str = "guest", **arguments: int) -> GuestActor:
    """A guest program; its arguments come in rdi, rsi, ... in the order given."""
    registers = zip(arguments, ("rdi", "rsi", "rdx", "rcx"), strict=False)
    described = tuple(Argument(argument, register, "", "") for argument, register in registers)
    return GuestActor(cpu, replace(load_program(name, source), arguments=described), tuple(arguments.items()))


def reader(cpu: int = 1, word: int = WORD) -> GuestActor:
    return GuestActor(cpu, program("read_twice"), (("word", int(word)),))


def writer(word: int, value: int = VALUE, name: str = "write_head") -> GuestActor:
    return GuestActor(1, program(name), (("word", int(word)), ("value", value)))


async def split(_lab: Lab, booted: Kernel) -> None:
    """The huge page's vmemmap is mapped by PTEs, and no TLB holds anything else."""
    await booted.hvo.hugetlb_vmemmap_split_folio(HSTATE_2M, HUGE.folio)
    await booted.flush.flush_tlb_all()


SPLIT = (0, "split", split)


def after_split(*rest: Any) -> Script:
    return (Until(0, Finishes("split")), *rest)


def cached_then(pattern: Pattern) -> Script:
    """Split; cpu1 caches; cpu0 goes on until the pattern; cpu1 uses it again; the rest."""
    return after_split(Until(1, Loads(WORD)), Until(0, pattern), ToEnd(1), ToEnd(0))


def only_use(done: Run) -> Use:
    assert isinstance(done.outcome, Completed)
    uses = [use for use in done.uses if use.where.cpu == 1]
    assert len(uses) == 1
    return uses[0]


def only_finding(done: Run) -> Finding:
    assert len(done.findings) == 1
    return done.findings[0]


def verdicts(done: Run) -> list[Verdict]:
    return [finding.verdict for finding in done.findings]


class Oldest(ScriptPicker):
    """As the script says, by CPUs that keep every stale translation as long as they may."""

    def answer(self, question: Question) -> int:
        return 0 if isinstance(question, VersionQuestion) else question.default


def oldest(made: Lab) -> Picker:
    assert made.system is not None
    return Oldest(made.script, made.system.machine)


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


class SilentFlush:
    """Does nothing and says nothing."""

    def __init__(self, site: FlushSite) -> None:
        del site

    async def flush_tlb_all(self) -> None:
        """Nothing."""

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        """Nothing."""


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
    made.picker = oldest
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


# --- lost-update ----------------------------------------------------------------------------------------

FIELD = VirtAddr(HEAD + 32)
"""A word of the head struct page."""
TAIL_FIELD = VirtAddr(TAIL_1 + 32)


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


def value_at(made: Lab, va: int) -> int:
    assert made.system is not None
    return made.system.machine.memory.read_word(PhysAddr(made.walk(va).pa))


# --- write-protect and spurious -------------------------------------------------------------------------


def test_a_write_to_read_only_vmemmap_is_write_protect() -> None:
    done = lab(optimize(0), writer(TAIL_FIELD), script=(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.WRITE_PROTECT
    assert (finding.cr2, finding.error_code) == (TAIL_FIELD, 3)


def test_a_kernel_routine_that_writes_there_is_caught_too() -> None:
    async def writes(_lab: Lab, _kernel: Kernel) -> None:
        await Store(TAIL_FIELD, VALUE)

    done = lab(optimize(0), (1, "writes", writes), script=(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.WRITE_PROTECT
    assert (finding.where.code, finding.where.instruction) == ("writes", None)


def test_the_same_through_a_stale_read_only_entry_is_spurious() -> None:
    script = (
        Until(0, Finishes("optimize")),
        Until(1, Loads(TAIL_FIELD)),
        Until(0, SetsPte(TAIL_1)),
        ToEnd(1),
    )
    made = lab(optimize(0), restore(0), writer(TAIL_FIELD, name="read_then_write"), script=script)
    finding = only_finding(made.run())
    assert finding.verdict is Verdict.SPURIOUS
    assert (finding.cr2, finding.error_code) == (TAIL_FIELD, 3)
    assert value_at(made, TAIL_FIELD) == VALUE


def test_a_cpu_that_walks_again_before_it_faults_has_no_spurious_fault() -> None:
    script = (
        Until(0, Finishes("optimize")),
        Until(1, Loads(TAIL_FIELD)),
        Until(0, SetsPte(TAIL_1)),
        ToEnd(1),
    )
    actors = (optimize(0), restore(0), writer(TAIL_FIELD, name="read_then_write"))
    made = lab(*actors, script=script, model=ZEN_3)
    assert not made.run().findings
    assert value_at(made, TAIL_FIELD) == VALUE


def test_a_write_to_other_read_only_memory_is_the_kernels_own() -> None:
    """Kernel text is read-only too, but it is no vmemmap."""
    text = program("write_head").origin
    finding = only_finding(lab(writer(text), cpus=2).run())
    assert finding.verdict is Verdict.KERNEL
    assert (finding.cr2, finding.error_code) == (text, 3)


# --- kernel ---------------------------------------------------------------------------------------------


def test_a_corrupted_list_is_a_bug() -> None:
    async def corrupts(_lab: Lab, booted: Kernel) -> None:
        entry = VirtAddr(HEAD + 8)
        await Store(entry, LIST_POISON1)
        await booted.lists.delete(entry)

    done = lab((0, "corrupts", corrupts), cpus=1).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.KERNEL
    expected = f"BUG in __list_del_entry_valid: list_del corruption, {HEAD + 8:x}->next is LIST_POISON1"
    assert finding.cause.startswith(expected)
    assert done.wrong


def test_a_double_free_is_a_bug() -> None:
    async def frees_twice(_lab: Lab, booted: Kernel) -> None:
        page = await booted.pages.alloc_page("to free")
        assert page is not None
        await booted.pages.free_page(page)
        await Store(VirtAddr(page + 52), 1, 4)
        await booted.pages.free_page(page)

    finding = only_finding(lab((0, "frees", frees_twice), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.cause.startswith("BUG in free_unref_page: double free of pfn ")


def test_bad_page_state_is_named_with_its_frame() -> None:
    async def frees_locked(_lab: Lab, booted: Kernel) -> None:
        page = await booted.pages.alloc_page("to free")
        assert page is not None
        await Store(page, PageFlag.LOCKED)
        await booted.pages.free_page(page)

    finding = only_finding(lab((0, "frees", frees_locked), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.cause == "bad page state of pfn 0xa00: PAGE_FLAGS_CHECK_AT_FREE flag(s) set"


async def use_folio(_lab: Lab, _kernel: Kernel) -> None:
    """Somebody takes a reference on the folio, which is in the pool."""
    await Store(VirtAddr(HEAD + 52), 1, 4)


WARNING = "WARNING in __hugetlb_vmemmap_{}_folio: VM_WARN_ON_ONCE_FOLIO(folio_ref_count(folio))"


def test_a_warning_counts_once_a_run() -> None:
    done = lab((0, "use", use_folio), optimize(0), optimize(0), optimize(0), cpus=1).run()
    assert [(f.verdict, f.cause) for f in done.findings] == [(Verdict.KERNEL, WARNING.format("optimize"))]


def test_each_warning_counts_once_a_run() -> None:
    """Two places that warn in the same words are two warnings."""
    done = lab((0, "use", use_folio), optimize(0), restore(0), optimize(0), restore(0), cpus=1).run()
    causes = {finding.cause for finding in done.findings}
    assert causes == {WARNING.format("optimize"), WARNING.format("restore")}
    assert len(done.findings) == 2


class NeverAcknowledged(SilentFlush):
    """Waits for an acknowledgement that nobody gives."""

    async def flush_tlb_kernel_range(self, start: VirtAddr, end: VirtAddr) -> None:
        del start, end
        await Await(WordIs(Word("acknowledged"), 1))


def test_a_policy_that_never_acknowledges_is_a_deadlock() -> None:
    policy = NamedPolicy("never", "waits for ever", NeverAcknowledged)
    done = lab(optimize(0), reader(), policy=policy).run()
    assert done.outcome == Deadlocked(((0, "acknowledged = 1"),))
    assert str(done.outcome) == "deadlock: cpu0 waits for acknowledged = 1"
    finding = only_finding(done)
    assert finding.verdict is Verdict.KERNEL
    assert finding.cause == "deadlock: cpu0 waits for acknowledged = 1"
    assert finding.where.cpu == 0
    assert done.wrong


def test_a_jump_to_nowhere_is_an_oops() -> None:
    finding = only_finding(lab(guest(0, "mov rax, 0x1000\njmp rax", "nowhere"), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.cause == "BUG: unable to handle page fault for address: 0000000000001000"
    assert (finding.cr2, finding.error_code) == (0x1000, 0x10)
    assert (finding.where.code, finding.where.rip) == ("nowhere", 0x1000)
    assert finding.lines[1] == "#PF: supervisor instruction fetch in kernel mode"
    assert finding.lines[2] == "#PF: error_code(0x0010) - not-present page"


def test_a_null_pointer_is_an_oops() -> None:
    finding = only_finding(lab(guest(0, "mov rax, [rdi]\nhlt"), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.lines[0] == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert (finding.cr2, finding.error_code) == (0, 0)


TRAPS = {
    "ud2": ("ud2\nhlt", "ud2", "invalid opcode"),
    "divide": ("mov rbx, 0\ndiv rbx\nhlt", "div rbx", "divide error"),
    "non-canonical": (
        "movabs rax, 0x8000000000000000\nmov rbx, [rax]\nhlt",
        "mov rbx, qword ptr [rax]",
        "general protection fault, probably for non-canonical address 0x8000000000000000",
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_any_other_exception_is_the_kernels_with_its_instruction_and_its_log(name: str) -> None:
    source, instruction, headline = TRAPS[name]
    made = lab(guest(0, source, "trapper"), cpus=1)
    finding = only_finding(made.run())
    assert finding.verdict is Verdict.KERNEL
    assert headline in finding.cause
    assert (finding.where.code, finding.where.instruction) == ("trapper", instruction)
    assert headline in finding.lines[0]
    assert (finding.cr2, finding.error_code) == (None, None)


def test_a_translation_that_leads_out_of_memory_is_one_finding() -> None:
    async def beyond(made: Lab, _kernel: Kernel) -> None:
        await made.set_pte(TAIL_1, 0x5000)

    done = lab(SPLIT, (0, "beyond", beyond), reader(), script=after_split(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.KERNEL
    assert "0x5000008" in finding.cause
    assert finding.where.instruction == "mov rax, qword ptr [rdi]"
    assert finding.where.va == WORD


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


# --- model error ----------------------------------------------------------------------------------------


def test_a_tlb_that_ignores_invlpg_of_globals_is_caught_before_the_kernel_is_blamed() -> None:
    model = without_rule(SKYLAKE, Rule.INVLPG_REMOVES_GLOBALS)
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    done = lab(optimize(0), reader(), script=script, model=model).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.MODEL_ERROR
    assert finding.also == (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE)
    assert finding.why[1].startswith("the invalidation at event ")
    assert finding.why[1].endswith(" should have removed it")
    assert done.model_error
    assert not done.wrong  # never a verdict on a kernel


LARGE_KEPT = {
    "the whole TLB": (Rule.ALL_REMOVES_GLOBALS, KernelConfig()),
    "page by page": (Rule.INVLPG_REMOVES_LARGE, KernelConfig(tlb_single_page_flush_ceiling=512)),
}


@pytest.mark.parametrize("name", LARGE_KEPT)
@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_a_tlb_that_keeps_a_large_entry_through_the_flush_of_the_split_is_caught(
    name: str, model: CpuModel
) -> None:
    rule, config = LARGE_KEPT[name]
    script = (Until(1, Loads(WORD)), Until(0, SetsPte(HEAD)), ToEnd(1), ToEnd(0))
    made = lab(optimize(0), reader(), script=script, model=without_rule(model, rule), kernel=config)
    made.picker = oldest
    done = made.run()
    assert Verdict.MODEL_ERROR in [f.verdict for f in done.findings if f.where.cpu == 1]
    assert done.model_error


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_with_all_its_rules_no_model_is_caught(model: CpuModel) -> None:
    script = (Until(0, SetsPte(HEAD)), Until(1, Loads(WORD)), ToEnd(0), ToEnd(1))
    made = lab(optimize(0), restore(0), reader(), script=script, model=model)
    made.picker = oldest
    done = made.run()
    assert not done.model_error
    assert not done.findings


# --- the end of a run -----------------------------------------------------------------------------------


def test_a_guest_that_spins_without_pause_is_cut_off() -> None:
    made = lab(guest(0, "again:\n jmp again\n hlt"), cpus=1)
    made.most_steps = 500
    done = made.run()
    assert isinstance(done.outcome, OutOfSteps)
    assert done.outcome.steps == 500
    assert str(done.outcome).startswith("cut off after 500 steps; cpu0 was in guest 0xffffffff81100000: jmp ")
    assert not done.findings


# --- no false alarms ------------------------------------------------------------------------------------


def replay_line(name: str, cpus: int, done: Run) -> str:
    found = "; ".join(f"{f.verdict.value}: {f.cause} ({f.where})" for f in done.findings)
    return f"hvolab run {name} --cpus {cpus} --schedule '{done.schedule}'\n{found}"


HARMLESS = {Verdict.LEGAL, Verdict.EQUIVALENT}


def check_seeds(name: str, cpus: int, seeds: range) -> None:
    setup = scenario(name).build(cpus)
    search = Pct(seeds.start, len(seeds) + 1, depth=4)
    freedoms = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
    search.begin()
    run(setup, lambda _system: search.guide(freedoms))  # PCT takes the length from it
    for _ in seeds:
        assert search.begin()
        done = run(setup, lambda _system: search.guide(freedoms))
        assert isinstance(done.outcome, Completed), replay_line(name, cpus, done)
        assert not done.findings, replay_line(name, cpus, done)
        assert {use.verdict for use in done.uses} <= HARMLESS, replay_line(name, cpus, done)


@pytest.mark.parametrize("cpus", [2, 3])
@pytest.mark.parametrize("name", ["stale-read", "remap"])
def test_upstream_has_no_violation_in_any_order(name: str, cpus: int) -> None:
    check_seeds(name, cpus, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("cpus", [2, 3])
@pytest.mark.parametrize("name", ["stale-read", "flush-begun-before", "remap"])
def test_upstream_has_no_violation_in_many_orders(name: str, cpus: int) -> None:
    check_seeds(name, max(cpus, scenario(name).cpus_min), range(12, 90))


BUSY = """
again:
    mov rax, [rdi + 8]
    mov rbx, [rdi + 4104]
    mov rcx, [rdi + 28680]
    dec rsi
    jne again
    hlt
"""


class AnyOrder:
    """Every choice at random. Finds little, but makes many stale uses."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def pick(self, enabled: list[Choice]) -> Choice:
        return self._random.choice(enabled)

    def answer(self, question: Question) -> int:
        return self._random.randrange(question.options) if isinstance(question, VersionQuestion) else 0

    def finish(self) -> None:
        """Any end is fine."""


def busy_readers(cpus: int, model: CpuModel, seed: int) -> Run:
    """cpu0 optimizes and restores twice; all others read the head and two tails all the time."""
    readers = [guest(cpu, BUSY, "busy", head=int(HEAD), times=40) for cpu in range(1, cpus)]
    made = lab(optimize(0), restore(0), optimize(0), restore(0), *readers, cpus=cpus, model=model)
    made.picker = lambda _lab: AnyOrder(seed)
    return made.run()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_readers_at_work_while_the_kernel_remaps_see_nothing_wrong(model: CpuModel) -> None:
    stale = 0
    for seed in range(3):
        done = busy_readers(3, model, seed)
        assert not done.findings, replay_line("busy readers", 3, done)
        assert {use.verdict for use in done.uses} <= HARMLESS, replay_line("busy readers", 3, done)
        stale += sum(use.times for use in done.uses)
    assert stale > 0, "the test would show nothing"


@pytest.mark.parametrize("model", [SKYLAKE, LAZY], ids=lambda model: model.name)
def test_the_same_readers_find_a_flush_that_leaves_a_cpu_out(model: CpuModel) -> None:
    """That the test above passes says something only if this one does."""
    readers = [guest(cpu, BUSY, "busy", head=int(HEAD), times=40) for cpu in (1, 2)]
    made = lab(optimize(0), restore(0), *readers, cpus=3, model=model, policy=SKIPS_LAST_CPU)
    made.picker = lambda _lab: AnyOrder(0)
    found = made.run().findings
    assert Verdict.MISSED_FLUSH in {finding.verdict for finding in found}
    assert {finding.where.cpu for finding in found} == {2}


def test_a_program_of_ones_own_finds_the_same() -> None:
    """with_program() gives the readers of a scenario another program, and the verdict stays."""
    setup = with_program(
        scenario("missed-cpu").build(2), "mine.S", "mov rax, [rdi]\nnop\nmov rcx, [rdi]\nhlt"
    )
    done = run(setup, lambda system: ScriptPicker(setup.script, system.machine))
    finding = only_finding(done)
    assert finding.verdict is Verdict.MISSED_FLUSH
    assert (finding.where.code, finding.where.instruction) == ("mine.S", "mov rcx, qword ptr [rdi]")
