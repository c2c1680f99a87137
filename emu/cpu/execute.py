"""Carrying out one op of a kernel routine on a CPU: translate, move the data, tell the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import assert_never

from emu.addr import PAGE_BYTES, PAGE_MASK, WORD_MASK, VirtAddr
from emu.broadcast import Broadcasts
from emu.choice import Answerer, DecideQuestion, Defaults
from emu.cpu.apic import Apic
from emu.cpu.condition import Word
from emu.cpu.cpu import Cpu
from emu.cpu.ops import (
    Acknowledge,
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
    FlushTlb,
    FlushTlbPages,
    Invlpgb,
    InvlpgbAll,
    Load,
    LoadBytes,
    NeedTick,
    Op,
    Rewrite,
    SendIpi,
    SetInterrupts,
    StackRoom,
    Store,
    ThisCpu,
    TlbSync,
    Transact,
    WordOp,
)
from emu.events import (
    Annotated,
    Copied,
    Filled,
    IpiAcknowledged,
    IpiSent,
    Loaded,
    LoadedBytes,
    MachineEvent,
    Stored,
    TickNeeded,
)
from emu.ledger import Ledger
from emu.memory import PhysicalMemory
from emu.mmu import Denied, NonCanonical, Translation
from emu.paging.tlb import InvalidateAll, Invlpg
from emu.paging.walk import Access, BusError, Privilege
from emu.trace import Trace


class OpRefused(Exception):
    """An access of the op was refused; nothing of the op has happened."""

    def __init__(self, why: Denied | BusError | NonCanonical) -> None:
        super().__init__(str(why))
        self.why = why


class Blocked(Exception):
    """Code that may not wait tried to."""


class Executor:
    """Executes ops. `words` are the machine's named words, `counters` those of each CPU, `ledger` its own."""

    def __init__(
        self,
        memory: PhysicalMemory,
        trace: Trace,
        apic: Apic,
        broadcasts: Broadcasts,
        words: Counter[Word],
        counters: Counter[tuple[str, int]],
        ledger: Ledger,
    ) -> None:
        self.answerer: Answerer = Defaults()
        self._memory = memory
        self._trace = trace
        self._apic = apic
        self._broadcasts = broadcasts
        self._words = words
        self._counters = counters
        self._ledger = ledger

    def execute(self, cpu: Cpu, op: Op) -> object:
        """Perform the op and return its result. Raises OpRefused when an access was."""
        match op:
            case Load() | Store() | CmpXchg() | FetchAdd() | FetchOr() | FetchAndNot():
                return self._access(cpu, op)
            case Copy():
                self._copy(cpu, op)
            case LoadBytes():
                return self._load_bytes(cpu, op)
            case Fill():
                self._fill(cpu, op)
            case Rewrite():
                return self._rewrite(cpu, op)
            case FlushTlbPages(va=va, pages=pages):
                cpu.mmu.invalidate(Invlpg(va, cpu.mmu.pcid, pages))
            case FlushTlb():
                cpu.mmu.invalidate(InvalidateAll())
            case Invlpgb(va=va, pages=pages):
                self._broadcasts.send(cpu.number, cpu.site(), Invlpg(va, cpu.mmu.pcid, pages))
            case InvlpgbAll():
                self._broadcasts.send(cpu.number, cpu.site(), InvalidateAll())
            case TlbSync():
                self._broadcasts.complete(cpu.number, cpu.site())
            case SetInterrupts(enabled=enabled):
                were, cpu.interrupts_enabled = cpu.interrupts_enabled, enabled
                return were
            case SendIpi():
                return self._send(cpu, op)
            case NeedTick(cpus=cpus):
                self._apic.need_tick(cpus)
                self._trace.add(TickNeeded(cpu.number, cpu.site(), tuple(sorted(cpus))))
            case Acknowledge(request=request):
                self._apic.acknowledge(cpu.number, request)
                self._trace.add(IpiAcknowledged(cpu.number, request))
            case Await(then=changes) | AddWords(changes=changes):
                self._add(changes)
            case Decide(label=label, options=options, about=about):
                return self.answerer.answer(DecideQuestion(cpu.number, label, options, about=about))
            case Annotate(payload=payload):
                return self._trace.add(Annotated(cpu.number, cpu.site(), payload))
            case ThisCpu():
                return cpu.number
            case Count(counter=counter, delta=delta):
                self._counters[counter, cpu.number] += delta
            case StackRoom(size=size):
                before, cpu.stack = cpu.stack, cpu.stack + size
                return before
            case Transact(transaction=transaction):
                return transaction(self._ledger)
            case _:
                assert_never(op)
        return None

    def _translate(self, cpu: Cpu, va: VirtAddr, length: int, access: Access) -> Translation:
        if (va & PAGE_MASK) + length > PAGE_BYTES:
            raise ValueError(f"kernel op of {length} bytes at {va:#x} crosses a page boundary")
        found = cpu.mmu.translate(va, access, Privilege.SUPERVISOR)
        if not isinstance(found, Translation):
            raise OpRefused(found)
        return found

    def _access(self, cpu: Cpu, op: WordOp) -> int | None:
        room = PAGE_BYTES - (op.va & PAGE_MASK)
        if op.size > room and isinstance(op, Load | Store):
            return self._across_pages(cpu, op, room)
        access = Access.READ if isinstance(op, Load) else Access.WRITE
        at = self._translate(cpu, op.va, op.size, access)
        mask = (1 << (8 * op.size)) - 1
        old = int.from_bytes(self._memory.read(at.pa, op.size), "little")
        match op:
            case Load():
                new = None
            case Store(value=value):
                new = value & mask
            case CmpXchg(expected=expected, new=value):
                new = value & mask if old == expected & mask else None
            case FetchAdd(delta=delta):
                new = (old + delta) & mask
            case FetchOr(bits=bits):
                new = old | (int(bits) & mask)
            case FetchAndNot(bits=bits):
                # int(): the complement of an IntFlag has only the bits of its named members.
                new = old & ~int(bits)
            case _:
                assert_never(op)
        if new is not None:
            self._memory.write(at.pa, new.to_bytes(op.size, "little"))
        if self._trace.listening:
            self._trace.add(self._event(cpu, op, at, old, new))
        else:
            self._trace.skip()
        return None if isinstance(op, Store) else old

    def _across_pages(self, cpu: Cpu, op: Load | Store, room: int) -> int | None:
        """What only a wild pointer makes: a plain access to two pages, which are two accesses in one step."""
        beyond = VirtAddr(op.va + room & WORD_MASK)
        if isinstance(op, Load):
            low, high = self._access(cpu, Load(op.va, room)), self._access(cpu, Load(beyond, op.size - room))
            return (low or 0) | (high or 0) << 8 * room
        self._access(cpu, Store(op.va, op.value & (1 << 8 * room) - 1, room))
        self._access(cpu, Store(beyond, op.value >> 8 * room, op.size - room))
        return None

    @staticmethod
    def _event(cpu: Cpu, op: WordOp, at: Translation, old: int, new: int | None) -> MachineEvent:
        if new is None:
            return Loaded(cpu.number, cpu.site(), op.va, at.pa, op.size, old, at.entry, at.source)
        return Stored(cpu.number, cpu.site(), op.va, at.pa, op.size, old, new, at.entry, at.source)

    def _copy(self, cpu: Cpu, op: Copy) -> None:
        for at, length in _pieces(op.length, op.source, op.to):
            source = self._translate(cpu, VirtAddr(op.source + at), length, Access.READ)
            to = self._translate(cpu, VirtAddr(op.to + at), length, Access.WRITE)
            self._memory.write(to.pa, self._memory.read(source.pa, length))
            if self._trace.listening:
                self._trace.add(_copied(cpu, op, at, length, source, to))
            else:
                self._trace.skip()

    def _load_bytes(self, cpu: Cpu, op: LoadBytes) -> bytes:
        read = b""
        for at, length in _pieces(op.length, op.va):
            va = VirtAddr(op.va + at)
            found = self._translate(cpu, va, length, Access.READ)
            if self._trace.listening:
                self._trace.add(LoadedBytes(cpu.number, cpu.site(), va, found.pa, length, found.entry))
            else:
                self._trace.skip()
            read += self._memory.read(found.pa, length)
        return read

    def _fill(self, cpu: Cpu, op: Fill) -> None:
        for at, length in _pieces(len(op.data), op.va):
            va = VirtAddr(op.va + at)
            to = self._translate(cpu, va, length, Access.WRITE)
            self._overwrite(cpu, va, to, op.data[at : at + length])

    def _rewrite(self, cpu: Cpu, op: Rewrite) -> bytes:
        at = self._translate(cpu, op.va, op.length, Access.WRITE)
        before = self._memory.read(at.pa, op.length)
        self._overwrite(cpu, op.va, at, op.change(before))
        return before

    def _overwrite(self, cpu: Cpu, va: VirtAddr, at: Translation, data: bytes) -> None:
        self._memory.write(at.pa, data)
        if self._trace.listening:
            self._trace.add(Filled(cpu.number, cpu.site(), va, at.pa, len(data), at.entry))
        else:
            self._trace.skip()

    def _send(self, cpu: Cpu, op: SendIpi) -> int:
        request = self._apic.send(cpu.number, op.targets, op.vector, op.payload)
        targets = tuple(sorted(op.targets))
        self._trace.add(IpiSent(cpu.number, cpu.site(), request, targets, op.vector, op.payload))
        return request

    def _add(self, changes: tuple[tuple[Word, int], ...]) -> None:
        for word, delta in changes:
            self._words[word] += delta


def _pieces(length: int, *starts: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the parts that cross no page boundary: one, unless a pointer is wild."""
    at = 0
    while at < length:
        room = min(PAGE_BYTES - (start + at & PAGE_MASK) for start in starts)
        yield at, min(room, length - at)
        at += room


def _copied(cpu: Cpu, op: Copy, at: int, length: int, source: Translation, to: Translation) -> Copied:
    return Copied(
        cpu.number,
        cpu.site(),
        VirtAddr(op.to + at),
        to.pa,
        to.entry,
        VirtAddr(op.source + at),
        source.pa,
        source.entry,
        length,
    )
