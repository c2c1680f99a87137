"""What must hold of huge pages whenever no operation on them is under way, read out of memory.

    I1  no CPU may still use a translation of vmemmap that leads elsewhere than the page table, or allows more
    I2  the same of a head page: all CPUs see one head
    I3  the tails of an optimized folio are read-only and show its head's page; the head alone is writable
    I4  the static key is raised while any folio shows fake heads
    I5  the flag in the head that is mapped says whether the folio is optimized
    I6  the two counters of vmemmap pages say how many frames back vmemmap
    I9  a folio whose tails are missing is hugetlb
    I12 a frame with a memory error is marked in its struct page, or its hugetlb folio's head is

The others of the list in docs/verdicts.md are verdicts over the trace. Nothing here is told by the kernel:
the page tables are walked, the struct pages read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from struct import Struct

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, VirtAddr
from emu.paging.pte import Pte
from emu.paging.tlb import TlbEntry
from hvolab.judge.sight.sight import Sight
from kernel_model.layout import (
    HUGETLB_OPTIMIZE_VMEMMAP_KEY,
    PMD_SIZE,
    PTRS_PER_PTE,
    SECTION_BYTES,
    VMEMMAP_START,
    page_to_pfn,
    pfn_to_page,
)
from kernel_model.mm.hstate import HSTATE_2M, Hstate, hugetlb_vmemmap_size
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import PGTY_HUGETLB, HugetlbFlag, Offset, PageFlag, field, nth_page

_ENTRY = Struct("<Q")


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant does not hold at `va`, on `cpu` where it concerns one; `entry`: what may be used there."""

    va: VirtAddr
    cause: str
    cpu: int = 0
    entry: TlbEntry | None = None


class Invariants:
    """Asks Sight."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    def of(self, folios: Iterable[VirtAddr]) -> Iterator[Breach]:
        """The breaches of those of these folios that are hugetlb. None of them is being worked on."""
        for folio in folios:
            order = self._order(folio)
            if order is not None:
                yield from self._of(HugePage(page_to_pfn(folio), Hstate("", order)))

    def at_rest(self, huge_pages: Sequence[HugePage], failed: Sequence[Pfn]) -> Iterator[Breach]:
        """The breaches anywhere, nothing being under way. `failed`: the frames with memory errors."""
        folios = [folio for huge in huge_pages for folio in self._folios(huge)]
        for huge in folios:
            yield from self._of(huge)
        yield from self._counters()
        yield from self._stale({huge.folio for huge in folios})
        for pfn in failed:
            yield from self._poison(pfn, folios)

    def _folios(self, huge: HugePage) -> Iterator[HugePage]:
        """A huge page as it is now: one that was demoted is several smaller ones."""
        parts = list(self._parts(huge))
        if all(order is None for _, order in parts):
            yield huge
            return
        for first, order in parts:
            yield HugePage(Pfn(huge.pfn + first), Hstate("", order or HSTATE_2M.order))

    def _parts(self, huge: HugePage) -> Iterator[tuple[int, int | None]]:
        """(number of the first page, order) of the hugetlb folios in it; None for 2 MiB in none."""
        first = 0
        while first < huge.hstate.pages_per_huge_page:
            order = self._order(pfn_to_page(huge.pfn + first))
            yield first, order
            first += 1 << (order or HSTATE_2M.order)

    def _order(self, folio: VirtAddr) -> int | None:
        """The order of the hugetlb folio that begins there, if one does."""
        if not self._is_hugetlb(folio):
            return None
        return self._word(field(nth_page(folio, 1), Offset.FLAGS)) & 0xFF

    def _is_hugetlb(self, folio: VirtAddr) -> bool:
        return self._word(field(folio, Offset.PAGE_TYPE)) & 0xFFFF_FFFF == PGTY_HUGETLB

    def _of(self, huge: HugePage) -> Iterator[Breach]:
        pages = [VirtAddr(huge.folio + at) for at in range(0, hugetlb_vmemmap_size(huge.hstate), PAGE_BYTES)]
        walks = [self._sight.walk(page) for page in pages]
        head = walks[0]
        if head is None or len(pages) < 2 or None in walks:
            return
        shown = [walk is not None and walk.pa == head.pa for walk in walks[1:]]
        is_hugetlb = self._is_hugetlb(huge.folio)
        flag = self._word(field(huge.folio, Offset.PRIVATE)) & HugetlbFlag.VMEMMAP_OPTIMIZED
        if not any(shown):
            if is_hugetlb and flag:
                yield Breach(huge.folio, "I5: the head says that the folio is optimized, and it is not")
            return
        for page, walk, same in zip(pages[1:], walks[1:], shown, strict=True):
            if not same:
                yield Breach(page, "I3: a tail page of an optimized folio does not show the head's page")
            elif walk is not None and walk.rights.write:
                yield Breach(page, "I3: a tail page of an optimized folio is writable")
        if not head.rights.write:
            yield Breach(huge.folio, "I3: the head page is not writable")
        if not self._word(HUGETLB_OPTIMIZE_VMEMMAP_KEY):
            yield Breach(huge.folio, "I4: there are fake heads, and the static key is not raised")
        if not is_hugetlb:
            yield Breach(huge.folio, "I9: the tails are missing, and the folio is not hugetlb")
        elif not flag:
            yield Breach(huge.folio, "I5: the folio is optimized, and its head does not say so")

    def _stale(self, heads: Set[VirtAddr]) -> Iterator[Breach]:
        """I1 and I2. What a stale entry allows too little of heals itself with the first fault (R15, L4)."""
        for cpu in self._sight.cpus:
            told: set[TlbEntry] = set()
            for page, entry in self._sight.may_use(cpu):
                if entry in told or not self._leads_elsewhere(page, entry):
                    continue
                told.add(entry)
                name = "I2: the head page" if page in heads else "I1: a page"
                pfn = entry.frame_of(page)
                cause = f"{name} of vmemmap may still be used as pfn {pfn:#x}, with nothing under way"
                yield Breach(page, cause, cpu, entry)

    def _leads_elsewhere(self, page: VirtAddr, entry: TlbEntry) -> bool:
        """Whether the entry is not as good as the page table there."""
        walk = self._sight.walk(page)
        if walk is None or walk.pa >> PAGE_SHIFT != entry.frame_of(page):
            return True
        return entry.rights.write and not walk.rights.write

    def _counters(self) -> Iterator[Breach]:
        """I6, section by section."""
        counted = self._sight.count("nr_memmap_pages") + self._sight.count("nr_memmap_boot_pages")
        frames: set[int] = set()
        for section in range(-(-self._sight.memory_bytes // SECTION_BYTES)):
            walk = self._sight.walk(VirtAddr(VMEMMAP_START + section * PMD_SIZE))
            if walk is not None and walk.size == PMD_SIZE:
                frames.update(range(walk.pfn, walk.pfn + PTRS_PER_PTE))
            elif walk is not None:
                table = self._sight.frame(Pfn(walk.steps[-1].pa >> PAGE_SHIFT))
                entries = (Pte(word) for (word,) in _ENTRY.iter_unpack(table))
                frames.update(entry.pfn for entry in entries if entry.present)
        if counted != len(frames):
            cause = f"I6: {counted} vmemmap pages are counted, {len(frames)} are there"
            yield Breach(VirtAddr(VMEMMAP_START), cause)

    def _poison(self, pfn: Pfn, folios: Sequence[HugePage]) -> Iterator[Breach]:
        page = pfn_to_page(pfn)
        if self._word(field(page, Offset.FLAGS)) & PageFlag.HWPOISON:
            return
        for huge in folios:
            inside = huge.pfn <= pfn < huge.pfn + huge.hstate.pages_per_huge_page
            marked = self._word(field(huge.folio, Offset.FLAGS)) & PageFlag.HWPOISON
            if inside and marked and self._is_hugetlb(huge.folio):
                return
        yield Breach(page, f"I12: the memory error in pfn {pfn:#x} is forgotten: nothing marks it")

    def _word(self, va: VirtAddr) -> int:
        """The 8 bytes there, 0 where nothing is mapped."""
        return self._sight.word(va) or 0
