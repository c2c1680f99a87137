"""A system's memory as the page tables show it, read without touching any TLB."""

from __future__ import annotations

from collections.abc import Iterator

from emu.addr import VirtAddr
from emu.paging.walk import Walk
from hvolab.checked.error import InputError
from kernel_model.boot import System


def peek(system: System, va: VirtAddr) -> Walk:
    """What a page walk finds there. Raises InputError when that is nothing."""
    found = system.machine.cpus[0].mmu.peek(va)
    if not isinstance(found, Walk):
        raise InputError(f"nothing is mapped at {va:#x}")
    return found


def read(system: System, va: VirtAddr, size: int) -> bytes:
    """`size` bytes that lie on one page."""
    return system.machine.memory.read(peek(system, va).pa, size)


def signed(system: System, va: VirtAddr, size: int) -> int:
    """A little-endian number of `size` bytes in two's complement."""
    return int.from_bytes(read(system, va, size), "little", signed=True)


def word(system: System, va: VirtAddr, size: int) -> int:
    """A little-endian number of `size` bytes."""
    return int.from_bytes(read(system, va, size), "little")


def list_entries(system: System, head: VirtAddr, most: int) -> Iterator[VirtAddr]:
    """The entries of a list, in order; at most `most`, so that a corrupted list ends."""
    entry = VirtAddr(word(system, head, 8))
    for _ in range(most):
        if entry == head:
            return
        yield entry
        entry = VirtAddr(word(system, entry, 8))
