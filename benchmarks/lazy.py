"""What an access of the lazy TLB costs where its path has changed since the last flush.

`python -m benchmarks.lazy` runs this part alone.
"""

from __future__ import annotations

import statistics
import time

from rich.console import Console
from rich.table import Table

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.memory import MIB, PhysicalMemory
from emu.mmu import Mmu
from emu.paging.models import LAZY
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Invlpg
from emu.paging.walk import Access, Control, Privilege
from emu.trace import Trace

CHANGES = (1, 4, 16, 64)
ACCESSES = 200
ROUNDS = 5
PAGE = VirtAddr(0xFFFF_EA00_0000_0000)
TABLES = (Pfn(0x100), Pfn(0x101), Pfn(0x102), Pfn(0x103))
BITS = PteBit.PRESENT | PteBit.WRITE | PteBit.ACCESSED | PteBit.DIRTY


def show(console: Console) -> None:
    """A row for each number of changes; the ratio is to an access after none."""
    table = Table(title=f"an access of the lazy TLB, median of {ROUNDS} rounds", title_justify="left")
    for column in ("changes of the entry", "us", "ratio to none", "us after INVLPG"):
        table.add_column(column, justify="right")
    unchanged = measure(0)
    for changes in CHANGES:
        cost, cut = measure(changes), measure(changes, flushed=True)
        table.add_row(str(changes), f"{cost:.0f}", f"{cost / unchanged:.1f}", f"{cut:.0f}")
    console.print(table)


def measure(changes: int, *, flushed: bool = False) -> float:
    """Microseconds of one access after so many changes of the page's entry, by the walk made now."""
    memory, mmu, entry = _mapped()
    for number in range(changes):
        memory.write_word(entry, Pte.make(Pfn(0x801 + number), BITS))
    if flushed:
        mmu.invalidate(Invlpg(PAGE))
    return 1e6 * statistics.median(_access(memory, mmu) for _ in range(ROUNDS)) / ACCESSES


def _access(memory: PhysicalMemory, mmu: Mmu) -> float:
    spent = 0.0
    for _ in range(ACCESSES):
        # Beside the path, in its table: what was found last time is not taken for granted.
        memory.write_word(PhysAddr((TABLES[-1] << 12) + 8), 0)
        begun = time.perf_counter()
        mmu.translate(PAGE, Access.READ, Privilege.SUPERVISOR)
        spent += time.perf_counter() - begun
    return spent


def _mapped() -> tuple[PhysicalMemory, Mmu, PhysAddr]:
    memory = PhysicalMemory(16 * MIB)
    entry = PhysAddr(0)
    for level, table in zip((4, 3, 2, 1), TABLES, strict=True):
        entry = PhysAddr((table << 12) + 8 * (PAGE >> (3 + 9 * level) & 511))
        below = Pfn(0x800) if level == 1 else Pfn(table + 1)
        memory.load_image(entry, int(Pte.make(below, BITS)).to_bytes(8, "little"))
    return memory, Mmu(0, memory, LAZY, Control(), TABLES[0], Trace()), entry


if __name__ == "__main__":
    show(Console())
