"""What the kernel of a dump has done before: its split PMDs and its pool, checked and made bootable.

Promised: a layout that is not one of this port's generation, or that contradicts itself, is one `InputError`
line. Not promised: contents of struct pages; the model writes those that such a kernel would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from emu.addr import PAGE_BYTES, Pfn, VirtAddr
from emu.paging.pte import Pte, PteBit
from hvolab.checked.error import InputError
from hvolab.dump import TABLE_FLAGS, Dump, FolioRow, Leaf
from hvolab.dump.compare.generation import Generation, generation_of
from hvolab.dump.compare.roles import Roles, regions_of
from hvolab.dump.flag_words import bits_of
from kernel_model.layout import PMD_SIZE, PTRS_PER_PTE, STRUCT_PAGE_SIZE
from kernel_model.mm.image import HugePage
from kernel_model.mm.inherited import Inherited, SplitPmd

HEAD_FLAGS: Final = "P W A D G NX"
TAIL_FLAGS: Final = "P A G NX"


def inherited_from(layout: Dump, leaves: Sequence[Leaf], pooled: Sequence[HugePage]) -> Inherited:
    """What `layout`, whose leaves these are, has beyond 2 MiB leaves; `pooled` are its folios, in order."""
    if generation_of(layout) not in (None, Generation.HEAD_PAGE):
        raise InputError(f"the dump {layout.state!r} is of another generation than the port of Linux v6.12")
    small = [leaf for leaf in leaves if leaf.level == 1]
    _check_sharing(small, layout.folios)
    return Inherited(
        _tables(layout, small),
        _boot_frames(layout, leaves),
        tuple(pooled),
        frozenset(Pfn(row.pfn) for row in layout.folios if row.optimized),
        layout.counters,
    )


def _tables(layout: Dump, small: Iterable[Leaf]) -> Mapping[VirtAddr, SplitPmd]:
    regions: dict[int, list[Leaf]] = {}
    for leaf in small:
        regions.setdefault(leaf.va - leaf.va % PMD_SIZE, []).append(leaf)
    pmds = {pmd.va: pmd for pmd in layout.pmds if pmd.kind == "split"}
    tables: dict[VirtAddr, SplitPmd] = {}
    for va, found in sorted(regions.items()):
        if len(found) != PTRS_PER_PTE:
            raise InputError(f"page table at va {va:#x} has {len(found)} of {PTRS_PER_PTE} entries")
        if va not in pmds:
            raise InputError(f"page table at va {va:#x}: no split PMD says where it is")
        if pmds[va].flags != TABLE_FLAGS:
            raise InputError(f"pmd {va:#x} has flags {pmds[va].flags!r}; the model has '{TABLE_FLAGS}'")
        pmd = Pte.make(Pfn(pmds[va].pfn), PteBit(bits_of(TABLE_FLAGS, 2)))
        tables[VirtAddr(va)] = SplitPmd(pmd, tuple(_pte(leaf) for leaf in sorted(found, key=_address)))
    return tables


def _address(leaf: Leaf) -> int:
    return leaf.va


def _pte(leaf: Leaf) -> Pte:
    if leaf.flags not in (HEAD_FLAGS, TAIL_FLAGS):
        raise InputError(
            f"leaf {leaf.va:#x} has flags {leaf.flags!r}; the model has '{HEAD_FLAGS}' and '{TAIL_FLAGS}'"
        )
    return Pte.make(Pfn(leaf.pfn), PteBit(bits_of(leaf.flags, 1)))


def _check_sharing(small: Iterable[Leaf], folios: Iterable[FolioRow]) -> None:
    """Read-only and on one frame with the page before are the tails of optimized folios, and nobody else."""
    by_va = {leaf.va: leaf for leaf in small}
    tails: set[int] = set()
    for row in folios:
        if row.optimized:
            pages = range(row.vmemmap, row.vmemmap + (STRUCT_PAGE_SIZE << row.order), PAGE_BYTES)
            head = by_va.get(row.vmemmap)
            for va in pages[1:]:
                tail = by_va.get(va)
                if head is None or tail is None or (tail.pfn, tail.flags) != (head.pfn, TAIL_FLAGS):
                    raise InputError(f"folio {row.pfn:#x} is optimized, but {va:#x} is no tail of its head")
            tails.update(pages[1:])
    rest = [leaf for va, leaf in by_va.items() if va not in tails]
    mapped = Counter(leaf.pfn for leaf in rest)
    for leaf in rest:
        if leaf.flags == TAIL_FLAGS or mapped[leaf.pfn] > 1:
            raise InputError(f"leaf {leaf.va:#x} is shared or read-only, and no tail of an optimized folio")


def _boot_frames(layout: Dump, leaves: Sequence[Leaf]) -> frozenset[Pfn]:
    """Those that memblock gave: still where they were at boot."""
    roles = Roles(regions_of(layout.vmemmap_base, leaves))
    small = (leaf.pfn for leaf in leaves if leaf.level == 1)
    return frozenset(Pfn(pfn) for pfn in small if roles.of_frame(pfn).original is not None)
