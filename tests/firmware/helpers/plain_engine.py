"""A plain engine with the guest programs in it, struct pages made by hand, and no page tables.

Without page tables the engine's addresses end at 52 bits, so everything lies in the lower half here: a
program's page is its linked address without the upper bits. The programs do not notice: all their jumps
are relative.
"""

import struct

import unicorn
from unicorn import x86_const

from firmware.catalog import program, programs
from firmware.program import PAGE_SIZE

LOWER_HALF = (1 << 47) - 1
VMEMMAP = 0x6A0000400000
VMEMMAP_PAGES = 8
DATA = 0x088000000000
KEY = DATA
NESTING = DATA + 8
ENTRY = DATA + 16
BUFFER = DATA + 0x100
STACK = DATA + 0x800

STRUCT_PAGE = 64
FLAGS, COMPOUND_HEAD, PAGE_TYPE, REFCOUNT = 0, 8, 48, 52
PG_HEAD = 1 << 6
OTHER_FLAGS = 0x17FFFFC000000000
"""Node and zone bits, as a real flags word has: bit 6 must be picked out of them."""

OUTER_NESTING = 3
"""The nesting word's value before a run: a reader can be inside an outer section already."""

FILLER = 0xA5A5A5A5A5A5A5A5
PER_VMEMMAP_PAGE = PAGE_SIZE // STRUCT_PAGE
FAKE = PER_VMEMMAP_PAGE
"""Index of the first fake head: the first struct page of the second vmemmap page."""


def struct_page(index: int) -> int:
    """Address of the struct page of that index in the vmemmap range."""
    return VMEMMAP + index * STRUCT_PAGE


def place(name: str, label: str) -> int:
    """Where a label of a program is in this engine."""
    return program(name).address_of(label) & LOWER_HALF


class Cpu:
    """One engine with every program loaded, a vmemmap range and a page of data."""

    def __init__(self) -> None:
        self.engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
        for loaded in programs():
            page = loaded.origin & LOWER_HALF
            self.engine.mem_map(page, PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
            self.engine.mem_write(page, loaded.code)
        self.engine.mem_map(VMEMMAP, VMEMMAP_PAGES * PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self.engine.mem_map(DATA, PAGE_SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        self.write(NESTING, OUTER_NESTING)
        for address in range(BUFFER, STACK, 8):
            self.write(address, FILLER)

    def start(self, name: str, *arguments: int, until: str = "done") -> None:
        """Set the argument registers in the program's own order and run from its start to the label."""
        described = program(name)
        assert len(arguments) == len(described.arguments)
        for value in ("rax", "rbx", "rcx", "r9", "r10"):
            self.set(value, FILLER)
        self.set("rsp", STACK)
        for argument, number in zip(described.arguments, arguments, strict=True):
            self.set(argument.register, number)
        self._run(name, described.origin & LOWER_HALF, until)

    def resume(self, name: str, until: str = "done") -> None:
        """Run on from where the program stands, to the label."""
        self._run(name, self.get("rip"), until)

    def _run(self, name: str, begin: int, until: str) -> None:
        self.set("rip", begin)
        # One instruction at a time: the engine keeps translated blocks from earlier runs, and those run past
        # a stopping place that is new.
        for _ in range(10_000):
            if self.get("rip") == place(name, until):
                break
            self.engine.emu_start(self.get("rip"), place(name, "done"), count=1)
        assert self.get("rip") == place(name, until)
        assert self.get("rsp") == STACK

    def get(self, register: str) -> int:
        return int(self.engine.reg_read(getattr(x86_const, f"UC_X86_REG_{register.upper()}")))

    def set(self, register: str, value: int) -> None:
        self.engine.reg_write(getattr(x86_const, f"UC_X86_REG_{register.upper()}"), value)

    def read(self, address: int) -> int:
        return int(struct.unpack("<Q", self.engine.mem_read(address, 8))[0])

    def write(self, address: int, value: int) -> None:
        self.engine.mem_write(address, struct.pack("<Q", value))

    def refcount(self, index: int) -> int:
        return int(struct.unpack("<I", self.engine.mem_read(struct_page(index) + REFCOUNT, 4))[0])

    def set_refcount(self, index: int, count: int) -> None:
        self.engine.mem_write(struct_page(index) + REFCOUNT, struct.pack("<I", count))

    def set_page_type(self, index: int, value: int) -> None:
        self.engine.mem_write(struct_page(index) + PAGE_TYPE, struct.pack("<I", value))

    def protect(self) -> None:
        """Make the struct pages read-only."""
        self.engine.mem_protect(VMEMMAP, VMEMMAP_PAGES * PAGE_SIZE, unicorn.UC_PROT_READ)

    @property
    def interrupts(self) -> bool:
        """IF"""
        return bool(self.get("eflags") & 1 << 9)

    def make_head(self, index: int) -> None:
        """A compound page's head: PG_head, and where tails have compound_head a list pointer, bit 0
        clear."""
        self.write(struct_page(index) + FLAGS, OTHER_FLAGS | PG_HEAD)
        self.write(struct_page(index) + COMPOUND_HEAD, struct_page(index) + 0x1008)

    def make_tail(self, index: int, head: int) -> None:
        self.write(struct_page(index) + FLAGS, OTHER_FLAGS)
        self.write(struct_page(index) + COMPOUND_HEAD, struct_page(head) + 1)

    def make_folio(self) -> None:
        """A folio over the whole range as HVO leaves it: each vmemmap page shows the head page's structs."""
        for page in range(VMEMMAP_PAGES):
            for index in range(PER_VMEMMAP_PAGE):
                self.make_tail(page * PER_VMEMMAP_PAGE + index, 0)
            self.make_head(page * PER_VMEMMAP_PAGE)
            self.write(struct_page(page * PER_VMEMMAP_PAGE) + COMPOUND_HEAD, struct_page(0) + 0x1008)
