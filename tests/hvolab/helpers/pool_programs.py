"""Programs of pool operations for two CPUs, their random runs, and what must be true when they have ended.

An operation is what a user of Linux can cause: a write to a sysctl, memory that goes offline, a fault that
takes a huge page and an exit that gives it back, an error in memory. Who gives a folio back is who took it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, VirtAddr
from emu.choice import Choice
from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, Load, Store
from emu.events import Annotated, Loaded, LoadedBytes, MachineEvent
from emu.paging.models import LAZY
from emu.paging.walk import Walk
from emu.trace import Listener
from hvolab.catalog.common import MEMORY_BYTES
from hvolab.explore.search.interface import Freedom, Point, size
from hvolab.explore.search.randomly import Pct, RandomStrategy, Uniform
from hvolab.subject.outcome import Limits, Run
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor, Setup, with_deviation
from kernel_model.boot import BootConfig, Kernel, PoolAtBoot, System
from kernel_model.core.events import PageAllocated
from kernel_model.core.kconfig import KernelConfig
from kernel_model.core.spinlock import mutex_lock, mutex_unlock
from kernel_model.layout import (
    FIRST_FREE_PA,
    FOLIO_LIST,
    FREE_HPAGE_WORK_PENDING,
    FREE_HPAGE_WORK_RUNNING,
    HPAGE_FREELIST,
    HUGETLB_OPTIMIZE_VMEMMAP_KEY,
    PMD_SIZE,
    VMEMMAP_OPTIMIZE_ENABLED,
    VMEMMAP_START,
    HstateFields,
    page_to_pfn,
    pfn_to_page,
)
from kernel_model.mm.failures import ALLOCATIONS, AllocationFailures, NoFailures
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.mm.page import PGTY_HUGETLB, HugetlbFlag, Offset, compound_head, nth_page, page_of_lru
from kernel_model.mm.page import field as field_of
from kernel_model.mm.page_ref import page_ref_dec_and_test
from kernel_model.variants.named import UPSTREAM_HVO, NamedVariant

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
SIZES = {"2M": HSTATE_2M, "4M": Hstate("4M", 10), "16M": Hstate("16M", 12)}
FIRST = 0x4000
# Where huge pages are at boot, and where the allocator goes first when it makes some.
BLOCKS = (FIRST, FIRST + 0x200, FIRST + 0x400, FIRST + 0x600, 0x7C00, 0x800)
# The head, structs with a meaning of their own, one behind a page boundary (a fake head), others.
RAW_PAGES = (0, 1, 2, 64, 100, 511)
# One worker runs the work item, and never twice at once.
WORKER = Word("kworker")
BOOTED = Word("hugetlb_init() is over")
MOST_STEPS = 60_000
PATIENCE = 6_000


# -- what a program is -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resize:
    """nr_hugepages of the page size of boot, or of 2M"""

    small: bool
    count: int


@dataclass(frozen=True)
class Sysctl:
    enabled: int


@dataclass(frozen=True)
class Dissolve:
    """What memory that goes offline does with the huge page it finds at the start of a block"""

    block: int


@dataclass(frozen=True)
class Demote:
    number: int


@dataclass(frozen=True)
class Take:
    small: bool


@dataclass(frozen=True)
class Put:
    """Give back what this thread took first; the last reference goes where nobody may sleep"""


@dataclass(frozen=True)
class Error:
    """memory_failure()"""

    block: int
    page: int

    @property
    def pfn(self) -> int:
        return BLOCKS[self.block] + self.page


Op: TypeAlias = Resize | Sysctl | Dissolve | Demote | Take | Put | Error


@dataclass(frozen=True)
class Program:
    """What is booted, and what each of the two CPUs does. Huge pages that are not pooled join on CPU 0."""

    threads: tuple[tuple[Op, ...], tuple[Op, ...]]
    pages: int = 1
    size: str = "2M"
    pool: PoolAtBoot = PoolAtBoot.POOLED
    origin: VmemmapOrigin = VmemmapOrigin.BOOT
    failures: AllocationFailures = field(default_factory=NoFailures)
    ceiling: int = 33
    """tlb_single_page_flush_ceiling: above it a flush is one of everything"""

    @property
    def hstate(self) -> Hstate:
        return SIZES[self.size]

    def has(self, *kinds: type) -> bool:
        return any(isinstance(op, kinds) for ops in self.threads for op in ops)

    @property
    def errors(self) -> frozenset[int]:
        """The frames that have a memory error."""
        return frozenset(op.pfn for ops in self.threads for op in ops if isinstance(op, Error))

    @property
    def grows(self) -> bool:
        """Whether huge pages may join a pool."""
        return self.pool is not PoolAtBoot.POOLED or self.has(Resize, Demote)


@dataclass(frozen=True)
class Way:
    """A random way through a run. `depth`: of PCT; 0 for one that takes every option as often as any."""

    seed: int
    depth: int = 0


# -- how it runs -----------------------------------------------------------------------------------------


class Patient(Pct):
    """PCT, but who waits in a loop does not wait for ever: after so many steps every option is as likely."""

    def __init__(self, seed: int, depth: int) -> None:
        super().__init__(seed, 1, depth, length=600)
        self._later = Random(seed)

    def choose(self, point: Point) -> int:
        return self._later.randrange(size(point)) if self._step > PATIENCE else super().choose(point)

    def stepped(self, choice: Choice) -> None:
        super().stepped(choice)


class World:
    """One run: who holds what, and which errors are known to whom since when."""

    def __init__(self, errors: frozenset[int]) -> None:
        self._errors = errors
        self.held: tuple[list[VirtAddr], list[VirtAddr]] = ([], [])
        self.failed: dict[int, int] = {}  # by frame: the event after which memory_failure() was over
        self.told: list[str] = []
        self._looked: dict[tuple[int, int], int] = {}
        self._system: System | None = None

    def listener(self, system: System) -> Listener:
        self._system = system
        return self._observe

    @property
    def now(self) -> int:
        assert self._system is not None
        return self._system.machine.trace.next_number

    def handed_out(self, first: int, count: int, since: Callable[[int], int], what: str) -> None:
        """No error may be known in these frames that was over before somebody looked."""
        for pfn, over in self.failed.items():
            if first <= pfn < first + count and over < since(pfn):
                self.told.append(f"{what} with a memory error in it is handed out")

    def _observe(self, number: int, event: MachineEvent) -> None:
        match event:
            case Loaded(cpu=cpu, va=va):
                self._look(number, cpu, va, 1)
            case LoadedBytes(cpu=cpu, va=va, length=length):
                self._look(number, cpu, va, length)
            case Annotated(cpu=cpu, payload=PageAllocated(pfn=pfn, order=order)):
                self.handed_out(pfn, 1 << order, lambda raw: self._looked.get((cpu, raw), number), "a frame")
            case _:
                pass

    def _look(self, number: int, cpu: int, va: int, length: int) -> None:
        for pfn in self._errors:
            if va <= field_of(pfn_to_page(pfn), Offset.FLAGS) < va + length:
                self._looked[cpu, pfn] = number


def setup_of(program: Program, world: World, variant: NamedVariant = UPSTREAM_HVO) -> Setup:
    frames = program.hstate.pages_per_huge_page
    huge = tuple(HugePage(Pfn(FIRST + n * frames), program.hstate) for n in range(program.pages))
    config = BootConfig(
        MEMORY_BYTES,
        2,
        huge,
        model=LAZY,
        kernel=KernelConfig(tlb_single_page_flush_ceiling=program.ceiling),
        origin=program.origin,
        failures=program.failures,
        pool=program.pool,
    )
    actors = tuple(KernelActor(cpu, f"cpu{cpu}", _thread(program, world, cpu)) for cpu in (0, 1))
    return with_deviation(Setup(config, actors, (), ()), variant)


def _thread(program: Program, world: World, cpu: int) -> Callable[..., object]:
    async def routine(kernel: Kernel, huge: HugePage) -> None:
        await _boot(kernel, program, cpu)
        for op in program.threads[cpu]:
            await _perform(kernel, program, world, cpu, op)

    return routine


async def _boot(kernel: Kernel, program: Program, cpu: int) -> None:
    """What is on a list joins the pool. At boot nobody else is there yet."""
    match program.pool:
        case PoolAtBoot.LISTED if cpu == 0:
            await kernel.pool.prep_and_add_allocated_folios(program.hstate, FOLIO_LIST)
        case PoolAtBoot.BOOTMEM if cpu == 0:
            await kernel.pool.prep_and_add_bootmem_folios(program.hstate, FOLIO_LIST)
            await AddWords(((BOOTED, 1),))
        case PoolAtBoot.BOOTMEM:
            await Await(WordIs(BOOTED, 1))
        case _:
            pass


async def _perform(kernel: Kernel, program: Program, world: World, cpu: int, op: Op) -> None:
    pool = kernel.pool
    match op:
        case Resize(small=small, count=count):
            await pool.set_max_huge_pages(HSTATE_2M if small else program.hstate, count)
        case Sysctl(enabled=enabled):
            await Store(VMEMMAP_OPTIMIZE_ENABLED, enabled)
        case Dissolve(block=block):
            found = await compound_head(pfn_to_page(BLOCKS[block]), HUGETLB_OPTIMIZE_VMEMMAP_KEY)
            await pool.dissolve_free_hugetlb_folio(found)
        case Demote(number=number):
            if program.hstate != HSTATE_2M:
                await pool.demote_pool_huge_page(program.hstate, HSTATE_2M, number)
        case Take(small=small):
            await _take(kernel, HSTATE_2M if small else program.hstate, world, cpu)
        case Put():
            if world.held[cpu]:
                await _put(kernel, world.held[cpu].pop(0))
        case Error(pfn=pfn):
            await kernel.raw.memory_failure(pfn_to_page(pfn))
            world.failed.setdefault(pfn, world.now)


async def _take(kernel: Kernel, h: Hstate, world: World, cpu: int) -> None:
    begun = world.now
    folio = await kernel.pool.dequeue_hugetlb_folio(h)
    if folio is not None:
        world.held[cpu].append(folio)
        world.handed_out(page_to_pfn(folio), h.pages_per_huge_page, lambda _: begun, "a huge page")


async def _put(kernel: Kernel, folio: VirtAddr) -> None:
    if not await page_ref_dec_and_test(folio):
        return
    await kernel.pool.free_huge_folio(folio)
    await mutex_lock(WORKER)
    if await Load(FREE_HPAGE_WORK_PENDING):
        await kernel.pool.kworker()
    await mutex_unlock(WORKER)


def run_of(program: Program, way: Way, variant: NamedVariant = UPSTREAM_HVO) -> tuple[Run, World]:
    search: RandomStrategy = Patient(way.seed, way.depth) if way.depth else Uniform(way.seed, 1)
    world = World(program.errors)
    search.begin()
    setup = setup_of(program, world, variant)
    done = run(setup, lambda _system: search.guide(ALL), (world.listener,), Limits(MOST_STEPS))
    return done, world


# -- at rest ---------------------------------------------------------------------------------------------


class Rest:
    """What the pool, vmemmap and the allocator have between them when nobody runs any more."""

    def __init__(self, program: Program, system: System, world: World) -> None:
        self._machine, self._pages, self._world = system.machine, system.kernel.pages, world
        self._sizes = {h.order: h for h in (program.hstate, HSTATE_2M)}
        self._errors = program.errors
        self._folios = dict(self._all_folios())  # order, by head

    def breaches(self) -> Iterator[str]:
        for order in self._sizes:
            yield from self._pool(order)
        yield from self._kernel_words()
        yield from self._frames()

    def _pool(self, order: int) -> Iterator[str]:
        """The numbers are those of the lists, and every folio is on the list it belongs on."""
        of = HstateFields(order)
        free, used = self._linked(of.freelist), self._linked(of.activelist)
        nr, surplus = self._word(of.nr_huge_pages), self._word(of.surplus_huge_pages)
        if (nr, self._word(of.free_huge_pages)) != (len(free) + len(used), len(free)):
            yield "the pool's numbers are not those of its lists"
        if not 0 <= surplus <= nr:
            yield "more surplus pages than pages"
        if sorted(free + used) != sorted(folio for folio, size in self._folios.items() if size == order):
            yield "the folios of the pool are not the hugetlb folios there are"
        held = [folio for folios in self._world.held for folio in folios]
        if sorted(used) != sorted(folio for folio in held if self._folios.get(folio) == order):
            yield "the active folios are not those that somebody has"
        for folio in free + used:
            freed = self._word(field_of(folio, Offset.PRIVATE)) & HugetlbFlag.FREED
            count = self._word(field_of(folio, Offset.MAPCOUNT)) >> 32
            if (bool(freed), count) != ((True, 0) if folio in free else (False, 1)):
                yield "a folio's count or its flag is not that of its list"

    def _kernel_words(self) -> Iterator[str]:
        flags = [self._word(field_of(folio, Offset.PRIVATE)) for folio in self._folios]
        optimized = sum(bool(flag & HugetlbFlag.VMEMMAP_OPTIMIZED) for flag in flags)
        if self._word(HUGETLB_OPTIMIZE_VMEMMAP_KEY) != optimized:
            yield "the static key does not count the optimized folios"
        if any(map(self._word, (HPAGE_FREELIST, FREE_HPAGE_WORK_PENDING, FREE_HPAGE_WORK_RUNNING))):
            yield "the work item is not done"
        if any(held for word, held in self._machine.words.items() if word not in (ALLOCATIONS, BOOTED)):
            yield "a lock is held"

    def _frames(self) -> Iterator[str]:
        """Every frame has one owner, or has left circulation for an error in it."""
        owned = [*range(FIRST_FREE_PA >> PAGE_SHIFT), *self._behind_vmemmap()]
        for folio, order in self._folios.items():
            owned += range(page_to_pfn(folio), page_to_pfn(folio) + (1 << order))
        if len(set(owned)) != len(owned):
            yield "a frame has two owners"
        if any(self._pages.is_free(pfn) for pfn in owned if pfn >= FIRST_FREE_PA >> PAGE_SHIFT):
            yield "a frame that is in use is free"
        missing = self._machine.memory.frames - len(set(owned)) - self._pages.free_frames()
        if missing and (missing < 0 or not self._errors or self._unexplained(set(owned))):
            yield "frames have no owner"

    def _unexplained(self, owned: set[int]) -> bool:
        """Whether frames are missing though no block they were part of has an error in it."""
        largest = max(self._sizes)
        spoilt = {pfn >> largest for pfn in self._errors}
        frames = set(range(self._machine.memory.frames)) - owned
        return any(pfn >> largest not in spoilt and not self._pages.is_free(pfn) for pfn in frames)

    def _behind_vmemmap(self) -> set[int]:
        """The frames behind vmemmap, and the page table that leads to them if there is one by now."""
        frames: set[int] = set()
        for va in range(VMEMMAP_START, VMEMMAP_START + PMD_SIZE, PAGE_BYTES):
            walk = self._walk(VirtAddr(va))
            frames.add(walk.pa >> PAGE_SHIFT)
            if walk.size != PMD_SIZE:
                frames.add(walk.steps[-1].pa >> PAGE_SHIFT)
        return frames

    def _all_folios(self) -> Iterator[tuple[VirtAddr, int]]:
        """Heads from the lowest on: what looks like one inside of another is a fake head."""
        pfn = 0
        while pfn < self._machine.memory.frames:
            page, order = pfn_to_page(pfn), HSTATE_2M.order
            if self._word(field_of(page, Offset.PAGE_TYPE)) & 0xFFFF_FFFF == PGTY_HUGETLB:
                order = self._word(field_of(nth_page(page, 1), Offset.FLAGS)) & 0xFF
                yield page, order
            pfn += 1 << order

    def _linked(self, head: VirtAddr) -> list[VirtAddr]:
        found, entry = [], VirtAddr(self._word(head))
        while entry != head and len(found) < 100:
            found.append(page_of_lru(entry))
            entry = VirtAddr(self._word(entry))
        return found

    def _walk(self, va: VirtAddr) -> Walk:
        found = self._machine.cpus[0].mmu.peek(va)
        assert isinstance(found, Walk)
        return found

    def _word(self, va: VirtAddr) -> int:
        return self._machine.memory.read_word(self._walk(va).pa)
