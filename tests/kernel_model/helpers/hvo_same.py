"""Small inputs for HVO and the pool, and a run of each as values that can be compared.

So it can be told what a variant does otherwise than upstream, and that it does so nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from hvo_lab import FOLIO_LIST, MIB, NON_HVO_FOLIOS, Lab, Routine, lab_of_order

from emu.addr import Pfn, VirtAddr, frame_start
from emu.events import Annotated, MachineEvent, RoutineSite, TlbFilled
from kernel_model.boot import BootConfig, Kernel
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.policy import OURS, NamedPolicy, PolicySetup
from kernel_model.flush.tlb import KernelTlb
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, Primitives
from kernel_model.layout import PerCpu
from kernel_model.mm.failures import AllocationFailures, FailAt, FailFrom, NoFailures
from kernel_model.mm.hstate import HSTATE_2M, HSTATES
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.pool.hugetlb_pool import PoolPrimitives
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant

Act = Callable[[Lab], object]
ENOUGH = NoFailures()

FIRST, SECOND, APART = (HugePage(Pfn(pfn), HSTATE_2M) for pfn in (0x4000, 0x4200, 0xA000))
TWO = BootConfig(128 * MIB, 2, (FIRST, SECOND))
FAR = BootConfig(384 * MIB, 2, (FIRST, APART))
OFF = KernelConfig(vmemmap_optimize_enabled=False)


@dataclass(frozen=True)
class Story:
    """What is done: `prepare` first, unrecorded and without failures, then `act`."""

    name: str
    config: BootConfig
    act: Act
    prepare: Act = id
    failures: AllocationFailures = ENOUGH


def do(lab: Lab, routine: Callable[[], Routine]) -> None:
    """To its end, which may be a BUG."""
    lab.start(routine)
    lab.run()


def optimize(huge: HugePage) -> Act:
    return lambda lab: do(lab, lambda: lab.kernel.hvo.hugetlb_vmemmap_optimize_folio(huge.hstate, huge.folio))


def restore(huge: HugePage) -> Act:
    return lambda lab: do(lab, lambda: lab.kernel.hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio))


def optimize_list(lab: Lab) -> None:
    hvo = lab.kernel.hvo
    do(lab, lambda: hvo.hugetlb_vmemmap_optimize_folios(HSTATE_2M, VirtAddr(FOLIO_LIST)))


def restore_list(lab: Lab) -> None:
    hvo, lists = lab.kernel.hvo, (VirtAddr(FOLIO_LIST), VirtAddr(NON_HVO_FOLIOS))
    do(lab, lambda: hvo.hugetlb_vmemmap_restore_folios(HSTATE_2M, *lists))


def resize(count: int) -> Act:
    return lambda lab: do(lab, lambda: lab.kernel.pool.set_max_huge_pages(HSTATE_2M, count))


def pooled(lab: Lab) -> None:
    """The folios of the list are in the pool, and free."""

    async def fill() -> None:
        await lab.kernel.pool.prep_and_add_allocated_folios(HSTATE_2M, VirtAddr(FOLIO_LIST))
        await lab.kernel.lists.init(VirtAddr(FOLIO_LIST))

    do(lab, fill)


def dissolve(lab: Lab) -> None:
    do(lab, lambda: lab.kernel.pool.dissolve_free_hugetlb_folio(FIRST.folio))


def error(pfn: int) -> Act:
    return lambda lab: do(lab, lambda: lab.kernel.raw.memory_failure(lab.page(pfn)))


def both(*acts: Act) -> Act:
    def act(lab: Lab) -> None:
        for one in acts:
            one(lab)

    return act


def switched_off(lab: Lab) -> None:
    do(lab, lambda: lab.kernel.hvo.write_sysctl(0))


def in_use(lab: Lab) -> None:
    """What may not be given to HVO: a folio that is not frozen and not hugetlb."""
    lab.write_struct(FIRST.pfn, lab.struct_page(FIRST.pfn)._replace(page_type=0xFFFF_FFFF, refcount=1))


def _large() -> BootConfig:
    return lab_of_order(16).config


def _singly(act: Callable[[HugePage], Act]) -> Act:
    return lambda lab: act(lab.config.huge_pages[0])(lab)


STORIES: tuple[Story, ...] = (
    Story("optimize", TWO, optimize(FIRST)),
    Story("optimize what is", TWO, optimize(FIRST), optimize(FIRST)),
    Story("optimize, switched off", TWO, optimize(FIRST), switched_off),
    Story("optimize a page in use", TWO, optimize(FIRST), in_use),
    Story("optimize, no head page", TWO, optimize(FIRST), failures=FailAt(frozenset({0}))),
    Story("optimize, no page table", TWO, optimize(FIRST), failures=FailAt(frozenset({1}))),
    Story("optimize, no memory", TWO, optimize(FIRST), failures=FailFrom(0)),
    Story("optimize in a split PMD", TWO, optimize(FIRST), optimize(SECOND)),
    Story("optimize hotplugged", replace(TWO, origin=VmemmapOrigin.HOTPLUG), optimize(FIRST)),
    Story("optimize self-hosted", replace(TWO, origin=VmemmapOrigin.SELF_HOSTED), optimize(FIRST)),
    Story("roll back", _large(), _singly(optimize), failures=FailAt(frozenset({2}))),
    Story("restore", TWO, restore(FIRST), optimize(FIRST)),
    Story("restore what is not optimized", TWO, restore(FIRST)),
    Story("restore, no memory", TWO, restore(FIRST), optimize(FIRST), FailAt(frozenset({3}))),
    Story("optimize a list", TWO, optimize_list),
    Story("optimize a list, the first is", TWO, optimize_list, optimize(FIRST)),
    Story("optimize a list, switched off", TWO, optimize_list, switched_off),
    Story("optimize a list, and again", FAR, optimize_list, failures=FailAt(frozenset({0, 4}))),
    Story("restore a list", TWO, restore_list, optimize_list),
    Story("restore a list of nothing optimized", TWO, restore_list),
    Story("restore a list, no memory", TWO, restore_list, optimize_list, FailAt(frozenset({9}))),
    Story("grow", BootConfig(128 * MIB, 2, ()), resize(2)),
    Story("shrink", TWO, resize(0), pooled),
    Story("shrink, switched off before", replace(TWO, kernel=OFF), resize(0), pooled),
    Story("shrink, no memory", TWO, resize(0), pooled, failures=FailFrom(0)),
    Story("shrink, memory for one", TWO, resize(0), pooled, failures=FailFrom(10)),
    Story("shrink after an error", TWO, resize(0), both(pooled, error(FIRST.pfn + 3))),
    Story("dissolve", TWO, dissolve, pooled),
    Story("dissolve, no memory", TWO, dissolve, pooled, failures=FailFrom(0)),
    Story("error in the pool", TWO, error(FIRST.pfn + 3), pooled),
)


def run(story: Story, variant: NamedVariant | NamedPolicy = UPSTREAM_HVO) -> list[MachineEvent]:
    """Every event of the story's act, on a CPU without choices; CPU 1 is idle. Upstream prepares."""
    if isinstance(variant, NamedPolicy):
        lab = Lab(replace(story.config, policy=variant))
    else:
        lab = Lab(replace(story.config, variant=variant))
    lab.write(PerCpu(1).idle, (1).to_bytes(8, "little"))
    own, lab.kernel = lab.kernel, _upstream(lab)
    story.prepare(lab)
    lab.kernel = own
    lab.kernel.pages.failures = story.failures
    lab.mark()
    story.act(lab)
    return lab.recent()


def _upstream(lab: Lab) -> Kernel:
    """The kernel of that machine, its HVO, pool and flushes upstream's."""
    own, config = lab.kernel, lab.config.kernel
    setup = PolicySetup(frozenset({0, 1}), config.tlb_single_page_flush_ceiling)
    flush = KernelTlb(UPSTREAM.build(setup), own.lists)
    root = frame_start(lab.machine.cpus[0].mmu.root)
    parts = (own.pages, own.lists, flush, own.rcu, own.key)
    hvo = HugetlbVmemmap(Primitives(config, *parts, HSTATES, root))
    hvo.hugetlb_vmemmap_init()
    pool = Hugetlb(PoolPrimitives(config, own.pages, own.lists, hvo, own.raw, HSTATES))
    return replace(own, hvo=hvo, flush=flush, pool=pool)


def difference(story: Story, variant: NamedVariant | NamedPolicy, upstream: list[MachineEvent]) -> str:
    """What the variant leaves out (-) and does beside (+), or does at another time; "" for no difference.

    Where more follows from it than that, the first thing that is different: upstream's, then the variant's.
    """
    one, other = _kept(upstream), _kept(run(story, variant))
    if [_same(event) for event in one] == [_same(event) for event in other]:
        return ""
    words, others = _words(one), _words(other)
    left, more = Counter(words), Counter(others)
    left, more = left - more, more - left
    told = [f"- {_times(count)}{text}" for text, count in left.items()]
    told += [f"+ {_times(count)}{text}" for text, count in more.items()]
    if len(told) <= 3:
        return ", ".join(told) or ("in another order" if words != others else "other values")
    return "{} -> {} ...".format(*next(pair for pair in zip(words, others, strict=False) if len({*pair}) > 1))


def _kept(events: list[MachineEvent]) -> list[MachineEvent]:
    """Without what the TLB caches meanwhile."""
    return [event for event in events if not isinstance(event, TlbFilled)]


_HOW = ("site", "entry", "to_entry", "source_entry", "source", "begun", "request")


def _same(event: MachineEvent) -> object:
    """An event without where in the code it was made, how it was translated, and numbers of other events."""
    of = event.payload if isinstance(event, Annotated) else event
    names = of._fields if isinstance(of, tuple) else [one.name for one in fields(of)]  # type: ignore[arg-type]
    kept = [name for name in names if name not in _HOW]
    return event.cpu, type(of), [getattr(of, name) for name in kept]


def _words(events: list[MachineEvent]) -> list[str]:
    """Each event in short: what it was, and in which function of the kernel."""
    return [_word(event) for event in events]


def _word(event: MachineEvent) -> str:
    kind = type(event.payload if isinstance(event, Annotated) else event).__name__
    site = getattr(event, "site", None)
    if not isinstance(site, RoutineSite):
        return kind
    place = next(name for name in reversed(site.functions) if name[0] not in "_<" and name not in OURS)
    return f"{place.replace('hugetlb_vmemmap_optimized', 'optimized')}: {kind}"


def _times(count: int) -> str:
    return "" if count == 1 else f"{count} x "
