"""Guest spin loops: a CPU at PAUSE waits until a word it has read since the last PAUSE is stored to.

Words are numbered by physical address / 8. Page-table words behind what was read count as read: when the
page is remapped, the loop must look again.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from emu.addr import PhysAddr
from emu.cpu.cpu import Cpu
from emu.guest.guest_core import GuestCore
from emu.memory import Journal, Moment


def note_read(cpu: Cpu, core: GuestCore, journal: Journal) -> None:
    """The instruction that just retired read its words now."""
    for word in chain(core.words_read(), core.words_walked()):
        cpu.read_since_pause.setdefault(word, journal.now)


def pause(cpu: Cpu, journal: Journal) -> None:
    """PAUSE: wait, unless a word read since the last one has been stored to since it was read."""
    read = cpu.read_since_pause
    changed = any(
        journal.next_change(PhysAddr(word << 3), 8, moment) is not None for word, moment in read.items()
    )
    cpu.spinning = frozenset() if changed else frozenset(read)
    cpu.read_since_pause = {}


def wake_spinners(cpus: Iterable[Cpu], journal: Journal, since: Moment) -> None:
    """Let go on whoever waits for a word stored to since then.

    A CPU that spins does not step, so what was stored is another's or its own interrupt handler's.
    """
    spinners = [cpu for cpu in cpus if cpu.spinning]
    if not spinners:
        return
    written = {
        word
        for entry in journal.since(since)
        for word in range(entry.pa >> 3, (entry.pa + len(entry.old) + 7) >> 3)
    }
    for cpu in spinners:
        if cpu.spinning & written:
            cpu.spinning = frozenset()
