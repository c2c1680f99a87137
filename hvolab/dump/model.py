"""What a dump of the vmemmap page tables is, as values. `hvolab.dump` is the module to import from.

A dump is one moment of one machine: the leaves of the vmemmap page tables, one row per 2 MiB of
vmemmap, one row per hugetlb folio, the struct pages of some blocks, and two memory counters.
docs/dump-format.md has it field by field.

Promised: rows are frozen, and equal when their fields are. Not promised: that the rows of one `Dump`
agree with each other; a dump says what was found, and what was found may be broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

PAGE_SIZE: Final = 4096
"""Bytes in a base page."""
PMD_SIZE: Final = 2 << 20
"""Bytes of address space one PMD entry maps."""
PTES_PER_TABLE: Final = PMD_SIZE // PAGE_SIZE
"""Entries in one page table; also base pages in a 2 MiB leaf."""
STRUCT_PAGE_SIZE: Final = 64
"""Bytes in a struct page; the format knows no other size."""
RAM_PER_PMD: Final = PMD_SIZE // STRUCT_PAGE_SIZE * PAGE_SIZE
"""Bytes of RAM whose struct pages fill one PMD entry (128 MiB)."""

TABLE_FLAGS: Final = "P W U A D"
"""Flags of the PMD entry that Linux installs when it splits a 2 MiB leaf (_PAGE_TABLE, then walked)."""
COUNTERS: Final = ("nr_memmap_pages", "nr_memmap_boot_pages")
"""The /proc/vmstat lines a dump keeps, both in base pages."""
HPG_VMEMMAP_OPTIMIZED: Final = 1 << 4
"""The bit of a hugetlb folio's `private` word that HVO sets."""

PmdKind: TypeAlias = Literal["2M leaf", "split", "absent"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One present leaf entry: `va` in bytes, `level` 2 (2 MiB) or 1 (4 KiB), `pfn` of its first frame."""

    va: int
    level: int
    pfn: int
    flags: str


@dataclass(frozen=True, slots=True)
class Pmd:
    """One PMD entry: 2 MiB of vmemmap, the struct pages of 128 MiB of RAM.

    `va` is in bytes. `pfn` is the leaf's first frame, the page-table page when split, 0 when absent.
    `ram` is the range of RAM described, in bytes, as text ("0x0-0x8000000"). `hugetlb_folios` counts the
    folios whose head struct page lies here. The last three fields are None unless `kind` is "split":
    present PTEs per flags text, distinct frames among them, frames mapped by exactly eight of them.
    """

    va: int
    kind: PmdKind
    pfn: int
    flags: str
    ram: str
    hugetlb_folios: int
    pte_flags: Mapping[str, int] | None = None
    distinct_frames: int | None = None
    frames_mapped_8x: int | None = None


@dataclass(frozen=True, slots=True)
class FolioRow:
    """One hugetlb folio of 2**`order` pages starting at `pfn`.

    `vmemmap` is the address in bytes of its head struct page. `private`, `flags`, `refcount` and
    `page_type` are that struct's words; `optimized` is bit 4 of `private`.

    How its struct pages are mapped: either `mapped_by` names it ("PMD leaf", "absent") and the rest is
    None, or `head_frame` (pfn) and `head_flags` are those of its first PTE and the tail fields count the
    others: PTEs, distinct frames, PTEs on the head's frame, PTEs per flags text.
    """

    pfn: int
    order: int
    vmemmap: int
    optimized: bool
    private: int
    flags: int
    refcount: int
    page_type: int
    mapped_by: str | None = None
    head_frame: int | None = None
    head_flags: str | None = None
    tail_ptes: int | None = None
    tail_distinct_frames: int | None = None
    tail_same_as_head: int | None = None
    tail_flags: Mapping[str, int] | None = None


MAX_BLOCK_ORDER: Final = 18
"""The largest block of struct pages a dump may have: a 1 GiB folio's."""
WORDS: Final = ("flags", "lru.next", "lru.prev", "mapping", "index", "private", "page_type", "memcg_data")
"""The words of a struct page that a row holds as text, in this order; `refcount` is a number beside them.

Named after their meaning in a head; a tail has `compound_head` in the place of `lru.next`. `page_type` has 32
bits, all others 64.
"""


@dataclass(frozen=True, slots=True)
class StructRun:
    """`count` struct pages of a block from number `number` on, all with the same words.

    A word is a hex text, or `self+0xN`: the address of the struct page it is in, plus N < 64; or `page0+0xN`:
    the same of the struct page with this one's place in the block's first page of vmemmap.
    """

    number: int
    count: int
    words: tuple[str, ...]
    refcount: int


@dataclass(frozen=True, slots=True)
class StructBlock:
    """The struct pages of 2**`order` frames from `pfn` on, as they are read through vmemmap.

    A page of vmemmap that maps the frame of an earlier page of the block shows the same bytes, and has no
    rows.
    """

    pfn: int
    order: int
    rows: tuple[StructRun, ...]


@dataclass(frozen=True, slots=True)
class Dump:
    """One dump. `ram_mb` is in MiB, `vmemmap_base` in bytes; `kernel`, `state`, `cmdline` are labels.

    `leaves` is None when only the counts of each PMD were taken, which differs from () (nothing mapped).
    `counters` holds those of `COUNTERS` that were taken, in pages. `struct_blocks` are those that were taken.
    """

    kernel: str
    state: str
    ram_mb: int
    vmemmap_base: int
    pmds: tuple[Pmd, ...]
    folios: tuple[FolioRow, ...]
    leaves: tuple[Leaf, ...] | None
    counters: Mapping[str, int]
    cmdline: str = ""
    struct_blocks: tuple[StructBlock, ...] = ()
