"""Where things are."""

from __future__ import annotations

from hvo_lab import (
    DIRECT_MAP,
    KEY,
    MIB,
    PAGE,
    SECTION,
    VMEMMAP,
    Lab,
    huge_2m,
    pages_of,
)

from kernel_model.boot import BootConfig
from kernel_model.layout import PerCpu, direct_map, page_to_pfn, page_to_virt, pfn_to_page
from kernel_model.mm.page import lru, nth_page, page_of_lru


def test_per_cpu_pages_of_256_cpus_fit_before_the_globals() -> None:
    first, last = PerCpu(0), PerCpu(255)
    assert first.rcu_nesting == DIRECT_MAP + 4 * MIB
    assert (first.buffer, first.stack) == (first.rcu_nesting + 2048, first.rcu_nesting + PAGE)
    assert last.stack + PAGE == KEY
    lab = Lab(BootConfig(SECTION, 256, ()))
    assert {lab.word_at(PerCpu(cpu).rcu_nesting) for cpu in range(256)} == {0}


def test_addresses_of_struct_pages_and_frames() -> None:
    assert pfn_to_page(0x4000) == VMEMMAP + 0x10_0000 == huge_2m(0x4000).folio
    assert page_to_pfn(pfn_to_page(0x4321)) == 0x4321
    assert page_to_virt(pfn_to_page(0x4321)) == direct_map(0x4321000) == DIRECT_MAP + 0x4321000
    page = pfn_to_page(0x4000)
    assert page_of_lru(lru(page)) == page
    assert nth_page(page, 3) == page + 192
    assert len(pages_of(huge_2m())) == 8
