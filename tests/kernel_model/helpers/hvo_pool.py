"""The pool as tests see it: its numbers and lists, read in memory, and how to resize it."""

from __future__ import annotations

from dataclasses import replace

from hvo_lab import MIB, Lab

from emu.addr import Pfn
from emu.paging.models import LAZY_SINGLE
from kernel_model.boot import BootConfig, PoolAtBoot
from kernel_model.core.events import (
    BadPage,
    KernelBug,
    KernelWarning,
)
from kernel_model.layout import (
    HstateFields,
    pfn_to_page,
)
from kernel_model.mm.failures import ALLOCATIONS
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

FIRST = HugePage(Pfn(0x4000), HSTATE_2M)
SECOND = HugePage(Pfn(0x4200), HSTATE_2M)
THIRD = HugePage(Pfn(0x4400), HSTATE_2M)
EMPTY = BootConfig(128 * MIB, 2, (), model=LAZY_SINGLE)
POOLED = replace(EMPTY, huge_pages=(FIRST, SECOND, THIRD), pool=PoolAtBoot.POOLED)


def numbers(lab: Lab, h: Hstate = HSTATE_2M) -> tuple[int, int, int, int]:
    """nr, free, surplus, max"""
    of = HstateFields(h.order)
    words = (of.nr_huge_pages, of.free_huge_pages, of.surplus_huge_pages, of.max_huge_pages)
    nr, free, surplus, most = (lab.word_at(va) for va in words)
    return nr, free, surplus, most


def free_list(lab: Lab, h: Hstate = HSTATE_2M) -> list[int]:
    """The frames of the folios on the free list."""
    return [(page - pfn_to_page(0)) // 64 for page in lab.linked(HstateFields(h.order).freelist)]


def optimized(lab: Lab, pfn: int) -> bool:
    """All its pages show one frame, of which the first alone is writable; or each has its own."""
    shown = lab.mapping(HugePage(Pfn(pfn), HSTATE_2M))
    frames = {frame for frame, _ in shown}
    writable = ["W" in flags.split() for _, flags in shown]
    flag = lab.struct_page(pfn).private >> 4 & 1
    if len(frames) == 1:
        assert writable == [True] + [False] * 7
        assert flag == 1
        return True
    assert len(frames) == 8
    assert all(writable)
    assert flag == 0
    return False


def resize(lab: Lab, count: int) -> None:
    lab.call(lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, count))


def at_rest(lab: Lab) -> None:
    """No lock is held, nothing is wrong, and as many frames back vmemmap as the counters say."""
    assert lab.heard(KernelBug, KernelWarning, BadPage) == []
    assert [word for word, held in lab.machine.words.items() if held and word != ALLOCATIONS] == []
    backing = len({lab.frame(va) for va in range(*vmemmap_range(lab), 4096)})
    assert sum(lab.counters().values()) == backing


def vmemmap_range(lab: Lab) -> tuple[int, int]:
    first = pfn_to_page(0)
    return first, first + lab.machine.memory.frames * 64
