"""What ends a version of a translation."""

from __future__ import annotations

import pytest

from emu.addr import VirtAddr
from emu.paging.tlb import entry_from
from emu.paging.walk import Control, Walk
from hvolab.catalog.common import HUGE_PAGE, MEMORY_BYTES
from hvolab.judge.sight.endings import Endings
from kernel_model.boot import BootConfig, boot

ACCESSED, DIRTY, WRITE, SOFT_9, SOFT_58 = 1 << 5, 1 << 6, 1 << 1, 1 << 9, 1 << 58
FRAME = 1 << 21


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (FRAME, True),  # the complement of the ignored bits, taken of a flag type, once lost the frame number
        (WRITE, True),
        (1 << 63, True),
        (ACCESSED, False),
        (DIRTY, False),
        (SOFT_9, False),
        (SOFT_58, False),
    ],
)
def test_which_bits_of_an_entry_make_another_version(change: int, ends: bool) -> None:
    machine = boot(BootConfig(MEMORY_BYTES, 1, (HUGE_PAGE,))).machine
    va = VirtAddr(HUGE_PAGE.folio)
    found = machine.cpus[0].mmu.peek(va)
    assert isinstance(found, Walk)
    now = machine.memory.journal.now
    entry = entry_from(found, 0, Control(), 0, now, now)
    leaf = found.steps[-1]
    machine.memory.write_word(leaf.pa, int(leaf.entry) ^ change)
    endings = Endings(machine.memory)
    endings.bulk(leaf.pa)
    ending = endings.ending_of(entry)
    assert (ending is not None) is ends
    if ending is not None:
        assert (ending.level, ending.before, ending.after) == (2, leaf.entry, int(leaf.entry) ^ change)
