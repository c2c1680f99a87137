"""Where `mm/hugetlb_vmemmap.c` changes page tables, and where it flushes."""

from __future__ import annotations

from enum import Enum


class FlushSite(Enum):
    """A place in the file, by its function. Of a batch it changes page tables first, and flushes later."""

    SPLIT = "vmemmap_split_pmd"
    REMAP = "vmemmap_remap_range, optimizing"
    RESTORE = "vmemmap_remap_range, restoring"
    SPLIT_OF_BATCH = "vmemmap_split_pmd, of a batch"
    REMAP_OF_BATCH = "vmemmap_remap_range, optimizing a batch"
    RESTORE_OF_BATCH = "vmemmap_remap_range, restoring a batch"
    BATCH_SPLIT = "hugetlb_vmemmap_optimize_folios, all split"
    BATCH_SHORT = "hugetlb_vmemmap_optimize_folios, out of memory"
    BATCH_REMAPPED = "hugetlb_vmemmap_optimize_folios, all remapped"
    BATCH_RESTORED = "hugetlb_vmemmap_restore_folios, all restored"
    ELSEWHERE = "not in the file"

    @property
    def defers(self) -> bool:
        """Whether the file changes page tables there and flushes later, for all of the batch at once."""
        return self in _DEFERRING


_DEFERRING = frozenset({FlushSite.SPLIT_OF_BATCH, FlushSite.REMAP_OF_BATCH, FlushSite.RESTORE_OF_BATCH})
