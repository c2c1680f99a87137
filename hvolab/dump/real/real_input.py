"""Between dumps and systems: boot what a dump describes, and dump what a system has become."""

from __future__ import annotations

from enum import Enum

from emu.addr import PAGE_BYTES, PAGE_SHIFT, PageSize, Pfn, VirtAddr
from emu.memory import LARGEST, SMALLEST
from emu.paging.walk import Walk
from hvolab.checked.error import InputError
from hvolab.dump import Dump, FolioRow, Leaf, dump_of, with_mappings
from hvolab.subject.scenario import KernelActor, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel, System
from kernel_model.layout import FOLIO_LIST, NON_HVO_FOLIOS, PMD_SIZE, VMEMMAP_START, pfn_to_page
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import HugetlbFlag, Offset, field

KERNEL = "hvolab model of Linux v6.12"
_BOOT_FLAGS = "P W A D G NX PSE"
_HSTATES = {hstate.order: hstate for hstate in (HSTATE_2M, HSTATE_1G)}


class StopAt(Enum):
    """How far a run over real input goes."""

    BEFORE = "before"
    OPTIMIZED = "optimized"
    RESTORED = "restored"


async def _optimize_all(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folios(huge.hstate, FOLIO_LIST)


async def _restore_all(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_restore_folios(huge.hstate, FOLIO_LIST, NON_HVO_FOLIOS)


_OPERATIONS = {
    StopAt.BEFORE: (),
    StopAt.OPTIMIZED: (("optimize", _optimize_all),),
    StopAt.RESTORED: (("optimize", _optimize_all), ("restore", _restore_all)),
}


def setup_from(layout: Dump, folios: Dump, cpus: int, stop_at: StopAt) -> Setup:
    """Boot with the leaves of `layout`, and optimize the folios of `folios`, in the order they are listed.

    Raises InputError when the dumps do not describe such a system.
    """
    blocks = {VirtAddr(leaf.va): Pfn(leaf.pfn) for leaf in _boot_leaves(layout)}
    huge_pages = tuple(HugePage(Pfn(row.pfn), _hstate(row)) for row in folios.folios)
    if not huge_pages:
        raise InputError(f"the dump {folios.state!r} lists no folios to optimize")
    if len({huge.hstate for huge in huge_pages}) > 1:
        raise InputError(f"the dump {folios.state!r} lists folios of more than one order")
    if layout.ram_mb != folios.ram_mb:
        raise InputError(f"the dumps are of machines with {layout.ram_mb} and {folios.ram_mb} MiB")
    if not SMALLEST <= layout.ram_mb << 20 <= LARGEST or layout.ram_mb % 2:
        raise InputError(f"the machine has {layout.ram_mb} MiB; the model's have 16 to 32768, an even number")
    boot = BootConfig(layout.ram_mb << 20, cpus, huge_pages, vmemmap_blocks=blocks)
    actors = tuple(KernelActor(0, name, routine) for name, routine in _OPERATIONS[stop_at])
    return Setup(boot, actors, (), tuple(vmemmap_page(huge_pages[0], n) for n in range(8)))


def _boot_leaves(layout: Dump) -> tuple[Leaf, ...]:
    if layout.vmemmap_base != VMEMMAP_START:
        raise InputError(
            f"vmemmap begins at {layout.vmemmap_base:#x}; the model has it at {VMEMMAP_START:#x}"
        )
    if layout.leaves is None:
        raise InputError(f"the dump {layout.state!r} has counts only, no leaves")
    if not layout.leaves:
        raise InputError(f"the dump {layout.state!r} maps nothing")
    for leaf in layout.leaves:
        if leaf.va >= pfn_to_page((layout.ram_mb << 20) >> PAGE_SHIFT):
            raise InputError(f"leaf {leaf.va:#x} describes no memory: there are {layout.ram_mb} MiB")
        if leaf.level != 2:
            raise InputError(f"leaf {leaf.va:#x} is of level {leaf.level}; a layout to boot has 2 MiB leaves")
        if leaf.flags != _BOOT_FLAGS:
            raise InputError(f"leaf {leaf.va:#x} has flags {leaf.flags!r}; the model boots '{_BOOT_FLAGS}'")
    return layout.leaves


def _hstate(row: FolioRow) -> Hstate:
    if row.order not in _HSTATES:
        raise InputError(f"folio {row.pfn:#x} has order {row.order}; the model has orders 9 and 18")
    return _HSTATES[row.order]


def dump_system(system: System, state: str) -> Dump:
    """The vmemmap page tables, huge pages and counters of a system, as the dump format has them."""
    leaves: list[Leaf] = []
    tables: dict[int, int] = {}
    flags: dict[int, str] = {}
    for va in system.vmemmap_blocks:
        found = _peek(system, va)
        if found.size is PageSize.MIB2:
            leaves.append(Leaf(int(va), 2, found.pfn, found.leaf.flags()))
            continue
        pmd = found.steps[-2].entry
        tables[va], flags[va] = pmd.pfn, pmd.flags()
        for page in range(va, va + PMD_SIZE, PAGE_BYTES):
            pte = _peek(system, VirtAddr(page))
            leaves.append(Leaf(page, 1, pte.pa >> PAGE_SHIFT, pte.leaf.flags()))
    leaves.sort(key=lambda leaf: leaf.va)
    folios = with_mappings((_folio_row(system, huge) for huge in system.config.huge_pages), leaves)
    counters = {name: system.machine.count(name) for name in ("nr_memmap_pages", "nr_memmap_boot_pages")}
    ram_mb = system.config.memory_bytes >> 20
    return dump_of(KERNEL, state, ram_mb, VMEMMAP_START, leaves, folios, counters, tables, flags)


def _peek(system: System, va: VirtAddr) -> Walk:
    found = system.machine.cpus[0].mmu.peek(va)
    if not isinstance(found, Walk):
        raise InputError(f"nothing is mapped at {va:#x}")
    return found


def _folio_row(system: System, huge: HugePage) -> FolioRow:
    def word(offset: Offset, size: int) -> int:
        pa = _peek(system, field(huge.folio, offset)).pa
        return int.from_bytes(system.machine.memory.read(pa, size), "little")

    private = word(Offset.PRIVATE, 8)
    return FolioRow(
        int(huge.pfn),
        huge.hstate.order,
        int(huge.folio),
        bool(private & HugetlbFlag.VMEMMAP_OPTIMIZED),
        private,
        word(Offset.FLAGS, 8),
        word(Offset.REFCOUNT, 4),
        word(Offset.PAGE_TYPE, 4),
    )
