"""Scenarios that show the remap itself: before, optimized, restored."""

from __future__ import annotations

from emu.addr import Pfn
from firmware.catalog import program
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES, optimize, optimize_list, restore
from hvolab.catalog.races import NEIGHBOUR
from hvolab.subject.pattern import Finishes
from hvolab.subject.scenario import Group, GuestActor, KernelActor, Scenario, Setup, Tour, vmemmap_page
from hvolab.subject.script import Constraint, Until
from kernel_model.boot import BootConfig
from kernel_model.core.kconfig import KernelConfig
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M
from kernel_model.mm.image import HugePage
from kernel_model.variants.catalog import FLAGS_AND

SHOWN_PAGES = 8


def _phases(boot: BootConfig, readers: range) -> Setup:
    """Everybody reads; cpu 0 optimizes; everybody reads; cpu 0 restores; everybody reads."""
    huge = boot.huge_pages[0]
    actors: list[GuestActor | KernelActor] = []
    script: list[Constraint] = []
    reader = program("read_tails")
    optimizes, restores = optimize(0), restore(0)
    for operation in (None, optimizes, restores):
        if operation is not None:
            actors.append(operation)
            script.append(Until(0, Finishes(operation.name)))
        for cpu in readers:
            arguments = (("head", int(huge.folio)), ("pages", SHOWN_PAGES))
            actors.append(GuestActor(cpu, reader, arguments))
            script.append(Until(cpu, Finishes(reader.name)))
    tour = Tour(
        frozenset((cpu, reader.name) for cpu in readers),
        (((0, optimizes.name), "optimized"), ((0, restores.name), "restored")),
    )
    watched = tuple(vmemmap_page(huge, n) for n in range(SHOWN_PAGES))
    return Setup(boot, tuple(actors), tuple(script), watched, tour=tour)


def _remap(cpus: int) -> Setup:
    return _phases(BootConfig(MEMORY_BYTES, cpus, (HUGE_PAGE,)), range(cpus))


REMAP = Scenario(
    "remap",
    Group.REMAP,
    "What does HVO do to the 8 vmemmap pages of a 2 MiB huge page, and what does each CPU read there?",
    "eight frames, then one shared by all with the tails read-only, then eight again; 7 pages are saved",
    "The tails of an optimized folio show the head's page: struct page 64 looks like a second head.",
    1,
    frozenset(),
    _remap,
)

BATCH = (HUGE_PAGE, NEIGHBOUR, HugePage(Pfn(0x4400), HSTATE_2M))


def _batch(cpus: int) -> Setup:
    boot = BootConfig(MEMORY_BYTES, cpus, BATCH)
    return Setup(boot, (optimize_list(0),), (), (vmemmap_page(HUGE_PAGE, 0), vmemmap_page(HUGE_PAGE, 1)))


REMAP_BATCH = Scenario(
    "remap-batch",
    Group.REMAP,
    "Three huge pages are optimized in one batch: how many RCU waits and flushes is that?",
    "one RCU wait and two flushes, of the whole TLB: after the splits, and after the remaps",
    "f13b83fdd996 (v6.7): a batch costs what one page costs; with `--variant flags-and` each page costs it.",
    1,
    frozenset(),
    _batch,
    costlier=(FLAGS_AND,),
)

HUGE_PAGE_1G = HugePage(Pfn(0x40000), HSTATE_1G)
MEMORY_BYTES_1G = (2048 + 128) << 20


def _remap_1g(cpus: int) -> Setup:
    # As distributions build it: without the debugging checks, which would double the number of steps.
    config = KernelConfig(debug_vm=False, debug_list=False, page_poisoning=False)
    return _phases(BootConfig(MEMORY_BYTES_1G, cpus, (HUGE_PAGE_1G,), kernel=config), range(1))


REMAP_1G = Scenario(
    "remap-1g",
    Group.REMAP,
    "And for a 1 GiB huge page, whose 4096 vmemmap pages fill 8 PMDs?",
    "8 PMDs are split, 4096 PTEs point to one frame, 4095 pages are saved; restore brings them back",
    "Past 33 pages the range flush becomes a full flush: 16 MiB of vmemmap costs each CPU its whole TLB.",
    1,
    frozenset(),
    _remap_1g,
)
