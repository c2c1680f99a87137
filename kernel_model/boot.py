"""From a configuration to time zero: a machine with a kernel on it, no CPU having run yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from emu.addr import PAGE_SHIFT, Pfn, VirtAddr, frame_start
from emu.choice import Defaults
from emu.cpu.apic import LOCAL_TIMER_VECTOR
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import Store
from emu.cpu.software import Grain, InterruptHandler, Software
from emu.ledger import Ledger
from emu.machine import Machine
from emu.memory import PhysicalMemory
from emu.paging.models import SKYLAKE, CpuModel
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.lists import DebugListChecks, ListChecks, Lists
from kernel_model.core.nmi import Nmi, beset
from kernel_model.core.rcu import Rcu
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, smp_call_interrupt
from kernel_model.core.static_key import StaticKey
from kernel_model.flush.policy import NamedPolicy, PolicySetup
from kernel_model.flush.tlb import KernelTlb
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, Primitives, hugetlb_free_vmemmap
from kernel_model.layout import (
    FIRST_FREE_PA,
    FOLIO_LIST,
    HUGETLB_OPTIMIZE_VMEMMAP_KEY,
    NON_HVO_FOLIOS,
    PMD_SIZE,
    PTRS_PER_PTE,
    SECTION_BYTES,
    VMEMMAP_OPTIMIZE_ENABLED,
    VMEMMAP_START,
    HstateFields,
)
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.failures import AllocationFailures, EachMayFail, NoFailures
from kernel_model.mm.hstate import HSTATES, Hstate
from kernel_model.mm.image import HugePage, Image, VmemmapOrigin
from kernel_model.mm.inherited import Inherited
from kernel_model.mm.page import HugetlbFlag, lru
from kernel_model.mm.traps import TrapHandlers
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.pool.hugetlb_pool import PoolPrimitives
from kernel_model.pool.hwpoison import RawHwpoison
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant


class LayoutError(ValueError):
    """The memory asked for cannot be laid out: frames overlap, or lie outside."""


class KernelForm(Enum):
    """In which form the code under test runs."""

    PORT = "port"  # the port in Python, an op a step


class PoolAtBoot(Enum):
    """What has become of the huge pages at time zero."""

    LISTED = "frozen hugetlb folios on FOLIO_LIST, which the pool does not know yet"
    POOLED = "in the pool, free, and optimized if the variant managed to"
    TO_COME = "as LISTED, but counted as free until they join the pool"
    BOOTMEM = "as LISTED, but only the first 64 struct pages of each are initialised"


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What to boot. `vmemmap_blocks` maps each 2 MiB of vmemmap to its first frame; empty = at the top.

    `inherited` is what the kernel has done already: split others of them, filled its pool; the folios there
    are among the `huge_pages`. `failures` counts positions from time zero, `boot_failures` those before it,
    when a pool is filled. `nmi`: one that may come while a CPU is in the handler of another interrupt.
    """

    memory_bytes: int
    cpus: int
    huge_pages: tuple[HugePage, ...]
    model: CpuModel = SKYLAKE
    kernel: KernelConfig = field(default_factory=KernelConfig)
    policy: NamedPolicy = UPSTREAM
    origin: VmemmapOrigin = VmemmapOrigin.BOOT
    vmemmap_blocks: Mapping[VirtAddr, Pfn] = field(default_factory=dict)
    form: KernelForm = KernelForm.PORT
    variant: NamedVariant = UPSTREAM_HVO
    failures: AllocationFailures = field(default_factory=NoFailures)
    pool: PoolAtBoot = PoolAtBoot.LISTED
    boot_failures: AllocationFailures = field(default_factory=NoFailures)
    inherited: Inherited = field(default_factory=Inherited)
    nmi: Nmi | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """The parts of a booted kernel that scenarios call. `init_mm`: the frame of its top page table."""

    hvo: HugetlbVmemmap
    pages: Buddy
    flush: KernelTlb
    key: StaticKey
    rcu: Rcu
    lists: Lists
    pool: Hugetlb
    raw: RawHwpoison
    init_mm: Pfn


class LocalTimer:
    """The handler of the local timer's ticks, over whatever kernel runs."""

    def __init__(self) -> None:
        self.kernel: Kernel | None = None

    async def apic_timer_interrupt(self, request: int, payload: object) -> None:
        """sysvec_apic_timer_interrupt()"""
        del request, payload
        assert self.kernel is not None
        await self.kernel.flush.tick(self.kernel.hvo.free_vmemmap_page_list)


class System:
    """A machine at time zero and the kernel on it. The huge pages are linked on FOLIO_LIST, in order.

    `kernel` is another one after each reset: nothing that its parts remember outlives a run.
    """

    def __init__(
        self,
        machine: Machine,
        kernel: Kernel,
        config: BootConfig,
        vmemmap_blocks: Mapping[VirtAddr, Pfn],
        root: Pfn,
        timer: LocalTimer,
    ) -> None:
        self.machine = machine
        self.kernel = timer.kernel = kernel
        self._timer = timer
        self.config = config
        self.vmemmap_blocks = vmemmap_blocks
        self._root = root

    def reset(self) -> None:
        """Back to time zero: the same run can be made again. Much cheaper than another boot."""
        self.machine.reset()
        pages = self.kernel.pages
        self.kernel = self._timer.kernel = _build_kernel(self.config, pages, self._root)
        pages.failures = self.config.failures


def boot(config: BootConfig) -> System:
    """Build the image, the kernel and the machine.

    Raises LayoutError, or ValueError for a bad size, or for boot failures that a schedule would have to pick.
    """
    if isinstance(config.boot_failures, EachMayFail):
        raise ValueError("boot failures are those at given positions: there is no choice before time zero")
    memory = PhysicalMemory(config.memory_bytes)
    blocks = blocks_of(config)
    _check_layout(config, blocks)
    image = Image(memory)
    _write_image(image, config, blocks)

    ledger = Ledger()
    pages = Buddy(config.kernel, config.cpus, ledger)
    kernel = _build_kernel(config, pages, image.root)
    _give_frames(pages, config, blocks)
    pages.write_free_lists(image)
    handler = smp_call_interrupt(config.policy.receive)
    if config.nmi is not None:
        handler = beset(handler, config.nmi)
    # A handler that may fault is taken step by step.
    grain = config.policy.grain if config.policy.absent is None else Grain.STEPWISE
    timer = LocalTimer()
    timer.kernel = kernel
    interrupts = {
        CALL_FUNCTION_VECTOR: InterruptHandler(handler, grain),
        LOCAL_TIMER_VECTOR: InterruptHandler(timer.apic_timer_interrupt, Grain.STEPWISE),
    }
    software = Software(TrapHandlers(image.root, config.policy.absent).handle, interrupts)
    model = config.policy.hardware(config.model)
    machine = Machine(memory, config.cpus, model, image.root, software, ledger=ledger)
    for name, pages_counted in _counters(config, blocks).items():
        machine.counters[name, 0] = pages_counted
    machine.mark_time_zero()
    pages.failures = config.boot_failures
    _fill_pool(machine, kernel, config)
    pages.failures = config.failures
    # A new kernel, as after each reset: nothing that one remembers of its boot makes the first run another.
    kernel = _build_kernel(config, pages, image.root)
    return System(machine, kernel, config, blocks, image.root, timer)


def _fill_pool(machine: Machine, kernel: Kernel, config: BootConfig) -> None:
    """Put the huge pages into the pool before time zero, on the first CPU, nobody else running."""
    if config.pool is not PoolAtBoot.POOLED or not config.huge_pages:
        return
    sizes = {huge.hstate for huge in config.huge_pages}
    if len(sizes) != 1:
        raise LayoutError("huge pages of one size can be in the pool at time zero, not of several")
    (h,) = sizes

    async def fill() -> None:
        await kernel.pool.prep_and_add_allocated_folios(h, FOLIO_LIST)
        await kernel.lists.init(FOLIO_LIST)
        await Store(HstateFields(h.order).max_huge_pages, len(config.huge_pages))

    machine.start(0, KernelThread("boot", fill))
    while choices := machine.enabled():
        machine.perform(choices[0], Defaults())
    machine.words.clear()  # no lock is held, and what was counted was counted before time zero
    kernel.pages.mark_time_zero()
    machine.mark_time_zero()


def _counters(config: BootConfig, blocks: Mapping[VirtAddr, Pfn]) -> Mapping[str, int]:
    """The two memmap counters at time zero; one that is 0 has never been counted."""
    inherited = config.inherited
    in_blocks, of_boot = len(blocks) * PTRS_PER_PTE, len(inherited.boot_frames)
    allocated = len(inherited.frames()) - of_boot
    if config.origin is VmemmapOrigin.BOOT:
        counted = {"nr_memmap_boot_pages": in_blocks + of_boot, "nr_memmap_pages": allocated}
    else:
        counted = {"nr_memmap_boot_pages": of_boot, "nr_memmap_pages": in_blocks + allocated}
    return {name: pages for name, pages in {**counted, **inherited.counters}.items() if pages}


def blocks_of(config: BootConfig) -> Mapping[VirtAddr, Pfn]:
    """The 2 MiB of vmemmap that a leaf maps at time zero, each with its first frame."""
    if config.vmemmap_blocks or config.inherited.tables:
        return config.vmemmap_blocks
    return blocks_at_the_top(config.memory_bytes)


def blocks_at_the_top(memory_bytes: int) -> dict[VirtAddr, Pfn]:
    """Vmemmap backed by the highest 2 MiB blocks of memory, one for each (begun) section of 128 MiB."""
    sections = -(-memory_bytes // SECTION_BYTES)
    first = memory_bytes - sections * PMD_SIZE
    return {
        VirtAddr(VMEMMAP_START + n * PMD_SIZE): Pfn((first + n * PMD_SIZE) >> PAGE_SHIFT)
        for n in range(sections)
    }


def _build_kernel(config: BootConfig, pages: Buddy, root: Pfn) -> Kernel:
    online = frozenset(range(config.cpus))
    checks = DebugListChecks() if config.kernel.debug_list else ListChecks()
    lists = Lists(checks)
    most = config.policy.hardware(config.model).invlpgb_count_max
    setup = PolicySetup(online, config.kernel.tlb_single_page_flush_ceiling, most)
    flush = KernelTlb(config.policy.build(setup), lists)
    key = StaticKey(HUGETLB_OPTIMIZE_VMEMMAP_KEY, online)
    rcu = Rcu(sorted(online))
    hstates = _hstates(config)
    primitives = Primitives(config.kernel, pages, lists, flush, rcu, key, hstates, frame_start(root))
    hvo = config.variant.build(primitives)
    hvo.hugetlb_vmemmap_init()
    raw = RawHwpoison()
    pool = config.variant.build_pool(PoolPrimitives(config.kernel, pages, lists, hvo, raw, hstates))
    return Kernel(hvo, pages, flush, key, rcu, lists, pool, raw, root)


def _hstates(config: BootConfig) -> tuple[Hstate, ...]:
    """The sizes there are, the largest first."""
    sizes = {*HSTATES, *(huge.hstate for huge in config.huge_pages)}
    return tuple(sorted(sizes, key=lambda h: -h.order))


def _write_image(image: Image, config: BootConfig, blocks: Mapping[VirtAddr, Pfn]) -> None:
    image.map_kernel()
    image.back_vmemmap(blocks)
    for va, table in config.inherited.tables.items():
        image.back_by_table(va, table.pmd, table.ptes)
    image.all_unused()
    image.reserved(0, FIRST_FREE_PA >> PAGE_SHIFT)
    for pfn in blocks.values():
        image.vmemmap_block(pfn, config.origin)
    _write_inherited_pages(image, config.inherited)
    image.empty_lists((FOLIO_LIST, NON_HVO_FOLIOS))
    image.write_global(VMEMMAP_OPTIMIZE_ENABLED, hugetlb_free_vmemmap(config.kernel))
    for h in _hstates(config):
        image.empty_lists((HstateFields(h.order).freelist, HstateFields(h.order).activelist))
    pooled = config.inherited.pooled
    _write_list(image, config, FOLIO_LIST, [huge for huge in config.huge_pages if huge not in pooled])
    for h in _hstates(config):
        of, free = HstateFields(h.order), [huge for huge in pooled if huge.hstate == h]
        if free:
            _write_list(image, config, of.freelist, free)
            for count in (of.nr_huge_pages, of.free_huge_pages, of.max_huge_pages):
                image.write_global(count, len(free))
    image.write_global(HUGETLB_OPTIMIZE_VMEMMAP_KEY, len(config.inherited.optimized))


def _write_inherited_pages(image: Image, inherited: Inherited) -> None:
    """The struct pages of what maps and is mapped by inherited page tables."""
    for frame in inherited.frames():
        if frame in inherited.boot_frames:
            image.boot_vmemmap_page(frame)
        else:
            image.allocated(frame)
    for frame in inherited.table_frames():
        image.allocated(frame)


def _write_list(image: Image, config: BootConfig, head: VirtAddr, folios: Sequence[HugePage]) -> None:
    """A list of folios, and their struct pages."""
    ring = [head, *(lru(huge.folio) for huge in folios), head]
    for number, huge in enumerate(folios, start=1):
        count = 64 if config.pool is PoolAtBoot.BOOTMEM else huge.hstate.pages_per_huge_page
        image.huge_page(huge, ring[number + 1], ring[number - 1], count, _private(huge, config.inherited))
    image.write_global(head, ring[1])
    image.write_global(VirtAddr(head + 8), ring[-2])


def _private(huge: HugePage, inherited: Inherited) -> int:
    if huge not in inherited.pooled:
        return 0
    optimized = HugetlbFlag.VMEMMAP_OPTIMIZED if huge.pfn in inherited.optimized else 0
    return HugetlbFlag.FREED | optimized


def _occupied(config: BootConfig, blocks: Mapping[VirtAddr, Pfn]) -> list[tuple[int, int, str]]:
    """The frames that are not free at time zero: (first, end, what), in order."""
    taken = [(0, FIRST_FREE_PA >> PAGE_SHIFT, "the kernel")]
    taken += [(pfn, pfn + PTRS_PER_PTE, f"vmemmap block {va:#x}") for va, pfn in blocks.items()]
    taken += [
        (huge.pfn, huge.pfn + huge.hstate.pages_per_huge_page, f"huge page {huge.pfn:#x}")
        for huge in config.huge_pages
    ]
    taken += [(pfn, pfn + 1, f"vmemmap page {pfn:#x}") for pfn in config.inherited.frames()]
    taken += [(pfn, pfn + 1, f"page table {pfn:#x}") for pfn in config.inherited.table_frames()]
    return sorted(taken)


def _check_layout(config: BootConfig, blocks: Mapping[VirtAddr, Pfn]) -> None:
    frames = config.memory_bytes >> PAGE_SHIFT
    for huge in config.huge_pages:
        if huge.pfn % huge.hstate.pages_per_huge_page:
            raise LayoutError(f"huge page {huge.pfn:#x} is not aligned to its {huge.hstate.name}")
    taken = _occupied(config, blocks)
    for _, end, what in taken:
        if end > frames:
            raise LayoutError(f"{what} ends at frame {end:#x}, memory at {frames:#x}")
    for (_, end, what), (first, _, other) in pairwise(taken):
        if first < end:
            raise LayoutError(f"{other} overlaps {what}")
    sections = -(-config.memory_bytes // SECTION_BYTES)
    for section in range(sections):
        va = VMEMMAP_START + section * PMD_SIZE
        if va not in blocks and va not in config.inherited.tables:
            raise LayoutError(f"no block backs the vmemmap of section {section}")
    for pfn in blocks.values():
        if pfn % PTRS_PER_PTE:
            raise LayoutError(f"vmemmap block at frame {pfn:#x} is not aligned to 2 MiB")


def _give_frames(pages: Buddy, config: BootConfig, blocks: Mapping[VirtAddr, Pfn]) -> None:
    """Everything between what is occupied is free."""
    taken = _occupied(config, blocks)
    for pfn in blocks.values():
        pages.adopt(range(pfn, pfn + PTRS_PER_PTE))
    for huge in config.huge_pages:
        pages.adopt(range(huge.pfn, huge.pfn + huge.hstate.pages_per_huge_page))
    pages.adopt(frozenset((*config.inherited.frames(), *config.inherited.table_frames())))
    gaps: Sequence[tuple[int, int]] = [(end, first) for (_, end, _), (first, _, _) in pairwise(taken)]
    for start, end in (*gaps, (taken[-1][1], config.memory_bytes >> PAGE_SHIFT)):
        pages.add_free(start, end)
