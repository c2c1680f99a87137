"""Small programs for two and three CPUs whose every interleaving can be run: the reduction's touchstones.

A routine notes what it saw in the machine's ledger; what was seen and what was found are a run's outcome.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, replace

from emu.addr import PAGE_BYTES, PAGE_SHIFT, Pfn, PhysAddr, VirtAddr, frame_start, page_start
from emu.cpu.condition import Acknowledged, MemoryIs, Word, WordIs
from emu.cpu.ops import (
    AddWords,
    Annotate,
    Await,
    CmpXchg,
    Copy,
    Count,
    Decide,
    FetchAdd,
    FetchAndNot,
    FetchOr,
    Fill,
    FlushTlbPages,
    Load,
    SendIpi,
    SetInterrupts,
    Store,
    Transact,
)
from emu.ledger import Ledger, LedgerEntry
from emu.machine import Machine
from emu.paging.models import LAZY, CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.walk import Walk
from firmware.load import load_program
from firmware.program import Argument
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.explore.search.interface import Freedom, InMemory, Next, Strategy
from hvolab.judge.sight.sight import Sight
from hvolab.subject.picker import Picker
from hvolab.subject.scenario import GuestActor, KernelActor, Setup, vmemmap_page
from kernel_model.boot import BootConfig, Kernel, System, boot
from kernel_model.core.events import FlushBegun, FlushCompleted, OperationBegun, OperationReturned, PageFreed
from kernel_model.core.smp import CALL_FUNCTION_VECTOR, FlushPages, SyncCore
from kernel_model.core.spinlock import spin_lock, spin_unlock
from kernel_model.layout import PAGE_OFFSET, PerCpu, direct_map
from kernel_model.mm.image import HugePage
from kernel_model.mm.page import HugetlbFlag, Offset, field
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_TABLE, mk_pte

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
NEW_START = direct_map(frame_start(NEW))
NEW_WORD = direct_map(frame_start(NEW) + Offset.COMPOUND_HEAD)
PTE = direct_map(frame_start(TABLE) + 8 * ((PAGE >> PAGE_SHIFT) & 511))
OTHER_PTE = VirtAddr(PTE + 8)

Body = Callable[[Kernel], Awaitable[None]]


def split_table() -> bytes:
    base = LEAF.pfn & ~511
    return b"".join(mk_pte(base + n, PAGE_KERNEL).to_bytes(8, "little") for n in range(512))


def actor(cpu: int, body: Body) -> KernelActor:
    async def routine(kernel: Kernel, huge: HugePage) -> None:
        await body(kernel)

    return KernelActor(cpu, f"t{cpu}", routine)


@dataclass(frozen=True)
class _Saw:
    """One more thing that a routine on that CPU has seen."""

    cpu: int
    what: Hashable

    def __call__(self, ledger: Ledger) -> None:
        ledger.set(_seen(self.cpu), (*ledger.get(_seen(self.cpu), ()), self.what))


def _seen(cpu: int) -> LedgerEntry:
    return LedgerEntry("seen", cpu)


async def note(cpu: int, what: Hashable) -> None:
    await Transact(_Saw(cpu, what))


def noted(machine: Machine) -> tuple[tuple[Hashable, ...], ...]:
    """What was seen on each CPU."""
    return tuple(machine.ledger.get(_seen(cpu.number), ()) for cpu in machine.cpus)


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
            await note(cpu, await Load(va))

    return body


def stores(*pairs: tuple[VirtAddr, int]) -> Body:
    async def body(kernel: Kernel) -> None:
        for va, value in pairs:
            await Store(va, value)

    return body


def stores_twice(va: VirtAddr) -> Body:
    """Two stores to one word, in two functions, so that findings tell them apart."""

    async def first_store() -> None:
        await Store(va, 1)

    async def second_store() -> None:
        await Store(va, 2)

    async def body(kernel: Kernel) -> None:
        await first_store()
        await second_store()

    return body


def flag(number: int) -> VirtAddr:
    return VirtAddr(X + 64 + 8 * number)


def sets(number: int) -> Body:
    return stores((flag(number), 1))


def waits(number: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await Await(MemoryIs(PhysAddr(flag(number) - PAGE_OFFSET), 1))

    return body


async def first_store(kernel: Kernel) -> None:
    await Store(WORD, 1)


async def second_store(kernel: Kernel) -> None:
    await Store(WORD, 2)


async def asks_for_a_flush(kernel: Kernel) -> None:
    """The request is out, and its sender goes on before it waits."""
    request = await SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR, FlushPages(PAGE, 1))
    await Store(Y, 1)
    await Await(Acknowledged(request))


async def asks_for_nothing(kernel: Kernel) -> None:
    request = await SendIpi(frozenset({1}), CALL_FUNCTION_VECTOR, SyncCore())
    await Await(Acknowledged(request))
    await Store(X, 1)


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
        await note(cpu, old)
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
        await Annotate(OperationReturned("operation", begun, None, ()))

    return body


async def holds_the_folio(kernel: Kernel) -> None:
    """Begins an operation on the huge page that never returns."""
    await Annotate(OperationBegun("never returns", (HUGE_PAGE.folio,)))


async def breaks_the_flag_in_an_operation(kernel: Kernel) -> None:
    """The head says that the folio is optimized, which it is not."""
    await FetchOr(field(HUGE_PAGE.folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)
    begun = await Annotate(OperationBegun("operation", (HUGE_PAGE.folio,)))
    await Annotate(OperationReturned("operation", begun, None, (HUGE_PAGE.folio,)))


def on_the_folio(inner: Body) -> Body:
    """An operation that announces the huge page, and has taken it up when it returns."""

    async def body(kernel: Kernel) -> None:
        begun = await Annotate(OperationBegun("operation", (HUGE_PAGE.folio,)))
        await inner(kernel)
        await Annotate(OperationReturned("operation", begun, None, (HUGE_PAGE.folio,)))

    return body


async def says_it_is_optimized(kernel: Kernel) -> None:
    await FetchOr(field(HUGE_PAGE.folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)


async def says_it_is_not(kernel: Kernel) -> None:
    await FetchAndNot(field(HUGE_PAGE.folio, Offset.PRIVATE), HugetlbFlag.VMEMMAP_OPTIMIZED)


async def counts_a_page(kernel: Kernel) -> None:
    await Count("nr_memmap_pages", 1)


async def set_pmd_to_the_leaf(kernel: Kernel) -> None:
    """The 2 MiB leaf of boot is back; the table is detached."""
    await Store(PMD, LEAF)


async def fills_the_table(kernel: Kernel) -> None:
    """What it held when it was in use."""
    await Fill(direct_map(frame_start(TABLE)), split_table())


async def zeroes_the_table(kernel: Kernel) -> None:
    await Fill(direct_map(frame_start(TABLE)), bytes(PAGE_BYTES))


async def maps_for_nobodys_folio(kernel: Kernel) -> None:
    """Maps what backs PAGE eight pages further on, where no huge page has its struct pages."""
    await Store(VirtAddr(PTE + 8 * 8), mk_pte(FRAME, PAGE_KERNEL))


async def copy_out(kernel: Kernel) -> None:
    await Copy(direct_map(frame_start(NEW)), PAGE, PAGE_BYTES)


async def copy_x(kernel: Kernel) -> None:
    await Copy(NEW_START, X, 64)


def take_reference(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await note(cpu, await CmpXchg(X, 0, cpu + 1))

    return body


def decides(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        if await Decide("shall I"):
            await Store(X, cpu + 1)

    return body


def waits_for_memory(cpu: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await Await(MemoryIs(X - PAGE_OFFSET, 1))
        await note(cpu, await Load(Y))

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
    await FlushTlbPages(page_start(OTHER))


async def fill_new(kernel: Kernel) -> None:
    await Fill(NEW_WORD, bytes([7]) * 128)


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
        await note(cpu, page is not None)

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
    arguments = (
        Argument("x", "rdi", "the word it waits for", "address"),
        Argument("y", "rsi", "the word it loads", "address"),
    )
    program = load_program("spin", SPIN, arguments=arguments)
    return GuestActor(1, program, (("x", int(X)), ("y", int(Y))))


class Outcomes:
    """Passes a search through and collects what each complete run has seen."""

    def __init__(self, strategy: Strategy) -> None:
        self.seen: set[tuple[object, ...]] = set()
        self._strategy = strategy

    def begin(self) -> bool:
        return self._strategy.begin()

    @property
    def shared(self) -> int:
        return self._strategy.shared

    @property
    def remembered(self) -> InMemory:
        return self._strategy.remembered

    def picker(self, system: System, sight: Sight, freedoms: frozenset[Freedom]) -> Picker:
        return self._strategy.picker(system, sight, freedoms)

    def end(self, system: System) -> Next:
        if not system.machine.enabled():
            registers = tuple(
                cpu.core.registers()["rax"] for cpu in system.machine.cpus if cpu.core is not None
            )
            saw = (
                (cpu.number, system.machine.ledger.get(_seen(cpu.number), ())) for cpu in system.machine.cpus
            )
            self.seen.add((registers, *saw))
        return self._strategy.end(system)

    def extent(self) -> str:
        return self._strategy.extent()


GO, DONE = Word("go"), Word("done")
SECOND = Pfn(0x3002)


async def ends_one_frame_twice(kernel: Kernel) -> None:
    """An operation that returns unflushed ends one version of FRAME, one still under way the next."""
    await split(kernel)
    await flush_all(kernel)

    async def returns_unflushed(_kernel: Kernel) -> None:
        await Store(PTE, mk_pte(NEW, PAGE_KERNEL))

    async def flushes_in_the_end(_kernel: Kernel) -> None:
        await Store(PTE, mk_pte(SECOND, PAGE_KERNEL))
        await AddWords(((GO, 1),))
        await Await(WordIs(DONE, 1))
        await flush_all(kernel)

    await operation(returns_unflushed)(kernel)
    await Store(PTE, mk_pte(FRAME, PAGE_KERNEL))  # by nobody's operation
    await operation(flushes_in_the_end)(kernel)


async def reads_in_between(kernel: Kernel) -> None:
    await Await(WordIs(GO, 1))
    await Load(WORD)
    await AddWords(((DONE, 1),))
