"""Equal memory has one number, whatever was stored on the way there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu.addr import PAGE_BYTES, PhysAddr
from emu.contents import Contents
from emu.memory import MIB, PhysicalMemory

AT = (0x1000, 0x1008, 0x2000, 0x5FF8)
stores = st.lists(st.tuples(st.sampled_from(AT), st.integers(0, 2)), max_size=12)
MEMORY = PhysicalMemory(16 * MIB)


def image() -> tuple[bytes, ...]:
    return tuple(MEMORY.read(PhysAddr(frame * PAGE_BYTES), PAGE_BYTES) for frame in range(8))


@given(stores, stores)
def test_numbers_are_equal_where_contents_are(
    one: list[tuple[int, int]], other: list[tuple[int, int]]
) -> None:
    told = []
    for made in (one, other):
        contents = Contents(MEMORY)
        for at, value in made:
            MEMORY.write_word(PhysAddr(at), value)
            contents.number()  # asked at any time, it says the same in the end
        told.append((contents.number(), image()))
        assert told[-1][0] == Contents(MEMORY).number()
        MEMORY.undo(0)
        MEMORY.journal.forget()
    assert (told[0][0] == told[1][0]) == (told[0][1] == told[1][1])


def test_as_at_time_zero_it_is_nothing() -> None:
    memory = PhysicalMemory(16 * MIB)
    memory.load_image(PhysAddr(0x1000), b"\1" * 8)
    contents = Contents(memory)
    assert contents.number() == 0
    memory.write_word(PhysAddr(0x1000), 5)
    assert contents.number() != 0
    memory.write(PhysAddr(0x1000), b"\1" * 8)
    assert contents.number() == 0


def test_put_back_it_is_what_it_was_before() -> None:
    """Another store after going back: as many as there were, and not the same."""
    memory = PhysicalMemory(16 * MIB)
    contents = Contents(memory)
    memory.write_word(PhysAddr(0x1000), 5)
    before = contents.number()
    memory.write_word(PhysAddr(0x1000), 6)
    assert contents.number() != before
    memory.undo(1)
    memory.journal.cut(1)
    contents.forget()
    assert contents.number() == before
    memory.write_word(PhysAddr(0x1000), 7)
    seven = contents.number()
    memory.write_word(PhysAddr(0x1000), 6)
    assert contents.number() != seven
