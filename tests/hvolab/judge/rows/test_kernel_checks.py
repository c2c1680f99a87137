"""What the kernel itself complains of, and deadlocks: row 8."""

from __future__ import annotations

from judge_lab import HEAD, Lab, SilentFlush, lab, only_finding, reader

from emu.addr import VirtAddr
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import Await, Store
from hvolab.catalog.common import optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.outcome import Deadlocked
from kernel_model.boot import Kernel
from kernel_model.core.lists import LIST_POISON1
from kernel_model.flush.policy import NamedPolicy, Ticket
from kernel_model.mm.page import PageFlag

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

    async def rely(self, ticket: Ticket) -> None:
        del ticket
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
