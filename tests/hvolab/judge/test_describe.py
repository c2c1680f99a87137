"""Findings in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.events import GuestSite, InterruptSite, RoutineSite, Site, Source, Stored
from emu.paging.pte import Pte
from emu.paging.tlb import TlbEntry
from emu.paging.walk import Rights, WalkStep
from hvolab.judge.describe import describe_ending, describe_entry, describe_site, place_of
from hvolab.judge.sight.endings import Ending
from hvolab.judge.verdict import Where

VA = VirtAddr(0xFFFF_EA00_0000_1008)
GUEST = GuestSite("reader", VirtAddr(0x1000), "mov rax, [rdi]")
ROUTINE = RoutineSite(("optimize", "_part_of_it", "vmemmap_remap_pte", "set_pte", "set_pte_at"))
BEFORE, AFTER = Pte(0x0E21_063), Pte(0x0E80_061)


@pytest.mark.parametrize(
    ("site", "place"),
    [
        (GUEST, Where(1, VA, "reader", "mov rax, [rdi]", 0x1000)),
        (ROUTINE, Where(1, VA, "set_pte_at", None, None)),
        (InterruptSite(0xFB), Where(1, VA, "interrupt 0xfb", None, None)),
        (None, Where(1, VA, "", None, None)),
    ],
)
def test_a_place_is_a_guest_instruction_or_the_innermost_function(site: Site | None, place: Where) -> None:
    assert place_of(1, VA, site) == place


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (GUEST, "cpu1 in reader 0x1000: mov rax, [rdi]"),
        (ROUTINE, "cpu1 in set_pte_at < set_pte < vmemmap_remap_pte"),
        (RoutineSite(("optimize", "_a", "_b")), "cpu1 in optimize"),
        (RoutineSite(("_a", "_b")), "cpu1 in _b < _a"),
        (InterruptSite(0xFB), "cpu1 in interrupt 0xfb"),
    ],
)
def test_who_and_where_in_the_kernels_own_functions(site: Site, text: str) -> None:
    """The parts that a kernel function was cut into here are none, but better than nothing."""
    assert describe_site(1, site) == text


def test_an_ending_names_the_store_where_it_is_known() -> None:
    stored = Stored(0, ROUTINE, VA, PhysAddr(0x5008), 8, 0, 0, None, Source.WALK)  # type: ignore[arg-type]
    known = Ending(3, 40, stored, None, 1, BEFORE, AFTER)
    change = "P W A D pfn 0xe21 -> P A D pfn 0xe80"
    assert describe_ending(known) == (
        f"its PTE was changed at event 40 by cpu0 in set_pte_at < set_pte < vmemmap_remap_pte: {change}"
    )
    bulk = replace(known, event=None, store=None, level=2)
    assert describe_ending(bulk) == f"its PMD has changed since: {change}"


def test_an_entry_says_since_when_it_is_cached() -> None:
    steps = (WalkStep(1, PhysAddr(0x5008), BEFORE),)
    rights = Rights(write=True, user=False, execute=False)
    entry = TlbEntry(
        VirtAddr(VA & ~0xFFF), PageSize.KIB4, Pfn(0xE21), rights, True, True, 0, steps, 7, 3, 3, 7
    )
    text = "0xffffea0000001000 4K -> pfn 0xe21 rw nx G D"
    assert describe_entry(entry) == f"{text}, cached at event 7"
    assert describe_entry(replace(entry, filled_at=-1)) == (
        f"{text}, which it may have cached before and has not invalidated since"
    )
