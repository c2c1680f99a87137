"""One page as the page table and every CPU's TLB have it at this moment: the table beside a finding."""

from __future__ import annotations

from emu.addr import PAGE_SHIFT, VirtAddr, page_start
from hvolab.judge.sight.sight import Sight
from hvolab.judge.verdict import TlbRow


def tlb_rows(sight: Sight, va: VirtAddr) -> tuple[TlbRow, ...]:
    """The page of `va`: first what the page table says, then each entry that some CPU holds."""
    page = page_start(va)
    found = sight.displayed(page)
    text = "not present"
    if found is not None:
        text = f"pfn {found.pa >> PAGE_SHIFT:#x} {found.rights}, {found.size} page, {found.leaf.flags()}"
    rows = [TlbRow(None, int(page), text, stale=False)]
    for cpu, entry in sight.held_by_tlbs(page):
        text = f"pfn {entry.frame_of(page):#x} {entry.rights}, {entry.size} entry"
        rows.append(TlbRow(cpu, int(page), text, sight.ended(entry)))
    return tuple(rows)
