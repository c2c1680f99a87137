"""Where stale uses can be judged: ranges of the kernel's addresses (Documentation/arch/x86/x86_64/mm.rst)."""

from __future__ import annotations

from hvolab.subject.ranges import RANGES
from kernel_model.layout import direct_map, pfn_to_page

TEXT = 0xFFFF_FFFF_8100_0000


def test_each_range_has_its_addresses_and_no_others() -> None:
    places = {"vmemmap": pfn_to_page(5), "direct-map": direct_map(0x5000), "kernel-text": TEXT}
    assert set(RANGES.names) == set(places)
    inside = {
        (name, place)
        for name in RANGES.names
        for place, va in places.items()
        if RANGES.find(name).start <= va < RANGES.find(name).end
    }
    assert inside == {(name, name) for name in RANGES.names}


def test_ranges_are_canonical_and_do_not_overlap() -> None:
    ranges = sorted((RANGES.find(name).start, RANGES.find(name).end) for name in RANGES.names)
    flat = [bound for one in ranges for bound in one]
    assert flat == sorted(flat)
    assert flat[0] >= 0xFFFF_8000_0000_0000
    assert flat[-1] <= 1 << 64
