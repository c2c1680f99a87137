"""What a kernel has done before time zero: page tables, and folios in the pool, read out of a running one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from emu.addr import Pfn, VirtAddr
from emu.paging.pte import Pte
from kernel_model.mm.image import HugePage


@dataclass(frozen=True, slots=True)
class SplitPmd:
    """2 MiB of vmemmap that a page table maps: the PMD entry that points to it, and its 512 PTEs."""

    pmd: Pte
    ptes: tuple[Pte, ...]


@dataclass(frozen=True, slots=True)
class Inherited:
    """A machine that has run for a while; without arguments, one that has not.

    `tables`: by address. `boot_frames`: those frames of their PTEs that memblock gave; the others came from
    the page allocator. `pooled`: the folios in the pool, in the order of its free lists; `optimized`: the
    first frames of those that are. `counters`, in pages: what is not named is counted.
    """

    tables: Mapping[VirtAddr, SplitPmd] = field(default_factory=dict)
    boot_frames: frozenset[Pfn] = frozenset()
    pooled: tuple[HugePage, ...] = ()
    optimized: frozenset[Pfn] = frozenset()
    counters: Mapping[str, int] = field(default_factory=dict)

    def frames(self) -> frozenset[Pfn]:
        """The frames that the PTEs map."""
        return frozenset(pte.pfn for table in self.tables.values() for pte in table.ptes)

    def table_frames(self) -> Iterator[Pfn]:
        """The frames that the page tables are in."""
        return (table.pmd.pfn for table in self.tables.values())
