"""The exception handlers: page faults with the spurious check, and an Oops for everything else.

arch/x86/mm/fault.c: spurious_kernel_fault() (rule L4), show_fault_oops(), dump_pagetable().
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeAlias, assert_never

from emu.addr import Pfn, VirtAddr
from emu.cpu.ops import Annotate
from emu.cpu.software import Trap, TrapOutcome
from emu.guest.guest_core import GuestTrap
from emu.mmu import GENERAL_PROTECTION, Denied, NonCanonical
from emu.paging.pte import Pte
from emu.paging.walk import BusError, FaultCode, entry_address
from kernel_model.core.events import Oops, SpuriousFault
from kernel_model.layout import VMEMMAP_END, VMEMMAP_START
from kernel_model.mm.pgtable import entry_get

_SPURIOUS_CODES = (FaultCode.WRITE | FaultCode.PROTECTION, FaultCode.FETCH | FaultCode.PROTECTION)
_TABLES = {4: "PGD", 3: "PUD", 2: "PMD", 1: "PTE"}
_TRAPS = {
    0: "divide error",
    1: "debug",
    3: "int3",
    6: "invalid opcode",
    12: "stack segment",
    13: "general protection fault",
}


LooksWhenWhole: TypeAlias = Callable[[Callable[[], Awaitable[None]]], Coroutine[object, None, None]]
"""Awaits its argument at a moment at which no entry of vmemmap is absent only for a while."""


class TrapHandlers:
    """Handlers over the page tables of init_mm. `absent`: how to look where vmemmap is not present."""

    def __init__(self, root: Pfn, absent: LooksWhenWhole | None = None) -> None:
        self._root = root
        self._absent = absent

    async def handle(self, trap: Trap) -> TrapOutcome:
        """exc_page_fault() and the like, run on the CPU that trapped, with interrupts off."""
        match trap.why:
            case Denied(fault=fault):
                return await self._page_fault(trap, fault.va, fault.code)
            case BusError(va=va, pa=pa):
                lines = (f"bus error: no memory at physical address {pa:#x}", *_oops(trap, 0))
                await Annotate(Oops(va, 0, lines))
                return TrapOutcome.KILL
            case NonCanonical(va=va, vector=vector):
                message = _TRAPS[vector]
                if vector == GENERAL_PROTECTION:  # exc_general_protection() alone looks for the address
                    message += f", probably for non-canonical address {va:#x}"
                return await self._die(trap, va, 0, message)
            case GuestTrap(vector=vector):
                return await self._die(trap, 0, 0, _TRAPS.get(vector, f"trap {vector}"))
            case _:
                assert_never(trap.why)

    async def _page_fault(self, trap: Trap, va: VirtAddr, code: FaultCode) -> TrapOutcome:
        entries = await self._walk(va)
        spurious = code in _SPURIOUS_CODES
        if self._absent is not None and _is_of_vmemmap(va) and FaultCode.PROTECTION not in code:
            spurious = True

            async def look() -> None:
                nonlocal entries
                entries = await self._walk(va)

            await self._absent(look)
        if spurious and _all_permit(entries, code):
            await Annotate(SpuriousFault(va, int(code)))
            return TrapOutcome.RETRY
        lines = (*_headline(va, code), _dump_pagetable(entries), *_oops(trap, int(code)), f"CR2: {va:016x}")
        await Annotate(Oops(va, int(code), lines))
        return TrapOutcome.KILL

    async def _walk(self, va: VirtAddr) -> list[tuple[int, Pte]]:
        """The entries for `va`, level by level, down to the leaf or to the first that is not present."""
        entries = []
        table = self._root
        for level in (4, 3, 2, 1):
            entry = await entry_get(entry_address(table, va, level))
            entries.append((level, entry))
            if not entry.present or (entry.page_size and level > 1):
                break
            table = entry.pfn
        return entries

    async def _die(self, trap: Trap, va: int, code: int, message: str) -> TrapOutcome:
        await Annotate(Oops(va, code, _oops(trap, code, message)))
        return TrapOutcome.KILL


def _is_of_vmemmap(va: VirtAddr) -> bool:
    return VMEMMAP_START <= va < VMEMMAP_END


def _all_permit(entries: list[tuple[int, Pte]], code: FaultCode) -> bool:
    """spurious_kernel_fault_check() at the leaf and, above a PTE, at the PMD; no higher level is asked."""
    level, leaf = entries[-1]
    if not leaf.present or (level > 1 and not leaf.page_size):
        return False
    asked = entries[-2:] if level == 1 else entries[-1:]
    return not any(
        (FaultCode.WRITE in code and not entry.writable) or (FaultCode.FETCH in code and entry.no_execute)
        for _, entry in asked
    )


def _headline(va: VirtAddr, code: FaultCode) -> tuple[str, ...]:
    what = "instruction fetch" if FaultCode.FETCH in code else "read access"
    if FaultCode.WRITE in code:
        what = "write access"
    why = "not-present page"
    if FaultCode.RESERVED in code:
        why = "reserved bit violation"
    elif FaultCode.PROTECTION in code:
        why = "permissions violation"
    first = f"BUG: unable to handle page fault for address: {va:016x}"
    if va < 4096:
        first = f"BUG: kernel NULL pointer dereference, address: {va:016x}"
    exploit: tuple[str, ...] = ()
    if FaultCode.FETCH in code and FaultCode.PROTECTION in code and FaultCode.RESERVED not in code:
        exploit = ("kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",)
    return (
        *exploit,
        first,
        f"#PF: supervisor {what} in kernel mode",
        f"#PF: error_code(0x{int(code):04x}) - {why}",
    )


def _dump_pagetable(entries: list[tuple[int, Pte]]) -> str:
    words = []
    for level, entry in entries:
        words.append(f"{_TABLES[level]} {int(entry):x}")
        if level == 4:
            words.append(f"P4D {int(entry):x}")
    return " ".join(words)


def _oops(trap: Trap, code: int, message: str = "Oops") -> tuple[str, ...]:
    """__die_header() and what follows: one line with the description, then who and where."""
    return (
        f"Oops: {message}: {code:04x} [#1] PREEMPT SMP NOPTI",
        f"CPU: {trap.cpu} Comm: {trap.context}",
        f"RIP: {trap.site}",
    )
