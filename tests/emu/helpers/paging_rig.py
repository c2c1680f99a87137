"""Memory with a page table in it, built word by word: what the tests of the MMU stand on."""

from __future__ import annotations

from emu.addr import PageSize, Pfn, PhysAddr, VirtAddr
from emu.choice import Question
from emu.events import MachineEvent
from emu.memory import MIB, PhysicalMemory
from emu.mmu import Denied, Mmu, Translated, Translation
from emu.paging.models import CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Port
from emu.paging.walk import Access, Control, Privilege, Walk
from emu.trace import Trace

ROOT = Pfn(0x100)
SECOND_ROOT = Pfn(0x101)
FIRST_TABLE = 0x102  # further tables are taken from here on
FRAME = Pfn(0x800)  # frames from here on are data

P, W, U, A, D = PteBit.PRESENT, PteBit.WRITE, PteBit.USER, PteBit.ACCESSED, PteBit.DIRTY
PS, G, NX = PteBit.PAGE_SIZE, PteBit.GLOBAL, PteBit.NO_EXECUTE
TABLE = P | W | U | A  # a directory entry that restricts nothing
RW = P | W | A | D
RO = P | A
LEVEL = {PageSize.KIB4: 1, PageSize.MIB2: 2, PageSize.GIB1: 3}

VA = VirtAddr(0xFFFF_EA00_0000_0000)
PAGE = 0x1000
MIB2 = 0x20_0000
GIB1 = 0x4000_0000


class Pick:
    """Answers each question with the given options in turn (negative ones count from the end)."""

    def __init__(self, *options: int) -> None:
        self.options = list(options)
        self.asked: list[Question] = []

    def answer(self, question: Question) -> int:
        self.asked.append(question)
        option = self.options.pop(0) if self.options else question.default
        return option % question.options


class PagingRig:
    """`memory` with 4-level tables at ROOT. What `map` writes was always there; `set` stores."""

    def __init__(self, size: int = 16 * MIB) -> None:
        self.memory = PhysicalMemory(size)
        self.trace = Trace()
        self.events: list[MachineEvent] = []
        self._next_table = FIRST_TABLE

    def listen(self) -> None:
        self.trace.listen(lambda _number, event: self.events.append(event))

    def slot(self, va: int, level: int = 1, root: Pfn = ROOT) -> PhysAddr:
        """Where the entry of that level for `va` lies; the tables above it are made when missing."""
        table = int(root)
        for upper in (4, 3, 2, 1):
            pa = PhysAddr(table * PAGE + 8 * ((va >> (12 + 9 * (upper - 1))) & 511))
            if upper == level:
                return pa
            entry = Pte(self.memory.read_word(pa))
            if not entry.present:
                entry = Pte.make(Pfn(self._next_table), TABLE)
                self._next_table += 1
                self.preset(pa, entry)
            assert upper == 4 or not entry.page_size, "a large leaf is in the way"
            table = entry.pfn
        raise AssertionError(level)

    def preset(self, pa: PhysAddr, value: int) -> None:
        """That word has always held `value`."""
        self.memory.load_image(pa, value.to_bytes(8, "little"))

    def map(
        self,
        va: int,
        pfn: int,
        bits: PteBit = RW,
        size: PageSize = PageSize.KIB4,
        root: Pfn = ROOT,
    ) -> PhysAddr:
        """`va` has always been mapped so. Returns where the leaf is."""
        pa = self.slot(va, LEVEL[size], root)
        self.preset(pa, leaf(pfn, bits, size))
        return pa

    def set(self, pa: PhysAddr, value: int) -> None:
        self.memory.write_word(pa, value)

    def get(self, pa: PhysAddr) -> Pte:
        return Pte(self.memory.read_word(pa))

    def mmu(self, model: CpuModel, control: Control | None = None, root: Pfn = ROOT) -> Mmu:
        return Mmu(0, self.memory, model, control or Control(), root, self.trace)


def leaf(pfn: int, bits: PteBit = RW, size: PageSize = PageSize.KIB4) -> Pte:
    return Pte.make(Pfn(pfn), bits | (PS if size is not PageSize.KIB4 else PteBit(0)))


def access(
    mmu: Mmu, va: int, kind: Access = Access.READ, privilege: Privilege = Privilege.SUPERVISOR
) -> Translated:
    return mmu.translate(VirtAddr(va), kind, privilege)


def frame_of(found: Translated) -> int | None:
    """The frame an access went to; None when it faulted."""
    if isinstance(found, Denied):
        return None
    assert isinstance(found, Translation), found
    return found.pa >> 12


def read(mmu: Mmu, va: int) -> int | None:
    return frame_of(access(mmu, va))


def write(mmu: Mmu, va: int) -> int | None:
    return frame_of(access(mmu, va, Access.WRITE))


def fetch(mmu: Mmu, va: int) -> int | None:
    return frame_of(access(mmu, va, Access.FETCH))


def offered(mmu: Mmu, va: int, kind: Access = Access.READ) -> list[int]:
    """The frames of the cached or older versions an access could use now, oldest first."""
    port = Port.CODE if kind is Access.FETCH else Port.DATA
    usable = mmu.tlb.usable(VirtAddr(va), mmu.pcid, port)
    return [entry.frame_of(VirtAddr(va)) for entry in usable.entries]


def possible(mmu: Mmu, va: int, kind: Access = Access.READ) -> set[int | None]:
    """The frames an access could go to now, without making it. None: a walk that finds nothing."""
    port = Port.CODE if kind is Access.FETCH else Port.DATA
    usable = mmu.tlb.usable(VirtAddr(va), mmu.pcid, port)
    frames: set[int | None] = {entry.frame_of(VirtAddr(va)) for entry in usable.entries}
    if usable.dead_ends:
        frames.add(None)
    if usable.walk:
        found = mmu.peek(VirtAddr(va))
        frames.add(found.pa >> 12 if isinstance(found, Walk) else None)
    return frames
