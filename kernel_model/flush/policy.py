"""What a flush policy is told and asked, and what it does if it says nothing else.

A change of page tables leaves something stale, which is *issued*. Where Linux flushes, the policy
*dispatches*: it tells CPUs. A ticket stands for that. The kernel *relies* on a ticket before it goes on, and
where it *releases* pages: these a policy may hold back, until a tick of its CPU.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TypeAlias

from emu.addr import PAGE_SHIFT, VirtAddr
from emu.cpu.ops import Annotate, CmpXchg, FetchAndNot, Load
from emu.cpu.software import Grain
from emu.paging.models import CpuModel
from emu.paging.pte import Pte, PteBit
from kernel_model.core.events import FlushBegun, FlushCompleted, FlushesSettled
from kernel_model.core.history import History
from kernel_model.core.sites import FlushSite
from kernel_model.core.smp import Receive, run_and_acknowledge

WHOLE_ADDRESS_SPACE = (VirtAddr(0), VirtAddr(1 << 64))


@dataclass(frozen=True, slots=True)
class PolicySetup:
    """The machine as a policy sees it. `ceiling` is tlb_single_page_flush_ceiling, in 4 KiB pages.

    `invlpgb_count_max`: how many of them one INVLPGB takes; 0 on CPUs that have none.
    """

    online: frozenset[int]
    ceiling: int
    invlpgb_count_max: int = 0


@dataclass(frozen=True, slots=True)
class StaleRange:
    """CPUs may hold translations of [start, end), in bytes, that the page tables do not have any more.

    Of the whole address space: nobody says of what.
    """

    site: FlushSite
    start: VirtAddr
    end: VirtAddr

    @property
    def pages(self) -> int:
        """Of 4 KiB."""
        return (self.end - self.start) >> PAGE_SHIFT

    @classmethod
    def everywhere_at(cls, site: FlushSite) -> StaleRange:
        return cls(site, *WHOLE_ADDRESS_SPACE)

    @property
    def everywhere(self) -> bool:
        return (self.start, self.end) == WHOLE_ADDRESS_SPACE

    @property
    def function(self) -> str:
        """What Linux calls to flush that."""
        return "flush_tlb_all" if self.everywhere else "flush_tlb_kernel_range"


@dataclass(frozen=True, slots=True)
class Ticket:
    """What was dispatched: the event that announced it, and the request sent to CPUs, if there are any."""

    stale: StaleRange
    begun: int | None = None
    request: int | None = None


async def announce(stale: StaleRange, cpus: frozenset[int], generation: int = 0) -> int:
    """That this is being flushed, on these CPUs. Returns the event.

    `generation`, from 1: it is not completed alone, but settled with all of that one and earlier ones. Raises
    TypeError for what are no CPUs, ValueError for what is no generation.
    """
    if not isinstance(cpus, frozenset):
        raise TypeError(f"announce() wants the CPUs as a frozenset, not {cpus!r}")
    if type(generation) is not int or generation < 0:
        raise ValueError(f"{generation!r} is no generation: they are numbered from 1, and 0 is none")
    return await Annotate(FlushBegun(stale.function, stale.start, stale.end, cpus, stale.site, generation))


async def settle(generation: int) -> None:
    """The kernel relies on all of that generation and earlier ones from here on. Raises ValueError."""
    if type(generation) is not int or generation < 1:
        raise ValueError(f"{generation!r} is no generation that could be settled: they are numbered from 1")
    await Annotate(FlushesSettled(generation))


async def complete(ticket: Ticket) -> None:
    """The kernel relies on it from here on. Raises TypeError for what is no ticket."""
    if not isinstance(ticket, Ticket):
        raise TypeError(f"dispatch() has to return a Ticket, not {ticket!r}")
    if ticket.begun is not None:
        await Annotate(FlushCompleted(ticket.begun))


Deed: TypeAlias = Callable[[], Awaitable[None]]
"""Something that the kernel is about to do, at the time and in the order that a policy says."""


@dataclass(frozen=True, slots=True)
class EntryChange:
    """The entry of a page table at `at`, in the direct map, that is to become `value`.

    `make` stores that, `clear` makes it not present.
    """

    at: VirtAddr
    value: Pte
    make: Deed
    clear: Deed

    async def age(self) -> None:
        """Make it old: until a walk has set A again no TLB fills it (SDM 3A 4.8)."""
        await FetchAndNot(self.at, PteBit.ACCESSED)

    async def make_if_old(self) -> bool:
        """Store the new entry if no walk has set A, in one step. Whether it was stored."""
        entry = Pte(await Load(self.at))
        return not entry.accessed and await CmpXchg(self.at, entry, self.value) == entry

    async def exchange(self, value: Pte) -> Pte:
        """Store that, whatever walks set meanwhile. Returns what it was at that moment. Raises TypeError."""
        if not isinstance(value, int):
            raise TypeError(f"exchange() wants an entry, not {value!r}")
        entry = await Load(self.at)
        while (found := await CmpXchg(self.at, entry, value)) != entry:
            entry = found
        return Pte(entry)


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages that were mapped, and are to be freed: now, or held on a list of this CPU to be freed later."""

    free: Deed
    hold: Deed


def any_cpu(model: CpuModel) -> CpuModel:
    """Whatever it is."""
    return model


class FlushPolicy:
    """Of one kernel: made anew for each run. What it remembers is in words of the machine."""

    def __init__(self, setup: PolicySetup) -> None:
        self._setup = setup

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        """The entry that translates that is to become another, and has when this returns.

        What faults where it was made not present, `NamedPolicy.absent` is asked about.
        """
        del stale
        await entry.make()

    async def issue(self, stale: StaleRange) -> None:
        """Page tables have been changed, where Linux does not flush at once."""
        del stale

    async def dispatch(self, stale: StaleRange) -> Ticket:
        """Linux flushes that here: announce FlushBegun, and tell CPUs."""
        raise NotImplementedError

    async def rely(self, ticket: Ticket) -> None:
        """Return when the kernel may rely on it. From then on it does."""
        raise NotImplementedError

    async def leave(self) -> None:
        """This CPU begins to switch address spaces. Until it has it uses no address that could be stale."""

    async def arrive(self) -> None:
        """It has."""

    async def tick(self, free_held: Deed) -> None:
        """The local timer of this CPU, where it was asked for (`NeedTick`). Interrupts are off.

        It comes between any two steps of this CPU while they are on. `free_held` frees all pages that this
        CPU holds, whatever they were held for.
        """
        del free_held

    async def release(self, ticket: Ticket | None, pages: Pages) -> None:
        """Pages are to be freed that were mapped before. None: what was dispatched has been relied on."""
        if ticket is not None:
            await self.rely(ticket)
            await complete(ticket)
        await pages.free()

    async def flush(self, stale: StaleRange) -> None:
        """All of it, and rely on it."""
        ticket = await self.dispatch(stale)
        await self.rely(ticket)
        await complete(ticket)


# What is on the stack of kernel code, by name, and is no function of Linux.
OURS = frozenset(
    {"change", "leave", "arrive", "issue", "dispatch", "rely", "release", "flush", "announce", "complete"}
    | {"changed", "flush_tlb_all_and_free", "free_flushed", "<lambda>", "free", "hold", "tick", "free_held"}
    | {"settle", "age", "make_if_old", "exchange"}
)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy by name, and how to make one for a machine. `history`: of one that a kernel had.

    `source`: where it is from; `obligation`: what makes it right, or what it fails to do. `receive`: what
    CPUs do that it interrupts. `hardware`: what the CPUs have to be. `absent`: how the page-fault handler
    looks at page tables where vmemmap is not present, which may be for a moment only; None: it is for good.
    """

    name: str
    summary: str
    build: Callable[[PolicySetup], FlushPolicy]
    grain: Grain = Grain.ATOMIC  # of the interrupt handler; stepwise where its steps can be told apart
    history: History | None = None
    source: str = ""
    obligation: str = ""
    receive: Receive = run_and_acknowledge
    hardware: Callable[[CpuModel], CpuModel] = any_cpu
    absent: Callable[[Deed], Coroutine[object, None, None]] | None = None
