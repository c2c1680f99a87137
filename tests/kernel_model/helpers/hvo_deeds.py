"""What HVO and the pool are asked to do while memory runs out, each with the same told in reckoned terms."""

from __future__ import annotations

from typing import Any

from hvo_bench import Deed
from hvo_lab import MIB, PAGE, Lab
from hvo_reckoning import World

from emu.addr import Pfn, VirtAddr
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.layout import FOLIO_LIST, HstateFields
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

TOGETHER = (0x4000, 0x4200, 0x4400)
"""Huge pages whose vmemmap lies behind one PMD."""
APART = (0x4000, 0xA000, 0x12000)
"""And behind a PMD each."""


def config(pfns: tuple[int, ...], *, pool: PoolAtBoot = PoolAtBoot.LISTED, **options: Any) -> BootConfig:
    ram = 384 * MIB if pfns[-1:] == APART[len(pfns) - 1 : len(pfns)] and len(pfns) > 1 else 128 * MIB
    pages = tuple(HugePage(Pfn(pfn), HSTATE_2M) for pfn in pfns)
    return BootConfig(ram, 2, pages, pool=pool, **options)


def large(order: int, *, pool: PoolAtBoot = PoolAtBoot.LISTED, **options: Any) -> BootConfig:
    """One huge page whose vmemmap fills several PMDs."""
    hstate = HSTATE_1G if order == 18 else Hstate(f"order {order}", order)
    first = max(1 << order, 0x4000)
    ram = (first + (1 << order)) * PAGE + 128 * MIB
    return BootConfig(ram, 2, (HugePage(Pfn(first), hstate),), pool=pool, **options)


def optimize_singly(config: BootConfig, tries: int = 2) -> Deed:
    """Each folio by itself, and once more those that could not be."""
    h = config.huge_pages[0].hstate

    def act(lab: Lab) -> list[object]:
        for _ in range(tries):
            for huge in config.huge_pages:
                lab.optimize(huge)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        for _ in range(tries):
            for huge in folios:
                world.optimize_singly(huge)
        return []

    return Deed("optimize singly", config, act, reckon, hstate=h)


def optimize_list(config: BootConfig, tries: int = 2) -> Deed:
    h = config.huge_pages[0].hstate

    def act(lab: Lab) -> list[object]:
        for _ in range(tries):
            lab.optimize_list(h)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        for _ in range(tries):
            world.optimize_list(folios)
        return []

    return Deed("optimize list", config, act, reckon, hstate=h)


def restore_singly(config: BootConfig, tries: int = 2) -> Deed:
    """Each folio by itself, twice at most. What each try returned."""
    h = config.huge_pages[0].hstate

    def prepare(lab: Lab) -> None:
        if config.pool is PoolAtBoot.LISTED:
            lab.optimize_list(h)

    def act(lab: Lab) -> list[object]:
        return [lab.restore(huge) for _ in range(tries) for huge in config.huge_pages]

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        return [world.restore(huge) for _ in range(tries) for huge in folios]

    return Deed("restore singly", config, act, reckon, prepare, h)


def restore_list(config: BootConfig, tries: int = 2) -> Deed:
    def act(lab: Lab) -> list[object]:
        return [lab.restore_list() for _ in range(tries)]

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        return [world.restore_list(world.folio_list, world.non_hvo) for _ in range(tries)]

    return Deed("restore list", config, act, reckon, lambda lab: lab.optimize_list())


def resize(lab: Lab, h: Hstate, number: int) -> None:
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(h, number))


def grow(number: int, **options: Any) -> Deed:
    """nr_hugepages, from nothing: blocks of order 9, then a batch of HVO."""

    def act(lab: Lab) -> list[object]:
        resize(lab, HSTATE_2M, number)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.grow(HSTATE_2M, number)
        return []

    return Deed("grow", BootConfig(128 * MIB, 2, (), **options), act, reckon)


def fill(config: BootConfig) -> Deed:
    """New folios are optimized in a batch and put into the pool, as at boot."""
    h = config.huge_pages[0].hstate

    def act(lab: Lab) -> list[object]:
        pool, lists = lab.kernel.pool, lab.kernel.lists
        lab.call(lambda: pool.prep_and_add_allocated_folios(h, FOLIO_LIST))
        lab.call(lambda: lists.init(FOLIO_LIST))
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.optimize_list(folios)
        for huge in folios:
            world.add(huge)
        world.folio_list = []
        return []

    return Deed("fill", config, act, reckon, hstate=h)


def shrink(config: BootConfig) -> Deed:
    """nr_hugepages to 0, all of the pool being free."""
    h = config.huge_pages[0].hstate

    def act(lab: Lab) -> list[object]:
        resize(lab, h, 0)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.shrink()
        return []

    return Deed("shrink", config, act, reckon, hstate=h)


def up_and_down(number: int, **options: Any) -> Deed:
    """Grow, then shrink: two shortages may be one in each."""

    def act(lab: Lab) -> list[object]:
        resize(lab, HSTATE_2M, number)
        resize(lab, HSTATE_2M, 0)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.grow(HSTATE_2M, number)
        world.shrink()
        return []

    return Deed("up and down", BootConfig(128 * MIB, 2, (), **options), act, reckon)


def dissolve(config: BootConfig) -> Deed:
    """The first folio is to leave the pool, or to stay in it as it was."""
    (first, *_) = config.huge_pages

    def act(lab: Lab) -> list[object]:
        return [lab.call(lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(first.folio))]

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.free_list.remove(first)
        if error := world.restore(first):
            world.free_list.insert(0, first)
            return [error]
        world.free_huge(first)
        world.nr, world.most = world.nr - 1, world.most - 1
        return [0]

    return Deed("dissolve", config, act, reckon)


def free_by_worker(config: BootConfig) -> Deed:
    """A surplus folio is given back where nobody may sleep: the worker frees it."""

    def prepare(lab: Lab) -> None:
        folio = lab.call(lambda: lab.kernel.pool.dequeue_hugetlb_folio(HSTATE_2M))
        resize(lab, HSTATE_2M, 0)
        pfn = (folio - lab.page(0)) // 64
        lab.write_struct(pfn, lab.struct_page(pfn)._replace(refcount=0))

    def act(lab: Lab) -> list[object]:
        (folio,) = lab.linked(HstateFields(9).activelist)
        lab.call(lambda: lab.kernel.pool.free_huge_folio(VirtAddr(folio)))
        lab.call(lab.kernel.pool.kworker, cpu=1)
        return []

    def reckon(world: World, folios: tuple[HugePage, ...]) -> list[object]:
        world.nr, world.surplus = 0, 0
        (huge,) = world.optimized
        world.free_one(huge)
        return []

    return Deed("free by worker", config, act, reckon, prepare)
