"""All variants, by name."""

from __future__ import annotations

from kernel_model.core.history import History
from kernel_model.variants.named import UPSTREAM_HVO, Effect, NamedVariant
from kernel_model.variants.pool import (
    FreedStaysListed,
    HwpoisonBeforeType,
    SurplusLosesFlag,
    TypeClearedEarly,
    TypeSetLate,
)
from kernel_model.variants.remap import (
    FlagAfterRemap,
    FlagsAnd,
    FlushAfterReuse,
    FreeBeforeFlush,
    FreesWithoutUnmapping,
    HeadMappedBeforeCopy,
    KeyAfterRemap,
    NoFlushAfterRemap,
    NoRcuWait,
    WritableTails,
    WriteProtectTooShort,
)
from kernel_model.variants.restore import (
    KeyLoweredBeforeFlush,
    OnePageTooFew,
    ResetTooSmall,
    RestoreMapsBeforeCopy,
    RestoreWithoutCopy,
    RollbackFirstInFirstOut,
    RollbackFromTemplate,
)
from kernel_model.variants.split import SplitHeadUnlocked, SplitReadOnly, SplitsNoBlock, SplitWithoutRecheck

FREE_BEFORE_FLUSH = NamedVariant(
    "free-before-flush", "a folio's vmemmap pages are freed before its flush", FreeBeforeFlush
)
FLAG_AFTER_REMAP = NamedVariant(
    "flag-after-remap",
    "the folio's flag is set when the remap is over, the flush still to come",
    FlagAfterRemap,
    history=History(
        "f13b83fdd996",
        "hugetlb: batch TLB flushes when freeing vmemmap (found while it was written)",
        "v6.7",
        "the flag went to the page that was replaced: an optimized folio that nobody restores",
    ),
)
NO_RCU_WAIT = NamedVariant(
    "no-rcu-wait",
    "no synchronize_rcu() between the freeze of the count and the remap",
    NoRcuWait,
    history=History(
        "bd225530a4c7",
        "mm/hugetlb_vmemmap: fix race with speculative PFN walkers",
        "v6.10",
        "an atomic add to a read-only tail: a kernel write fault in vmemmap",
    ),
)
SPLIT_WITHOUT_RECHECK = NamedVariant(
    "split-without-recheck",
    "a PMD is split without looking again, under the lock, whether it still is a leaf",
    SplitWithoutRecheck,
)
SPLIT_HEAD_UNLOCKED = NamedVariant(
    "split-head-unlocked",
    "which block a leaf maps is read after the lock has been let go",
    SplitHeadUnlocked,
    effect=Effect.NONE,
    history=History(
        "3ce2c24cb68f",
        "mm: hugetlb_vmemmap: fix a race between vmemmap pmd split",
        "v6.6",
        "512 PTEs made of a page table's page: thrown away again, but a crash with CONFIG_PAGE_TABLE_CHECK",
    ),
)
TYPE_SET_LATE = NamedVariant(
    "type-set-late",
    "the hugetlb type is set when HVO is done",
    build_pool=TypeSetLate,
    history=History(
        "d8f5f7e445f0",
        "hugetlb: set hugetlb page flag before optimizing vmemmap",
        "v6.7",
        "memory failure takes the folio for an ordinary one and writes to a tail that is read-only",
    ),
)
TYPE_CLEARED_EARLY = NamedVariant(
    "type-cleared-early",
    "the hugetlb type goes before the vmemmap is back",
    build_pool=TypeClearedEarly,
    history=History(
        "32c877191e02",
        "hugetlb: do not clear hugetlb dtor until allocating vmemmap",
        "v6.6",
        "memory failure writes to struct pages that are not there",
    ),
)
HWPOISON_BEFORE_TYPE = NamedVariant(
    "hwpoison-before-type",
    "errors move to the raw pages before the type is cleared",
    build_pool=HwpoisonBeforeType,
    history=History(
        "5596d9e8b553",
        "mm/hugetlb: fix potential race in __update_and_free_hugetlb_folio()",
        "v6.11",
        "an error that comes in between is forgotten: a poisoned page reaches the free lists",
    ),
)
SURPLUS_LOSES_FLAG = NamedVariant(
    "surplus-loses-flag",
    "a folio that could not be restored goes back to the pool without the flag that says so",
    build_pool=SurplusLosesFlag,
)
FREED_STAYS_LISTED = NamedVariant(
    "freed-stays-listed",
    "folios freed to pay for the others of a list stay on it",
    build_pool=FreedStaysListed,
)
ROLLBACK_FROM_TEMPLATE = NamedVariant(
    "rollback-from-template",
    "rolling back makes tails of the head page too",
    RollbackFromTemplate,
    history=History(
        "c7bde43f6daf",
        "fix incorrect vmemmap restore in rollback",
        "v7.1",
        "after -ENOMEM in the middle the head struct page is gone",
    ),
)
ROLLBACK_NOT_LIFO = NamedVariant(
    "rollback-not-lifo",
    "rolling back takes the pages in the order in which they were taken out",
    RollbackFirstInFirstOut,
)
RESET_TOO_SMALL = NamedVariant(
    "reset-too-small",
    "two struct pages of a restored page are overwritten where three carry other metadata",
    ResetTooSmall,
    history=History(
        "274fe92de2c4",
        "mm, hugetlb: increment the number of pages to be reset on HVO",
        "v6.15",
        "bad page state when the folio is freed: corrupted mapping in tail page",
    ),
)
KEY_AFTER_REMAP = NamedVariant(
    "key-after-remap", "the static key is raised when the remap is over", KeyAfterRemap
)
KEY_BEFORE_FLUSH = NamedVariant(
    "key-lowered-before-flush",
    "restoring one folio lowers the key before the flush",
    KeyLoweredBeforeFlush,
)
WRITE_PROTECT_TOO_SHORT = NamedVariant(
    "write-protect-too-short",
    "the last tail page stays writable",
    WriteProtectTooShort,
    history=History(
        "6e25c6a9c7ef",
        "mm: fix __hugetlb_vmemmap_optimize_folios()",
        "after v7.1",
        "a range in structs instead of bytes: part of the shared tail stays writable, unnoticed",
    ),
)
TAILS_WRITABLE = NamedVariant("tails-writable", "tails are mapped writable", WritableTails)
FLUSH_AFTER_REUSE = NamedVariant(
    "flush-after-reuse", "the flushed range begins behind the head page", FlushAfterReuse
)
FLAGS_AND = NamedVariant(
    "flags-and",
    "flags &= SYNCHRONIZE_RCU where flags &= ~SYNCHRONIZE_RCU is meant",
    FlagsAnd,
    effect=Effect.COST,
    history=History(
        "c2a967f6ab0e",
        "mm/hugetlb_vmemmap: don't synchronize_rcu() without HVO (a draft of it)",
        "v6.11",
        "an RCU wait and a flush for every folio of a batch but the first",
    ),
)
NO_FLUSH_AFTER_REMAP = NamedVariant("no-flush-after-remap", "the remap is not flushed", NoFlushAfterRemap)
FREES_WITHOUT_UNMAPPING = NamedVariant(
    "frees-without-unmapping", "tail pages are freed and stay mapped", FreesWithoutUnmapping
)
SPLIT_READ_ONLY = NamedVariant(
    "split-read-only", "the page table that replaces a leaf is read-only", SplitReadOnly
)
NO_SPLIT_PAGE = NamedVariant("no-split-page", "a hotplugged block is not made single pages of", SplitsNoBlock)
RESTORE_WITHOUT_COPY = NamedVariant(
    "restore-without-copy", "a restored page keeps whatever was in it", RestoreWithoutCopy
)
RESTORE_MAPS_BEFORE_COPY = NamedVariant(
    "restore-maps-before-copy", "a restored page is mapped before it is filled", RestoreMapsBeforeCopy
)
ONE_PAGE_TOO_FEW = NamedVariant("one-page-too-few", "restore allocates one page less", OnePageTooFew)
HEAD_MAPPED_BEFORE_COPY = NamedVariant(
    "head-mapped-before-copy", "the new head page is mapped before it is filled", HeadMappedBeforeCopy
)
NO_SMP_WMB = NamedVariant(
    "no-smp-wmb",
    "no write barrier between a table's or page's contents and the entry that shows them",
    effect=Effect.FREEDOM,
    history=History(
        "939de63d35dd",
        "mm: hugetlb_vmemmap: add missing smp_wmb() before set_pte_at()",
        "v6.1",
        "on weakly ordered CPUs a struct page's old contents through its new entry; never reported",
    ),
)

VARIANTS: tuple[NamedVariant, ...] = (
    UPSTREAM_HVO,
    FLAG_AFTER_REMAP,
    NO_RCU_WAIT,
    SPLIT_WITHOUT_RECHECK,
    SPLIT_HEAD_UNLOCKED,
    FREE_BEFORE_FLUSH,
    TYPE_SET_LATE,
    TYPE_CLEARED_EARLY,
    HWPOISON_BEFORE_TYPE,
    ROLLBACK_FROM_TEMPLATE,
    ROLLBACK_NOT_LIFO,
    RESET_TOO_SMALL,
    KEY_AFTER_REMAP,
    KEY_BEFORE_FLUSH,
    WRITE_PROTECT_TOO_SHORT,
    TAILS_WRITABLE,
    FLUSH_AFTER_REUSE,
    FLAGS_AND,
    NO_FLUSH_AFTER_REMAP,
    FREES_WITHOUT_UNMAPPING,
    SPLIT_READ_ONLY,
    NO_SPLIT_PAGE,
    RESTORE_WITHOUT_COPY,
    RESTORE_MAPS_BEFORE_COPY,
    ONE_PAGE_TOO_FEW,
    HEAD_MAPPED_BEFORE_COPY,
    NO_SMP_WMB,
    SURPLUS_LOSES_FLAG,
    FREED_STAYS_LISTED,
)
