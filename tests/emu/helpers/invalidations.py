"""Invalidations and what they may remove, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st
from paging_rig import GIB1, MIB2, PAGE, VA, leaf

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr, page_start
from emu.paging.tlb import (
    ALL_RULES,
    FaultedAt,
    InvalidateAll,
    InvalidateNonGlobal,
    Invalidation,
    Invlpg,
    InvpcidAddress,
    InvpcidContext,
    NewRoot,
    Rule,
    TlbEntry,
)
from emu.paging.walk import ALL_RIGHTS, WalkStep

PAGES = st.sampled_from((0, PAGE, 3 * PAGE, MIB2, MIB2 + PAGE, GIB1)).map(
    lambda offset: VirtAddr(VA + offset)
)
PCIDS = st.integers(0, 1)
INVALIDATIONS: st.SearchStrategy[Invalidation] = st.one_of(
    st.builds(Invlpg, PAGES.map(lambda page: VirtAddr(page + 8)), PCIDS, st.integers(1, 4)),
    st.builds(InvpcidAddress, PAGES, PCIDS),
    st.builds(InvpcidContext, PCIDS),
    st.just(InvalidateAll()),
    st.just(InvalidateNonGlobal()),
    st.builds(NewRoot, PCIDS),
    st.builds(FaultedAt, PAGES, PCIDS),
)
RULES = st.sets(st.sampled_from(Rule)).map(lambda without: ALL_RULES - without)


def entry(page: VirtAddr, size: PageSize, pcid: int, *, is_global: bool) -> TlbEntry:
    level = {PageSize.KIB4: 1, PageSize.MIB2: 2, PageSize.GIB1: 3}[size]
    step = WalkStep(level, PhysAddr(0x1000), leaf(0x800, size=size))
    first = page_start(page, size)
    return TlbEntry(first, size, Pfn(0x800), ALL_RIGHTS, is_global, True, pcid, (step,), -1, 0, 0, -1)


def usable_for(page: VirtAddr, pcid: int) -> list[TlbEntry]:
    return [
        entry(page, size, of, is_global=is_global)
        for size in PageSize
        for is_global in (False, True)
        for of in (pcid, pcid + 1)
        if is_global or of == pcid
    ]
