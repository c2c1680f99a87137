"""Boot what a dump describes, and operate on it."""

from __future__ import annotations

from collections.abc import Sequence

from emu.addr import PAGE_SHIFT, Pfn, VirtAddr
from emu.memory import LARGEST, SMALLEST
from hvolab.checked.error import InputError
from hvolab.dump import Dump, FolioRow, Leaf
from hvolab.dump.real.actors import actors_of
from hvolab.dump.real.inherit import inherited_from
from hvolab.dump.real.operations import Optimize, PoolOperation
from hvolab.dump.real.plan import plan_of
from hvolab.subject.scenario import Setup, vmemmap_page
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.layout import VMEMMAP_START, pfn_to_page
from kernel_model.mm.hstate import HSTATES, Hstate
from kernel_model.mm.image import HugePage

_BOOT_FLAGS = "P W A D G NX PSE"
_HSTATES = {hstate.order: hstate for hstate in HSTATES}


def setup_from(layout: Dump, operations: Sequence[PoolOperation], cpus: int) -> Setup:
    """Boot with the leaves of `layout`, its folios in the pool, and do the operations on CPU 0, in order.

    Raises InputError when dumps and operations do not describe such a run.
    """
    _check_machine(layout, operations)
    leaves = _boot_leaves(layout)
    pooled = tuple(_pooled_page(row) for row in layout.folios)
    inherited = inherited_from(layout, leaves, pooled)
    plan = plan_of(operations, pooled, _huge_page)
    boot = BootConfig(
        layout.ram_mb << 20,
        cpus,
        (*pooled, *plan.newcomers),
        vmemmap_blocks={VirtAddr(leaf.va): Pfn(leaf.pfn) for leaf in leaves if leaf.level == 2},
        pool=PoolAtBoot.TO_COME,
        inherited=inherited,
    )
    watched = tuple(vmemmap_page(huge, n) for huge in boot.huge_pages[:1] for n in range(8))
    return Setup(boot, actors_of(plan), (), watched)


def _check_machine(layout: Dump, operations: Sequence[PoolOperation]) -> None:
    if not SMALLEST <= layout.ram_mb << 20 <= LARGEST or layout.ram_mb % 2:
        raise InputError(f"the machine has {layout.ram_mb} MiB; the model's have 16 to 32768, an even number")
    for operation in operations:
        if isinstance(operation, Optimize) and operation.dump.ram_mb != layout.ram_mb:
            raise InputError(
                f"the dumps are of machines with {layout.ram_mb} and {operation.dump.ram_mb} MiB"
            )


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
        if leaf.level == 2 and leaf.flags != _BOOT_FLAGS:
            raise InputError(f"leaf {leaf.va:#x} has flags {leaf.flags!r}; the model boots '{_BOOT_FLAGS}'")
    return layout.leaves


def _pooled_page(row: FolioRow) -> HugePage:
    if row.refcount:
        raise InputError(f"folio {row.pfn:#x} is in use, by {row.refcount}; the model's pool has free ones")
    return _huge_page(row)


def _huge_page(row: FolioRow) -> HugePage:
    return HugePage(Pfn(row.pfn), _hstate(row))


def _hstate(row: FolioRow) -> Hstate:
    if row.order not in _HSTATES:
        raise InputError(f"folio {row.pfn:#x} has order {row.order}; the model has orders 9 and 18")
    return _HSTATES[row.order]
