"""Reading a system's memory as its page tables show it."""

from __future__ import annotations

import pytest
from dumps import BASE, real
from real_runs import do

from emu.addr import VirtAddr
from hvolab.checked.error import InputError
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.memory import list_entries, peek, read, signed, word
from kernel_model.boot import System, boot
from kernel_model.layout import FOLIO_LIST

HEAD = VirtAddr(BASE + 0x3E00 * 64)


@pytest.fixture(scope="module")
def system() -> System:
    return boot(setup_from(real("main0_before"), do("optimize:main1_alloc64"), 1).boot)


def test_words_are_those_of_the_struct_page(system: System) -> None:
    """A hugetlb head in the pool: PG_head, no reference, type 0xf4."""
    assert word(system, HEAD, 8) == 0xFFFFC0000040 | 0xF << 48
    assert word(system, VirtAddr(HEAD + 48), 4) == 0xF4000000
    assert signed(system, VirtAddr(HEAD + 64 + 48), 4) == -1
    assert read(system, VirtAddr(HEAD + 52), 4) == bytes(4)
    assert peek(system, HEAD).pfn == 0x3EE00


def test_what_is_not_mapped_is_said_to_be_nothing(system: System) -> None:
    with pytest.raises(InputError) as caught:
        word(system, VirtAddr(0x1000), 8)
    assert str(caught.value) == "nothing is mapped at 0x1000"


def test_the_folios_to_come_are_listed_in_the_order_of_the_dump(system: System) -> None:
    entries = list(list_entries(system, FOLIO_LIST, 100))
    assert [(entry - 8 - BASE) // 64 for entry in entries] == [
        row.pfn for row in real("main1_alloc64").folios
    ]
    assert len(list(list_entries(system, FOLIO_LIST, 5))) == 5
