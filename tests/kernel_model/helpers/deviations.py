"""What each variant and policy does otherwise than upstream: in words, and in which stories."""

from __future__ import annotations

REMAPPED = (
    "optimize",
    "optimize a page in use",
    "optimize, no head page",
    "optimize in a split PMD",
    "optimize hotplugged",
)
NOT_REMAPPED = ("optimize, no page table", "optimize, no memory", "optimize self-hosted")
LISTED = ("optimize a list", "optimize a list, the first is", "optimize a list, and again", "grow")
RESTORED = (
    "restore",
    "restore a list",
    "shrink",
    "shrink, memory for one",
    "shrink after an error",
    "dissolve",
)
FLUSHED = (*REMAPPED, *LISTED, *RESTORED, "roll back", "optimize a list, switched off")
BROADCAST = {
    "on_each_cpu: IpiSent -> flush_tlb_kernel_range: BroadcastSent ...": (
        *REMAPPED,
        "roll back",
        "restore",
        "dissolve",
    ),
    "on_each_cpu: IpiSent -> flush_tlb_all: BroadcastSent ...": (
        *LISTED,
        "optimize a list, switched off",
        "restore a list",
        "shrink",
        "shrink, memory for one",
        "shrink after an error",
    ),
}
SPLIT_FIRST = (
    "optimize",
    "optimize a page in use",
    "optimize, no head page",
    "optimize hotplugged",
    "roll back",
    "optimize a list",
    "grow",
)
NOTHING_LEFT_TO_FLUSH = {
    "flush_tlb_all: FlushBegun -> init: Stored ...": (
        "optimize a list, the first is",
        "optimize a list, switched off",
        "optimize a list, and again",
    ),
}
GENERATION_FIRST = {
    "+ 2 x flush_tlb_kernel_range: Stored, + 2 x flush_tlb_kernel_range: Loaded": (
        "optimize",
        "optimize a page in use",
        "optimize, no head page",
        "optimize hotplugged",
        "roll back",
    ),
    "+ flush_tlb_kernel_range: Stored, + flush_tlb_kernel_range: Loaded": (
        "optimize in a split PMD",
        "restore",
        "dissolve",
    ),
    "flush_tlb_all: FlushBegun -> flush_tlb_all: Stored ...": (*LISTED, "optimize a list, switched off"),
    "+ flush_tlb_all: Stored, + flush_tlb_all: Loaded": (
        "restore a list",
        "shrink",
        "shrink, memory for one",
        "shrink after an error",
    ),
}
BROKEN_FIRST = {
    "pmd_populate_kernel: Stored -> pmd_clear: Stored ...": SPLIT_FIRST,
    "set_pte_at: Stored -> pte_clear: Stored ...": ("optimize in a split PMD", *RESTORED),
    **NOTHING_LEFT_TO_FLUSH,
}
STOPPED_FIRST = {
    "pmd_populate_kernel: Stored -> stop: IpiSent ...": SPLIT_FIRST,
    "set_pte_at: Stored -> stop: IpiSent ...": ("optimize in a split PMD", *RESTORED),
    **NOTHING_LEFT_TO_FLUSH,
}
HELD = {
    "flush_tlb_kernel_range: FlushBegun -> flush_tlb_kernel_range: Stored ...": (
        *REMAPPED,
        "roll back",
        "restore",
        "dissolve",
    ),
    "free_vmemmap_page_list: Loaded -> hugetlb_vmemmap_optimize_folio: Loaded ...": (
        "optimize what is",
        "optimize, switched off",
        "optimize, no page table",
        "optimize, no memory",
        "optimize self-hosted",
    ),
    "flush_tlb_all: FlushBegun -> flush_tlb_all: Stored ...": (
        *LISTED,
        "optimize a list, switched off",
        "restore a list",
        "shrink",
        "shrink, memory for one",
        "shrink after an error",
    ),
}
OWED_FIRST = {
    "pmd_populate_kernel: Stored -> vmemmap_split_pmd: Loaded ...": SPLIT_FIRST,
    "set_pte_at: Stored -> vmemmap_remap_pte: Loaded ...": ("optimize in a split PMD",),
    "set_pte_at: Stored -> vmemmap_restore_pte: Loaded ...": RESTORED,
}
AGED_FIRST = {
    "pmd_populate_kernel: Stored -> vmemmap_split_pmd: Stored ...": SPLIT_FIRST,
    "set_pte_at: Stored -> vmemmap_remap_pte: Stored ...": ("optimize in a split PMD",),
    "set_pte_at: Stored -> vmemmap_restore_pte: Stored ...": RESTORED,
}
NOTHING_OWED = {
    "flush_tlb_all: FlushBegun -> flush_tlb_all: Loaded ...": (
        "optimize a list, the first is",
        "optimize a list, switched off",
        "optimize a list, and again",
    ),
}
DEVIATIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "upstream": {},
    "flush-all-no-op": {
        "on_each_cpu: IpiSent -> flush_tlb_all: FlushCompleted ...": (
            *LISTED,
            "optimize a list, switched off",
            "restore a list",
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
        ),
    },
    "flag-after-remap": {
        "in another order": (*REMAPPED, "optimize a list", "optimize a list, the first is", "grow"),
        "- folio_set_optimized: Stored, - folio_clear_optimized: Stored": (
            *NOT_REMAPPED,
            "roll back",
            "optimize a list, and again",
        ),
    },
    "no-rcu-wait": {
        "- synchronize_rcu: GracePeriodBegun, - synchronize_rcu: GracePeriodEnded": (
            *REMAPPED,
            *NOT_REMAPPED,
            "roll back",
            "optimize a list",
            "optimize a list, and again",
            "grow",
        ),
    },
    "split-without-recheck": {
        "- entry_get: Loaded": (
            "optimize",
            "optimize a page in use",
            "optimize, no head page",
            "optimize hotplugged",
            "roll back",
            "optimize a list",
            "grow",
        ),
        "- 2 x entry_get: Loaded": ("optimize a list, and again",),
    },
    "split-head-unlocked": {
        "+ entry_get: Loaded": (
            "optimize",
            "optimize a page in use",
            "optimize, no head page",
            "optimize, no page table",
            "optimize, no memory",
            "optimize hotplugged",
            "optimize a list",
            "grow",
        ),
        "+ 2 x entry_get: Loaded": ("roll back",),
        "+ 4 x entry_get: Loaded": ("optimize a list, and again",),
    },
    "free-before-flush": {
        "+ 2 x init: Stored, + free_vmemmap_page_list: Loaded": (*REMAPPED,),
    },
    "type-set-late": {
        "+ 2 x folio_clear_hugetlb: Stored, + 2 x warn: KernelWarning": ("grow",),
    },
    "type-cleared-early": {
        "- 2 x folio_test_optimized: Loaded, + 2 x folio_clear_hugetlb: Stored, + 2 x warn: KernelWarning": (
            "shrink",
            "shrink after an error",
        ),
        "- 2 x folio_test_optimized: Loaded": ("shrink, switched off before",),
        "- 2 x folio_test_optimized: Loaded, + 2 x folio_clear_hugetlb: Stored, + 3 x warn: KernelWarning": (
            "shrink, no memory",
        ),
        "- 2 x folio_test_optimized: Loaded, + 2 x folio_clear_hugetlb: Stored, + 4 x warn: KernelWarning": (
            "shrink, memory for one",
        ),
        "- folio_test_optimized: Loaded, + warn: KernelWarning": ("dissolve",),
        "folio_test_optimized: Loaded -> folio_clear_hugetlb: Stored ...": ("dissolve, no memory",),
    },
    "hwpoison-before-type": {
        "in another order": (
            "shrink",
            "shrink, switched off before",
            "shrink, memory for one",
            "shrink after an error",
            "dissolve",
        ),
    },
    "rollback-from-template": {
        "+ entry_get: Loaded, + vmemmap_pte_entry: Copied": ("roll back",),
    },
    "rollback-not-lifo": {
        "other values": ("roll back",),
    },
    "reset-too-small": {
        "other values": ("roll back", "restore", "restore a list"),
        "- 2 x free_pages: PageFreed, - 7 x write_back: Filled, + 2 x free_pages: BadPage": (
            "shrink",
            "shrink after an error",
        ),
        "- free_pages: PageFreed, - 2 x write_back: Filled, + free_pages: BadPage": (
            "shrink, memory for one",
            "dissolve",
        ),
    },
    "key-after-remap": {
        "in another order": (*REMAPPED, "optimize a list", "optimize a list, the first is", "grow"),
        "static_branch_inc: Stored -> synchronize_rcu: GracePeriodBegun ...": (*NOT_REMAPPED, "roll back"),
        "- static_branch_inc: Stored, - static_branch_dec: Stored": ("optimize a list, and again",),
    },
    "key-lowered-before-flush": {
        "in another order": ("restore", "dissolve"),
    },
    "write-protect-too-short": {
        "other values": (*REMAPPED, *LISTED),
    },
    "tails-writable": {
        "other values": (*REMAPPED, *LISTED, "roll back"),
    },
    "flush-after-reuse": {
        "other values": (*REMAPPED, "roll back", "restore", "dissolve"),
    },
    "flags-and": {
        "folio_set_optimized: Stored -> synchronize_rcu: GracePeriodBegun ...": (*LISTED,),
    },
    "local-only": {
        "- 2 x IpiTaken, - 2 x IpiAcknowledged, - 2 x Invalidated": (
            "optimize",
            "optimize a page in use",
            "optimize, no head page",
            "optimize hotplugged",
            "roll back",
        ),
        "- Invalidated, - IpiTaken, - IpiAcknowledged": (
            "optimize in a split PMD",
            "restore",
            "shrink, memory for one",
            "dissolve",
        ),
        "- 2 x Invalidated, - 2 x IpiTaken, - 2 x IpiAcknowledged": (
            "optimize a list",
            "optimize a list, the first is",
            "optimize a list, switched off",
            "grow",
        ),
        "- 5 x Invalidated, - 5 x IpiTaken, - 5 x IpiAcknowledged": ("optimize a list, and again",),
        "- IpiTaken, - IpiAcknowledged, - Invalidated": ("restore a list", "shrink", "shrink after an error"),
    },
    "skips-idle": {
        "flush_tlb_kernel_range: FlushBegun -> flush_tlb_kernel_range: Loaded ...": (
            *REMAPPED,
            "roll back",
            "restore",
            "dissolve",
        ),
        "flush_tlb_all: FlushBegun -> flush_tlb_all: Loaded ...": (
            *LISTED,
            "optimize a list, switched off",
            "restore a list",
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
        ),
    },
    "skips-last-cpu": {
        "- 2 x IpiTaken, - 2 x IpiAcknowledged, - 2 x Invalidated": (
            "optimize",
            "optimize a page in use",
            "optimize, no head page",
            "optimize hotplugged",
            "roll back",
        ),
        "- Invalidated, - IpiTaken, - IpiAcknowledged": (
            "optimize in a split PMD",
            "restore",
            "shrink, memory for one",
            "dissolve",
        ),
        "- 2 x Invalidated, - 2 x IpiTaken, - 2 x IpiAcknowledged": (
            "optimize a list",
            "optimize a list, the first is",
            "optimize a list, switched off",
            "grow",
        ),
        "- 5 x Invalidated, - 5 x IpiTaken, - 5 x IpiAcknowledged": ("optimize a list, and again",),
        "- IpiTaken, - IpiAcknowledged, - Invalidated": ("restore a list", "shrink", "shrink after an error"),
    },
    "never": {
        "on_each_cpu: IpiSent -> flush_tlb_kernel_range: FlushCompleted ...": (
            *REMAPPED,
            "roll back",
            "restore",
            "dissolve",
        ),
        "on_each_cpu: IpiSent -> flush_tlb_all: FlushCompleted ...": (
            *LISTED,
            "optimize a list, switched off",
            "restore a list",
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
        ),
    },
    "no-wait": {"in another order": FLUSHED},
    "early-ack": {"in another order": FLUSHED},
    # Everything is flushed, after whatever is freed and where there is nothing to free.
    "release-before-flush": {
        "flush_tlb_kernel_range: FlushBegun -> free_vmemmap_page_list: Loaded ...": (*REMAPPED,),
        "hugetlb_vmemmap_optimize_folio: OperationReturned -> "
        "hugetlb_vmemmap_optimize_folio: FlushBegun ...": (
            "optimize what is",
            "optimize, switched off",
            *NOT_REMAPPED,
            "roll back",
        ),
        "in another order": (*LISTED, "optimize a list, switched off"),
    },
    "full": {"other values": (*REMAPPED, "restore", "dissolve")},
    **dict.fromkeys(("skip-switching", "skip-switching-late"), GENERATION_FIRST),
    **dict.fromkeys(("stop-machine", "pause-remote"), STOPPED_FIRST),
    **dict.fromkeys(("bbm", "bbm-unlocked-look", "bbm-by-interrupt"), BROKEN_FIRST),
    "invlpgb": BROADCAST,
    "invlpgb-no-tlbsync": BROADCAST,
    "ideal": {
        "flush_tlb_kernel_range: FlushBegun -> entry_get: Loaded ...": (
            "optimize",
            "optimize a page in use",
            "optimize, no head page",
            "optimize hotplugged",
            "roll back",
        ),
        "flush_tlb_kernel_range: FlushBegun -> free_vmemmap_page_list: Loaded ...": (
            "optimize in a split PMD",
        ),
        "flush_tlb_kernel_range: FlushBegun -> folio_clear_optimized: Stored ...": ("restore", "dissolve"),
        "flush_tlb_all: FlushBegun -> init: Stored ...": (*LISTED, "optimize a list, switched off"),
        "flush_tlb_all: FlushBegun -> hugetlb_vmemmap_restore_folios: OperationReturned ...": (
            "restore a list",
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
        ),
    },
    "abis": OWED_FIRST | NOTHING_OWED,
    "abis-kernel": AGED_FIRST | NOTHING_OWED,
    "af-bbm": AGED_FIRST | NOTHING_LEFT_TO_FLUSH,
    "latr": HELD,
    "latr-short": HELD,
    "per-folio": {
        "hugetlb_vmemmap_optimize_folios: Loaded -> vmemmap_split_pmd: FlushBegun ...": (
            "optimize a list",
            "grow",
        ),
        "flush_tlb_all: FlushBegun -> init: Stored ...": (
            "optimize a list, the first is",
            "optimize a list, switched off",
            "optimize a list, and again",
        ),
        "folio_clear_optimized: Stored -> vmemmap_remap_range: FlushBegun ...": (
            "restore a list",
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
        ),
    },
    "no-flush-after-remap": {
        "flush_tlb_kernel_range: FlushBegun -> free_vmemmap_page_list: Loaded ...": (*REMAPPED,),
    },
    "frees-without-unmapping": {
        "- 7 x set_pte_at: Stored": (*REMAPPED, "optimize a list, the first is"),
        "set_pte_at: Stored -> entry_get: Loaded ...": ("roll back",),
        "- 14 x set_pte_at: Stored": ("optimize a list", "optimize a list, and again", "grow"),
    },
    "split-read-only": {
        "delete: Stored -> Invalidated ...": (
            "optimize",
            "optimize a page in use",
            "optimize hotplugged",
            "optimize a list, and again",
        ),
        "add: Stored -> Invalidated ...": ("optimize, no head page",),
        "other values": ("roll back",),
        "folio_set_optimized: Stored -> Invalidated ...": ("optimize a list", "grow"),
    },
    "no-split-page": {
        "split_page: Stored -> pmd_populate_kernel: Stored ...": ("optimize hotplugged",),
    },
    "restore-without-copy": {
        "- 511 x vmemmap_restore_pte: Copied, - 511 x reset_struct_pages: Copied": ("roll back",),
        "- 7 x vmemmap_restore_pte: Copied, - 7 x reset_struct_pages: Copied": ("restore",),
        "- 14 x vmemmap_restore_pte: Copied, - 14 x reset_struct_pages: Copied": ("restore a list",),
        "vmemmap_restore_pte: Copied -> set_pte_at: Stored ...": (
            "shrink",
            "shrink, memory for one",
            "shrink after an error",
            "dissolve",
        ),
    },
    "restore-maps-before-copy": {
        "in another order": (*RESTORED, "roll back"),
    },
    "one-page-too-few": {
        "alloc_page: Loaded -> entry_get: Loaded ...": (*RESTORED,),
        "alloc_page: AllocationFailed -> entry_get: Loaded ...": ("restore a list, no memory",),
    },
    "head-mapped-before-copy": {
        "- vmemmap_remap_free: Copied, + vmemmap_remap_pte: Copied": (
            "optimize",
            "optimize a page in use",
            "optimize in a split PMD",
            "optimize hotplugged",
            "roll back",
            "optimize a list, the first is",
        ),
        "- vmemmap_remap_free: Copied": ("optimize, no page table", "optimize self-hosted"),
        "- 2 x vmemmap_remap_free: Copied, + 2 x vmemmap_remap_pte: Copied": ("optimize a list", "grow"),
        "- 3 x vmemmap_remap_free: Copied, + 2 x vmemmap_remap_pte: Copied": ("optimize a list, and again",),
    },
    "no-smp-wmb": {},
    "surplus-loses-flag": {
        "- 2 x folio_set_optimized: Stored": ("shrink, no memory",),
        "- folio_set_optimized: Stored": ("shrink, memory for one", "dissolve, no memory"),
    },
    "freed-stays-listed": {
        "delete: Loaded -> folio_clear_hugetlb: Stored ...": ("shrink, memory for one",),
    },
}
