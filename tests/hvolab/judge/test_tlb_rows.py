"""The page table and every TLB side by side."""

from __future__ import annotations

from judge_lab import FRAMES, HEAD, HUGE, TAIL_1, WORD

from emu.addr import VirtAddr
from emu.events import Filled, RoutineSite
from emu.paging.walk import Access, Privilege, Walk
from hvolab.judge.sight.sight import Sight
from hvolab.judge.tlb_rows import tlb_rows
from hvolab.judge.verdict import TlbRow
from kernel_model.boot import BootConfig, boot


def test_the_page_table_comes_first_and_then_who_holds_the_page() -> None:
    machine = boot(BootConfig(16 << 20, 3, (HUGE,))).machine
    sight = Sight(machine)
    table = TlbRow(None, TAIL_1, f"pfn {FRAMES + 1:#x} rw nx, 2M page, P W A D G NX PSE", stale=False)
    assert tlb_rows(sight, WORD) == (table,)
    for cpu in (2, 1):
        machine.cpus[cpu].mmu.translate(WORD, Access.READ, Privilege.SUPERVISOR)
    held = [TlbRow(cpu, TAIL_1, f"pfn {FRAMES + 1:#x} rw nx, 2M entry", stale=False) for cpu in (1, 2)]
    assert tlb_rows(sight, WORD) == (table, *held)
    assert [row.page for row in tlb_rows(sight, HEAD)] == [HEAD] * 3, "one entry holds both pages"


def test_what_is_not_mapped_any_more_is_stale_where_it_is_held() -> None:
    machine = boot(BootConfig(16 << 20, 1, (HUGE,))).machine
    sight = Sight(machine)
    machine.cpus[0].mmu.translate(WORD, Access.READ, Privilege.SUPERVISOR)
    found = machine.cpus[0].mmu.peek(WORD)
    assert isinstance(found, Walk)
    pa = found.steps[-1].pa
    machine.memory.write_word(pa, 0)
    sight.observe(9, Filled(0, RoutineSite(("clear",)), VirtAddr(0), pa, 8, None))  # type: ignore[arg-type]
    table, held = tlb_rows(sight, WORD)
    assert (table.text, table.stale) == ("not present", False)
    assert (held.cpu, held.stale) == (0, True)
    assert tlb_rows(sight, VirtAddr(0x1000)) == (TlbRow(None, 0x1000, "not present", stale=False),)
