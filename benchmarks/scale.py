"""What a page-table entry costs from one huge page of 1 GiB to sixteen: `python -m benchmarks.scale`.

Optimize and restore through the list functions, nobody listening. The cost of an entry must not grow with the
number of huge pages; where it does, something looks at all that has happened before. Steps are counted, and
the same on every machine; times are processor time, so that a neighbour on the machine disturbs less.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from emu.addr import PAGE_SHIFT, Pfn
from emu.choice import Defaults
from emu.cpu.cpu import KernelThread
from emu.memory import MIB, Journal
from kernel_model.boot import BootConfig, System, boot
from kernel_model.layout import FOLIO_LIST, NON_HVO_FOLIOS
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

# Room below the huge pages for the kernel and the pages HVO allocates, above them for vmemmap: 2 MiB for each
# 128 MiB, so enough to the largest memory there is.
BELOW = Pfn((64 * MIB) >> PAGE_SHIFT)
ABOVE = Pfn((576 * MIB) >> PAGE_SHIFT)
CPUS = 2
REAL_KERNEL = "a real kernel under full emulation spends about 105 ms in the function for 512 x 2M"


@dataclass(frozen=True, slots=True)
class Case:
    """So many huge pages of one size; `rounds`: how many times, the short ones oftener."""

    folios: int
    hstate: Hstate
    rounds: int = 1

    @property
    def name(self) -> str:
        return f"{self.folios} x {self.hstate.name}"


ONE = Case(1, HSTATE_1G, 5)
MANY = Case(16, HSTATE_1G)
CASES = (ONE, Case(512, HSTATE_2M, 3), MANY)


@dataclass(frozen=True, slots=True)
class Cost:
    """One list function: the page-table entries it changed, each with its own page, and what that took."""

    ptes: int
    steps: int
    seconds: float

    @property
    def steps_each(self) -> float:
        return self.steps / self.ptes

    @property
    def microseconds_each(self) -> float:
        return self.seconds / self.ptes * 1e6


@dataclass(frozen=True, slots=True)
class Scaled:
    """A case that was run. `peak`: the most bytes the process has had in memory; `journal`: those of it."""

    optimize: Cost
    restore: Cost
    boot_seconds: float
    peak: int
    journal: int


def measure(case: Case) -> Scaled:
    """Boot, optimize all, restore all, in this process."""
    begun = time.process_time()
    system = _booted(case)
    boot_seconds = time.process_time() - begun
    hvo, h = system.kernel.hvo, case.hstate
    optimize = _cost(system, partial(hvo.hugetlb_vmemmap_optimize_folios, h, FOLIO_LIST))
    restore = _cost(system, partial(hvo.hugetlb_vmemmap_restore_folios, h, FOLIO_LIST, NON_HVO_FOLIOS))
    peak = _peak()  # before anything is counted, which takes memory too
    return Scaled(optimize, restore, boot_seconds, peak, _bytes_of(system.machine.memory.journal))


def show(console: Console, cases: Sequence[Case] = CASES) -> None:
    """A row for each list function of each case, and how the cost of an entry grows from ONE to MANY."""
    table = Table(title=f"the port, nobody listening, {CPUS} CPUs", title_justify="left")
    table.add_column("what", no_wrap=True)
    for column in ("PTEs", "steps a PTE", "us a PTE", "seconds", "boot s", "peak MiB", "journal MiB"):
        table.add_column(column, justify="right")
    scaled = {}
    for case in cases:
        scaled[case] = one = _middle([_in_a_process_of_its_own(case) for _ in range(case.rounds)])
        whole = f"{one.boot_seconds:.2f}", f"{one.peak / MIB:,.0f}", f"{one.journal / MIB:,.0f}"
        table.add_row(f"optimize {case.name}", *_cells(one.optimize), *whole)
        table.add_row(f"restore {case.name}", *_cells(one.restore))
    console.print(table)
    if ONE in scaled and MANY in scaled:
        console.print(_growth(scaled[ONE], scaled[MANY]))
    console.print(f"For scale: {REAL_KERNEL}.")


def _booted(case: Case) -> System:
    each = case.hstate.pages_per_huge_page
    first = -(-BELOW // each) * each
    end = first + case.folios * each
    folios = tuple(HugePage(Pfn(pfn), case.hstate) for pfn in range(first, end, each))
    return boot(BootConfig((end + ABOVE) << PAGE_SHIFT, CPUS, folios))


def _cost(system: System, operation: Callable[[], Coroutine[object, object, object]]) -> Cost:
    machine, answerer = system.machine, Defaults()
    pages, steps = _vmemmap_pages(system), machine.steps
    machine.start(0, KernelThread("scale", operation))
    begun = time.process_time()
    while enabled := machine.enabled():
        machine.perform(enabled[0], answerer)
    seconds = time.process_time() - begun
    return Cost(abs(_vmemmap_pages(system) - pages), machine.steps - steps, seconds)


def _vmemmap_pages(system: System) -> int:
    """How many pages back vmemmap, by the kernel's own count."""
    return system.machine.count("nr_memmap_pages") + system.machine.count("nr_memmap_boot_pages")


def _peak() -> int:
    """VmHWM, in bytes. Not ru_maxrss: that begins with what the process had before its exec, its parent's."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) << 10
    raise LookupError("/proc/self/status does not tell VmHWM")


def _bytes_of(journal: Journal) -> int:
    """What the journal's entries take: the object, its address, its bytes, and two slots in lists of them."""
    return sum(
        sys.getsizeof(entry) + sys.getsizeof(entry.pa) + sys.getsizeof(entry.old) + 16
        for entry in journal.since(0)
    )


def _in_a_process_of_its_own(case: Case) -> Scaled:
    """So that the memory of one case is not in the peak of another."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (case,))


def _middle(rounds: list[Scaled]) -> Scaled:
    """The round whose time is the median; all but times is the same in each."""
    return sorted(rounds, key=lambda one: one.optimize.seconds + one.restore.seconds)[len(rounds) // 2]


def _cells(cost: Cost) -> tuple[str, ...]:
    return (
        f"{cost.ptes:,}",
        f"{cost.steps_each:.2f}",
        f"{cost.microseconds_each:,.0f}",
        f"{cost.seconds:.2f}",
    )


def _growth(one: Scaled, many: Scaled) -> str:
    optimize = many.optimize.microseconds_each / one.optimize.microseconds_each
    restore = many.restore.microseconds_each / one.restore.microseconds_each
    return f"us a PTE, {MANY.name} to {ONE.name}: optimize {optimize:.2f}, restore {restore:.2f}"


if __name__ == "__main__":
    show(Console(width=120))
