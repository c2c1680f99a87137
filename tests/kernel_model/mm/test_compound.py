"""Blocks made into compound pages, and taken apart again."""

from __future__ import annotations

from hvo_lab import Lab
from hvo_pool import POOLED

from kernel_model.layout import pfn_to_page
from kernel_model.mm.compound import prep_compound_page, split_compound_page

POISON = 1 << 20


def test_an_error_reported_after_the_allocator_looked_is_not_wiped_by_making_a_huge_page() -> None:
    """prep_compound_tail() leaves the flags alone, also where demotion takes a page apart."""
    lab = Lab(POOLED)
    raw = 0x3000 + 100
    lab.call(lambda: lab.kernel.raw.memory_failure(pfn_to_page(raw)))
    lab.call(lambda: prep_compound_page(pfn_to_page(0x3000), 9))
    assert lab.struct_page(raw).flags & POISON
    lab.call(lambda: split_compound_page(pfn_to_page(0x3000), 8))
    assert lab.struct_page(raw).flags & POISON
    assert not lab.struct_page(raw + 1).flags & POISON
