"""Small programs for two and three CPUs whose every interleaving can be run: the reduction's touchstones.

A routine notes what it saw in `seen`, which is emptied when a CPU 0 routine begins; what was seen and what was
found are a run's outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, VirtAddr, frame_start, page_start
from emu.condition import MemoryIs, Word, WordIs
from emu.machine import Grain
from emu.models import LAZY, LAZY_SINGLE, CpuModel
from emu.ops import (
    AddWords,
    Annotate,
    Await,
    CmpXchg,
    Copy,
    Decide,
    FetchAdd,
    Fill,
    Invlpg,
    Load,
    SetInterrupts,
    Store,
)
from emu.pte import Pte, PteBit
from emu.walk import Walk
from firmware.load import load_program
from firmware.program import Argument
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.search import Freedom, Next, Search
from hvolab.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from hvolab.strategy import Strategy
from kernel_model.boot import BootConfig, Kernel, System, boot
from kernel_model.events import FlushBegun, FlushCompleted, OperationBegun, OperationReturned, PageFreed
from kernel_model.flush.broken import NO_FLUSH, SKIPS_LAST_CPU
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.image import HugePage
from kernel_model.layout import PAGE_OFFSET, PerCpu, direct_map
from kernel_model.page import Offset, field
from kernel_model.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_TABLE, mk_pte
from kernel_model.spinlock import spin_lock, spin_unlock

X = PerCpu(0).buffer
Y = VirtAddr(PerCpu(1).buffer)
LOCK = Word("lock")
PAGE = vmemmap_page(HUGE_PAGE, 1)  # a tail page: nobody else touches it
WORD = field(PAGE, Offset.COMPOUND_HEAD)
OTHER = field(vmemmap_page(HUGE_PAGE, 2), Offset.COMPOUND_HEAD)


def _boot_walk() -> Walk:
    system = boot(BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE,)))
    found = system.machine.cpus[0].mmu.peek(PAGE)
    assert isinstance(found, Walk)
    return found


WALK = _boot_walk()
PMD = direct_map(WALK.steps[-1].pa)
LEAF = WALK.leaf  # the 2 MiB leaf that backs this part of vmemmap at boot
FRAME = Pfn(WALK.pa >> PAGE_SHIFT)  # what backs PAGE at boot
TABLE = Pfn(0x3000)  # a free frame to make a page table of
NEW = Pfn(0x3001)  # a free frame to map instead
NEW_WORD = direct_map(frame_start(NEW) + Offset.COMPOUND_HEAD)
PTE = direct_map(frame_start(TABLE) + 8 * ((PAGE >> PAGE_SHIFT) & 511))
OTHER_PTE = VirtAddr(PTE + 8)

Body = Callable[[Kernel], Awaitable[None]]
seen: dict[int, list[object]] = {}


def split_table() -> bytes:
    base = LEAF.pfn & ~511
    return b"".join(mk_pte(base + n, PAGE_KERNEL).to_bytes(8, "little") for n in range(512))


def actor(cpu: int, body: Body) -> KernelActor:
    async def routine(kernel: Kernel, huge: HugePage) -> None:
        seen[cpu] = []
        await body(kernel)

    return KernelActor(cpu, f"t{cpu}", routine)


def note(cpu: int, what: object) -> None:
    seen[cpu].append(what)


def setup_of(*bodies: Body, boot_config: BootConfig | None = None) -> Setup:
    config = boot_config or BootConfig(MEMORY_BYTES, len(bodies), (HUGE_PAGE,), model=LAZY)
    config = replace(config, cpus=len(bodies))
    return Setup(config, tuple(actor(cpu, body) for cpu, body in enumerate(bodies)), (), ())


def config_of(model: CpuModel = LAZY) -> BootConfig:
    return BootConfig(MEMORY_BYTES, 2, (HUGE_PAGE,), model=model)


# -- bodies ------------------------------------------------------------------------------------------


def loads(cpu: int, *addresses: VirtAddr) -> Body:
    async def body(kernel: Kernel) -> None:
        for va in addresses:
            note(cpu, await Load(va))

    return body


def stores(*pairs: tuple[VirtAddr, int]) -> Body:
    async def body(kernel: Kernel) -> None:
        for va, value in pairs:
            await Store(va, value)

    return body


def then(*bodies: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        for one in bodies:
            await one(kernel)

    return body


def repeated(count: int, one: Body) -> Body:
    return then(*([one] * count))


def locked(inner: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        await spin_lock(LOCK)
        await inner(kernel)
        await spin_unlock(LOCK)

    return body


def increment(cpu: int, va: VirtAddr) -> Body:
    async def body(kernel: Kernel) -> None:
        old = await Load(va)
        note(cpu, old)
        await Store(va, 1 + old)

    return body


async def flush_all(kernel: Kernel) -> None:
    await kernel.flush.flush_tlb_all()


async def flush_page(kernel: Kernel) -> None:
    await kernel.flush.flush_tlb_kernel_range(PAGE, VirtAddr(PAGE + PAGE_BYTES))


async def grace_period(kernel: Kernel) -> None:
    await kernel.rcu.synchronize_rcu()


def without_interrupts(inner: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        await SetInterrupts(False)
        await inner(kernel)
        await SetInterrupts(True)

    return body


async def split(kernel: Kernel) -> None:
    await Fill(direct_map(frame_start(TABLE)), split_table())
    await Store(PMD, Pte.make(TABLE, PAGE_TABLE))


def set_pte(pfn: int, bits: PteBit) -> Body:
    return stores((PTE, mk_pte(pfn, bits)))


def freed(pfn: Pfn) -> Body:
    async def body(kernel: Kernel) -> None:
        await Annotate(PageFreed(pfn, 0, 1))

    return body


async def pretended_flush(kernel: Kernel) -> None:
    begun = await Annotate(FlushBegun("flush_tlb_all", 0, 1 << 64, frozenset()))
    await Annotate(FlushCompleted(begun))


def operation(inner: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        begun = await Annotate(OperationBegun("operation", ()))
        await inner(kernel)
        await Annotate(OperationReturned("operation", begun, None))

    return body


async def copy_out(kernel: Kernel) -> None:
    await Copy(direct_map(frame_start(NEW)), PAGE, PAGE_BYTES)


def take_reference(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        note(cpu, await CmpXchg(X, 0, cpu + 1))

    return body


def decides(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        if await Decide("shall I"):
            await Store(X, cpu + 1)

    return body


def waits_for_memory(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await Await(MemoryIs(X - PAGE_OFFSET, 1))
        note(cpu, await Load(Y))

    return body


def after_x(body: Body) -> Body:
    """`body` once X is 1."""

    async def waiting(kernel: Kernel) -> None:
        await Await(MemoryIs(X - PAGE_OFFSET, 1))
        await body(kernel)

    return waiting


async def set_x(kernel: Kernel) -> None:
    await Store(X, 1)


async def invlpg_other(kernel: Kernel) -> None:
    await Invlpg(page_start(OTHER))


async def fill_new(kernel: Kernel) -> None:
    await Fill(NEW_WORD, bytes([7]) * 64)


def until_y(kernel: Kernel) -> Awaitable[None]:
    return Await(MemoryIs(Y - PAGE_OFFSET, 1))


def reader_section(cpu: int, inner: Body) -> Body:
    async def body(kernel: Kernel) -> None:
        await FetchAdd(PerCpu(cpu).rcu_nesting, 1)
        await inner(kernel)
        await FetchAdd(PerCpu(cpu).rcu_nesting, -1)

    return body


def allocates(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        page = await kernel.pages.alloc_page("test")
        note(cpu, page is not None)

    return body


SPIN = """
again:
    cmp qword ptr [rdi], 0
    jne out
    pause
    jmp again
out:
    mov rax, [rsi]
    hlt
"""


def spinning_guest() -> GuestActor:
    """Waits with PAUSE until X is not 0, then loads Y."""
    arguments = (Argument("x", "rdi", "the word it waits for", "address"), Argument("y", "rsi", "the word it loads", "address"))
    program = load_program("spin", SPIN, arguments=arguments)
    return GuestActor(1, program, (("x", int(X)), ("y", int(Y))))


class Outcomes:
    """Passes a search through and collects what each complete run has seen."""

    def __init__(self, search: Search) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self._search = search

    def begin(self) -> bool:
        seen.clear()
        return self._search.begin()

    def strategy(self, system: System, freedoms: frozenset[Freedom]) -> Strategy:
        return self._search.strategy(system, freedoms)

    def end(self, system: System) -> Next:
        if not system.machine.enabled():
            registers = tuple(
                cpu.core.registers()["rax"] for cpu in system.machine.cpus if cpu.core is not None
            )
            self.seen.add((registers, *((cpu, tuple(values)) for cpu, values in sorted(seen.items()))))
        return self._search.end(system)

    def extent(self) -> str:
        return self._search.extent()


@dataclass(frozen=True, slots=True)
class Small:
    name: str
    setup: Setup


def _words(name: str, count: int, initial: int) -> Body:
    async def body(kernel: Kernel) -> None:
        for _ in range(count):
            await AddWords(((Word(name), initial),))

    return body


def _waits(name: str, value: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await Await(WordIs(Word(name), value))

    return body


def all_small() -> tuple[Small, ...]:
    remap_ro = set_pte(NEW, PAGE_KERNEL_RO)
    remap_rw = set_pte(NEW, PAGE_KERNEL)
    protect = set_pte(FRAME, PAGE_KERNEL_RO)
    flag_guest = spinning_guest()
    return (
        Small("two loads each", setup_of(loads(0, X, Y), loads(1, X, Y))),
        Small("store, load of one word", setup_of(stores((X, 1), (Y, 1)), loads(1, Y, X))),
        Small(
            "store, store, and loads",
            setup_of(then(stores((X, 1)), loads(0, Y)), then(stores((Y, 1)), loads(1, X))),
        ),
        Small("store, store of one word", setup_of(stores((X, 1), (X, 2)), stores((X, 3)))),
        Small("unlocked increments", setup_of(increment(0, X), increment(1, X))),
        Small("locked increments", setup_of(locked(increment(0, X)), locked(increment(1, X)))),
        Small(
            "two lock regions and a reader",
            setup_of(then(locked(stores((X, 1))), locked(stores((X, 2)))), then(locked(loads(1, X)))),
        ),
        Small("three compare-exchanges", setup_of(take_reference(0), take_reference(1), take_reference(2))),
        Small("a bulk copy against a store", setup_of(then(copy_out, loads(0, NEW_WORD)), stores((WORD, 5)))),
        Small("a bulk fill against a load", setup_of(fill_new, loads(1, NEW_WORD))),
        Small("mutual flushes", setup_of(flush_all, flush_all)),
        Small("a flush under a lock", setup_of(locked(flush_all), locked(stores((X, 1))))),
        Small(
            "a flush under a lock that is wanted with interrupts off",
            setup_of(locked(flush_all), without_interrupts(locked(stores((X, 1))))),
        ),
        Small(
            "a flush and a region with interrupts off",
            setup_of(then(flush_all, stores((X, 1))), without_interrupts(loads(1, X))),
        ),
        Small("split and flush against one load", setup_of(then(split, flush_page), loads(1, WORD))),
        Small("remap without a flush", setup_of(operation(then(split, remap_ro)), loads(1, WORD, WORD))),
        Small(
            "remap and a flush that is none", setup_of(then(split, remap_rw, pretended_flush), loads(1, WORD))
        ),
        Small(
            "remap, free, then a load", setup_of(then(split, remap_rw, freed(FRAME)), loads(1, WORD, WORD))
        ),
        Small(
            "remap, flush, free", setup_of(then(split, remap_rw, flush_page, freed(FRAME)), loads(1, WORD))
        ),
        Small(
            "remap, free, flush", setup_of(then(split, remap_rw, freed(FRAME), flush_page), loads(1, WORD))
        ),
        Small("write protection against a store", setup_of(then(split, protect), stores((WORD, 1)))),
        Small(
            "protection taken back",
            setup_of(then(split, protect, set_pte(FRAME, PAGE_KERNEL)), stores((WORD, 1))),
        ),
        Small(
            "not present, then present",
            setup_of(then(split, set_pte(0, PteBit(0)), remap_rw), loads(1, WORD)),
        ),
        Small(
            "copy, remap, and a store to the page",
            setup_of(operation(then(split, copy_out, remap_rw)), stores((WORD, 1))),
        ),
        Small(
            "a grace period against a reader",
            setup_of(then(grace_period, stores((X, 1))), reader_section(1, loads(1, X))),
        ),
        Small(
            "own INVLPG against a PTE store",
            setup_of(then(split, remap_rw, stores((X, 1))), _invlpg_then_loads),
        ),
        Small("waiting for memory", setup_of(stores((Y, 1), (X, 1), (Y, 2)), waits_for_memory(1))),
        Small("waiting for a word that goes on", setup_of(_words("w", 2, 1), _waits("w", 1))),
        Small("decisions", setup_of(decides(0), decides(1))),
        Small(
            "allocations",
            setup_of(allocates(0), allocates(1), boot_config=replace(config_of(), kernel=_plain())),
        ),
        Small(
            "a flag before the flush, and a late reader",
            setup_of(then(split, remap_rw, stores((Y, 1)), flush_page), after_x(loads(1, Y, WORD)), set_x),
        ),
        Small(
            "a flush that begins before or after the split",
            setup_of(then(split, remap_rw), then(pretended_flush, loads(1, WORD))),
        ),
        Small(
            "a late flush that is none",
            setup_of(after_x(loads(0, WORD)), then(split, remap_rw, set_x), after_x(pretended_flush)),
        ),
        Small(
            "a late free",
            setup_of(after_x(loads(0, WORD)), then(split, remap_rw, set_x), after_x(freed(FRAME))),
        ),
        Small(
            "an invalidation beside a detached table",
            setup_of(
                after_x(then(invlpg_other, loads(0, WORD))),
                then(split, _other_table, set_x),
                after_x(remap_rw),
            ),
        ),
        Small(
            "a return between two stores",
            setup_of(
                after_x(stores((WORD, 1), (WORD, 2))),
                operation(then(split, copy_out, remap_rw, set_x, until_y)),
                after_x(stores((Y, 1))),
            ),
        ),
        Small(
            "a handler step by step",
            setup_of(
                then(flush_page, stores((Y, 1))),
                loads(1, Y, X),
                boot_config=replace(config_of(), policy=replace(UPSTREAM, grain=Grain.STEPWISE)),
            ),
        ),
        Small(
            "a guest that spins",
            replace(
                setup_of(stores((Y, 5), (X, 1), (Y, 6)), loads(1)),
                actors=(actor(0, stores((Y, 5), (X, 1), (Y, 6))), flag_guest),
            ),
        ),
        Small("stale directory", setup_of(then(split, _second_table), loads(1, WORD, OTHER))),
        Small(
            "one entry a page",
            setup_of(then(split, remap_rw), loads(1, WORD, WORD), boot_config=config_of(LAZY_SINGLE)),
        ),
        Small(
            "a policy that skips the reader",
            setup_of(
                then(split, remap_rw, flush_page),
                loads(1, WORD),
                boot_config=replace(config_of(), policy=SKIPS_LAST_CPU),
            ),
        ),
        Small(
            "a policy that flushes nothing",
            setup_of(
                then(split, remap_rw, flush_page),
                loads(1, WORD),
                boot_config=replace(config_of(), policy=NO_FLUSH),
            ),
        ),
    )


def _plain():
    from kernel_model.kconfig import KernelConfig

    return KernelConfig(debug_vm=False, debug_list=False, page_poisoning=False)


async def _invlpg_then_loads(kernel: Kernel) -> None:
    await Invlpg(PAGE)
    note(1, await Load(X))
    note(1, await Load(WORD))


async def _other_table(kernel: Kernel) -> None:
    """The PMD leads to another table; the old one is detached."""
    other = Pfn(0x3002)
    await Fill(direct_map(frame_start(other)), split_table())
    await Store(PMD, Pte.make(other, PAGE_TABLE))


async def _second_table(kernel: Kernel) -> None:
    """The PMD leads to another table, and the old one is written to afterwards."""
    await _other_table(kernel)
    await Store(PTE, mk_pte(NEW, PAGE_KERNEL))
