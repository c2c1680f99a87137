"""The steps of a plan as kernel routines on one CPU, one after the other."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from emu.cpu.ops import CmpXchg, FetchAdd, ThisCpu
from hvolab.checked.error import InputError
from hvolab.dump.real.plan import Join, Plan, PoolStep, Resize, Write
from hvolab.subject.scenario import KernelActor
from kernel_model.boot import Kernel
from kernel_model.core.stack import ListHead
from kernel_model.layout import HstateFields
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import Offset, field, lru


def actors_of(plan: Plan) -> tuple[KernelActor, ...]:
    """One actor for each step. Running it may raise InputError: a frame it needs is in use."""
    return tuple(KernelActor(0, _name(step), partial(_run, step)) for step in plan.steps)


def _name(step: PoolStep) -> str:
    """In the words of `--do`; it tells apart what differs, since a schedule's fingerprint has it."""
    match step:
        case Join(hstate=h, pages=pages):
            return f"optimize {len(pages)} of {h.name} from {pages[0].pfn:#x}"
        case Resize(hstate=h, count=count):
            return f"shrink={h.name}:{count}"
        case Write(enabled=enabled):
            return f"sysctl={enabled}"
        case _:
            assert_never(step)


async def _run(step: PoolStep, kernel: Kernel, _huge: HugePage) -> None:
    match step:
        case Join():
            await _join(kernel, step)
        case Resize(hstate=h, count=count):
            await kernel.pool.set_max_huge_pages(h, count)
        case Write(enabled=enabled):
            await kernel.hvo.write_sysctl(enabled)
        case _:
            assert_never(step)


async def _join(kernel: Kernel, step: Join) -> None:
    """The second half of growing: folios allocated in this order are optimized and put into the pool."""
    async with ListHead(await ThisCpu()) as folio_list:
        await kernel.lists.init(folio_list)
        for page in step.pages:
            if page.pfn in step.again:
                await _allocate(kernel, page)
                await kernel.lists.add(lru(page.folio), folio_list)
            else:
                await kernel.lists.move(lru(page.folio), folio_list)
        await kernel.pool.prep_and_add_allocated_folios(step.hstate, folio_list)
    await FetchAdd(HstateFields(step.hstate.order).max_huge_pages, len(step.pages))


async def _allocate(kernel: Kernel, page: HugePage) -> None:
    """only_alloc_fresh_hugetlb_folio(), of these frames and no others."""
    folio = await kernel.pages.alloc_contig_range(page.pfn, page.hstate.order, "huge page")
    if folio is None:
        raise InputError(f"folio {page.pfn:#x} cannot join the pool again: its frames are in use")
    await CmpXchg(field(folio, Offset.REFCOUNT), 1, 0, 4)
    await kernel.pool.init_new_hugetlb_folio(folio)
