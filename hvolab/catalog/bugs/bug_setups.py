"""Who runs against whom in the catalogue of bugs: the setups of its scenarios, on upstream's kernel."""

from __future__ import annotations

from emu.addr import Pfn
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, Load, Store, ThisCpu
from emu.paging.models import LAZY, LAZY_SINGLE
from firmware.catalog import program
from hvolab.catalog.common import (
    HUGE_PAGE,
    MEMORY_BYTES,
    add_to_pool,
    dissolve,
    memory_failure,
    optimize,
    optimize_list,
    restore,
    shrink,
)
from hvolab.catalog.races import NEIGHBOUR, freeze
from hvolab.catalog.readers import compound_head, get_page, three_loads
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel, PoolAtBoot
from kernel_model.core.kconfig import KernelConfig
from kernel_model.layout import FOLIO_LIST, PerCpu
from kernel_model.mm.failures import FailAt
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.mm.page import Offset, field, lru

HEAD = vmemmap_page(HUGE_PAGE, 0)
TAIL_1 = vmemmap_page(HUGE_PAGE, 1)
TAIL_WORD = field(TAIL_1, Offset.COMPOUND_HEAD)
HEAD_WORD = field(HUGE_PAGE.folio, Offset.PRIVATE)


def _boot(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY)


def _setup(boot: BootConfig, *actors: GuestActor | KernelActor) -> Setup:
    return Setup(boot, actors, (), (HEAD, TAIL_1))


# -- actors ----------------------------------------------------------------------------------------------


async def _reads_before_and_after_idling(kernel: Kernel, huge: HugePage) -> None:
    """A CPU that has the tail cached, sleeps for a while, and goes on where it was."""
    del kernel, huge
    idle = PerCpu(await ThisCpu()).idle
    await Load(TAIL_WORD)
    await Store(idle, 1)
    await Store(idle, 0)
    await Load(TAIL_WORD)


async def _reads_before_and_after_switching(kernel: Kernel, huge: HugePage) -> None:
    """A CPU that has the tail cached, and goes on in another address space: the kernel's part is the same."""
    del huge
    await Load(TAIL_WORD)
    await kernel.flush.switch_mm_irqs_off()
    await Load(TAIL_WORD)


HANDED_OUT = Word("the folio is handed out")


async def _hands_out(kernel: Kernel, huge: HugePage) -> None:
    del kernel, huge
    await AddWords(((HANDED_OUT, 1),))


async def _takes_what_is_handed_out(kernel: Kernel, huge: HugePage) -> None:
    """Who has looked at the head while it was frozen gets the folio, and unfreezes it: it counts 1."""
    del kernel
    count = field(huge.folio, Offset.REFCOUNT)
    await Load(count, 4)
    await Await(WordIs(HANDED_OUT, 1))
    await Store(count, 1, 4)


async def _grow(kernel: Kernel, huge: HugePage) -> None:
    """Growing the pool by one folio that has just been allocated and frozen."""
    await kernel.pool.init_new_hugetlb_folio(huge.folio)
    await kernel.lists.init(FOLIO_LIST)
    await kernel.lists.add(lru(huge.folio), FOLIO_LIST)
    await kernel.pool.prep_and_add_allocated_folios(huge.hstate, FOLIO_LIST)


async def _split(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio)


async def _neighbour_up_and_down(kernel: Kernel, huge: HugePage) -> None:
    await kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, NEIGHBOUR.folio)
    await kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, NEIGHBOUR.folio)


async def _writes_to_neighbours_head(kernel: Kernel, huge: HugePage) -> None:
    del kernel, huge
    await Store(field(NEIGHBOUR.folio, Offset.PRIVATE), 1)


# -- setups ----------------------------------------------------------------------------------------------


def flush_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize(0), three_loads(1, TAIL_WORD))


def flush_head_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize(0), three_loads(1, HEAD_WORD))


def flush_sleeper(cpus: int) -> Setup:
    sleeper = KernelActor(1, "sleeper", _reads_before_and_after_idling)
    return _setup(_boot(cpus), optimize(0), sleeper)


def switching_cpu(cpus: int) -> Setup:
    switcher = KernelActor(1, "switcher", _reads_before_and_after_switching)
    return _setup(_boot(cpus), optimize(0), switcher)


def unfreeze_before_sweep(cpus: int) -> Setup:
    takes = KernelActor(1, "take", _takes_what_is_handed_out)
    return _setup(_boot(cpus), optimize(0), KernelActor(0, "hand out", _hands_out), takes)


def up_and_down(cpus: int) -> Setup:
    # Without poison, as on the machines that met these: what is read by mistake looks like what was there.
    kernel = KernelConfig(page_poisoning=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel)
    return _setup(boot, add_to_pool(0), shrink(0))


def frozen_tail(cpus: int) -> Setup:
    return _setup(_boot(cpus), KernelActor(0, "freeze", freeze), optimize(0), get_page(1, TAIL_1))


def _two(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE, NEIGHBOUR), model=LAZY)


def split_neighbours(cpus: int) -> Setup:
    down = KernelActor(1, "neighbour", _neighbour_up_and_down)
    return _setup(_two(cpus), KernelActor(0, "split", _split), down)


def split_writer(cpus: int) -> Setup:
    return _setup(_two(cpus), optimize(0), KernelActor(1, "writer", _writes_to_neighbours_head))


def hotplugged(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, origin=VmemmapOrigin.HOTPLUG)
    return _setup(boot, optimize(0))


def key_optimize(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY_SINGLE)
    return _setup(boot, optimize(0), compound_head(1, TAIL_1))


def key_restore(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY_SINGLE, pool=PoolAtBoot.POOLED)
    return _setup(boot, restore(0), compound_head(1, TAIL_1))


def error_while_growing(cpus: int) -> Setup:
    # Without CONFIG_DEBUG_VM: the warning that came with the fix would tell before anything happens.
    kernel = KernelConfig(debug_vm=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel)
    return _setup(boot, KernelActor(0, "grow", _grow), memory_failure(1))


def _pooled(cpus: int) -> BootConfig:
    return BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, pool=PoolAtBoot.POOLED)


def error_while_shrinking(cpus: int) -> Setup:
    kernel = KernelConfig(debug_vm=False)
    boot = BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,), model=LAZY, kernel=kernel, pool=PoolAtBoot.POOLED)
    return _setup(boot, shrink(0), memory_failure(1))


async def _another_error(kernel: Kernel, huge: HugePage) -> None:
    await kernel.raw.memory_failure(vmemmap_page(huge, 1))  # page 64 of the folio


def second_error(cpus: int) -> Setup:
    return _setup(
        _pooled(cpus), memory_failure(0), dissolve(0), KernelActor(1, "second error", _another_error)
    )


# 4 MiB of vmemmap behind two PMDs: the second of which cannot be split any more.
LARGE = HugePage(Pfn(0x10000), Hstate("256M", 16))


def rollback(cpus: int) -> Setup:
    boot = BootConfig(768 << 20, cpus, (LARGE,), model=LAZY, failures=FailAt(frozenset({1, 3, 4})))
    return Setup(boot, (add_to_pool(0),), (), (vmemmap_page(LARGE, 0), vmemmap_page(LARGE, 1)))


def globals_reader(cpus: int) -> Setup:
    reader = GuestActor(1, program("read_twice"), (("word", int(TAIL_WORD)),))
    return _setup(_boot(cpus), optimize(0), reader)


def batch_reader(cpus: int) -> Setup:
    return _setup(_boot(cpus), optimize_list(0), three_loads(1, TAIL_WORD))
