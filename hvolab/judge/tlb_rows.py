"""One page as the page table and every CPU's TLB have it at this moment: the table beside a finding."""

from __future__ import annotations

from emu.addr import PAGE_MASK, VirtAddr, page_start
from emu.machine import Machine
from emu.paging.walk import Walk
from hvolab.judge.history import Stores
from hvolab.judge.verdict import TlbRow


def tlb_rows(machine: Machine, stores: Stores, va: VirtAddr | int) -> tuple[TlbRow, ...]:
    """The page of `va`: first what the page table says, then each entry that some CPU holds."""
    page = page_start(VirtAddr(va & ~PAGE_MASK))
    found = machine.cpus[0].mmu.peek(page)
    text = "not present"
    if isinstance(found, Walk):
        text = f"pfn {found.pa >> 12:#x} {found.rights}, {found.size} page, {found.leaf.flags()}"
    rows = [TlbRow(None, int(page), text, stale=False)]
    for cpu in machine.cpus:
        for entry in cpu.mmu.tlb.entries():
            if entry.holds(page):
                stale = stores.ending_of(entry) is not None
                text = f"pfn {entry.frame_of(page):#x} {entry.rights}, {entry.size} entry"
                rows.append(TlbRow(cpu.number, int(page), text, stale))
    return tuple(rows)
