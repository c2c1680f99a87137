"""Physical memory and its journal, against full copies of a small part of it taken after every store."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import pytest
from guest_rig import GuestRig, steps
from hypothesis import given
from hypothesis import strategies as st
from paging_rig import VA, leaf
from property_settings import PROPERTY

from emu.addr import Pfn, PhysAddr
from emu.memory import LARGEST, MIB, SMALLEST, Journal, OutsideMemory, Overwritten, PhysicalMemory

SIZE = 16 * MIB
PAGE = 4096
# Two neighbouring frames are enough for everything the journal can get wrong.
WINDOW = 2 * PAGE


@dataclass(frozen=True)
class AStore:
    offset: int
    data: bytes


@st.composite
def stores(draw: st.DrawFn) -> AStore:
    """Words, parts of words, and bulk stores, close to each other and to the frames' edges."""
    length = draw(st.sampled_from((1, 2, 3, 4, 7, 8, 16, 24, 64, 4096)))
    frame_at = draw(st.sampled_from((0, PAGE)))
    near = st.one_of(st.integers(0, 48), st.integers(PAGE - 48, PAGE - 1))
    offset = 0 if length == PAGE else min(draw(near), PAGE - length)
    return AStore(frame_at + offset, draw(st.binary(min_size=1, max_size=1)) * length)


BASE = PhysAddr(0x123000)
WORD_OFFSETS = (*range(0, 64, 8), *range(PAGE - 64, PAGE + 64, 8), *range(WINDOW - 64, WINDOW, 8))


def snapshots(memory: PhysicalMemory, history: list[AStore]) -> list[bytes]:
    """The window before the first store and after each."""
    taken = [memory.read(BASE, WINDOW)]
    for one in history:
        memory.write(PhysAddr(BASE + one.offset), one.data)
        taken.append(memory.read(BASE, WINDOW))
    return taken


def fresh() -> PhysicalMemory:
    memory = PhysicalMemory(SIZE)
    memory.load_image(BASE, bytes(i * 7 % 251 for i in range(WINDOW)))
    return memory


@PROPERTY
@given(st.lists(stores(), max_size=12))
def test_word_at_a_moment_is_what_a_full_copy_of_that_moment_holds(history: list[AStore]) -> None:
    memory = fresh()
    taken = snapshots(memory, history)
    assert memory.journal.now == len(history) == len(taken) - 1
    for moment, snapshot in enumerate(taken):
        for offset in WORD_OFFSETS:
            expected = int.from_bytes(snapshot[offset : offset + 8], "little")
            assert memory.word_at(PhysAddr(BASE + offset), moment) == expected


@PROPERTY
@given(st.lists(stores(), max_size=12), st.sampled_from(WORD_OFFSETS))
def test_a_word_asked_about_after_each_store_is_told_of_the_later_ones_too(
    history: list[AStore], offset: int
) -> None:
    memory = fresh()
    pa = PhysAddr(BASE + offset)
    taken = [memory.read(pa, 8)]
    for one in history:
        memory.write(PhysAddr(BASE + one.offset), one.data)
        taken.append(memory.read(pa, 8))
        assert [memory.word_at(pa, moment).to_bytes(8, "little") for moment in range(len(taken))] == taken


@PROPERTY
@given(st.lists(stores(), max_size=12))
def test_undo_to_any_moment_gives_the_full_copy_of_that_moment(history: list[AStore]) -> None:
    for moment in range(len(history) + 1):
        memory = fresh()
        taken = snapshots(memory, history)
        memory.undo(moment)
        assert memory.read(BASE, WINDOW) == taken[moment]


@PROPERTY
@given(st.lists(stores(), max_size=12), st.sampled_from(WORD_OFFSETS), st.sampled_from((1, 4, 8)))
def test_changes_of_bytes_are_the_stores_that_overlap_them(
    history: list[AStore], offset: int, length: int
) -> None:
    memory = fresh()
    snapshots(memory, history)
    wanted = range(offset, offset + length)
    touching = [
        i for i, one in enumerate(history) if set(range(one.offset, one.offset + len(one.data))) & set(wanted)
    ]
    pa = PhysAddr(BASE + offset)
    journal = memory.journal
    for moment in range(len(history) + 1):
        later = [i for i in touching if i >= moment]
        earlier = [i for i in touching if i < moment]
        assert journal.next_change(pa, length, moment) == (later[0] if later else None)
        assert journal.last_change(pa, length, moment) == (earlier[-1] if earlier else None)
        if length == 8:
            seen = [entry.pa - BASE for entry in journal.stores_to_word(pa, moment)]
            assert seen == [history[i].offset for i in later]
        since = [(entry.pa - BASE, len(entry.old)) for entry in journal.since(moment)]
        assert since == [(one.offset, len(one.data)) for one in reversed(history[moment:])]


def test_the_journal_keeps_the_bytes_that_were_there_before() -> None:
    memory = PhysicalMemory(SIZE)
    memory.write(PhysAddr(0x2000), b"abcd")
    memory.write(PhysAddr(0x2002), b"XY")
    assert list(memory.journal.since(0)) == [
        Overwritten(PhysAddr(0x2002), b"cd"),
        Overwritten(PhysAddr(0x2000), bytes(4)),
    ]


def test_a_store_of_the_same_value_is_a_change_too() -> None:
    """Going back to an old value makes a new version: the journal must show every store."""
    memory = PhysicalMemory(SIZE)
    memory.write_word(PhysAddr(0x2000), 0)
    assert memory.journal.next_change(PhysAddr(0x2000), 8, 0) == 0
    assert memory.journal.now == 1


def test_what_was_loaded_as_an_image_was_always_there() -> None:
    memory = PhysicalMemory(SIZE)
    memory.load_image(PhysAddr(0x1FFC), b"12345678")  # over a frame boundary: no store, no limit
    assert memory.journal.now == 0
    assert memory.read(PhysAddr(0x1FFC), 8) == b"12345678"
    memory.write(PhysAddr(0x2000), b"zz")
    memory.undo(0)
    assert memory.read(PhysAddr(0x1FFC), 8) == b"12345678"


def test_forget_makes_now_the_new_moment_0() -> None:
    memory = PhysicalMemory(SIZE)
    memory.write_word(PhysAddr(0x2000), 5)
    memory.journal.forget()
    assert memory.journal.now == 0
    assert memory.word_at(PhysAddr(0x2000), 0) == 5
    assert memory.journal.next_change(PhysAddr(0x2000), 8, 0) is None
    memory.write_word(PhysAddr(0x2000), 6)
    memory.undo(0)
    assert memory.read_word(PhysAddr(0x2000)) == 5


def test_words_are_little_endian_and_frames_are_4096_bytes() -> None:
    memory = PhysicalMemory(SIZE)
    memory.write_word(PhysAddr(0x3008), 0x0102030405060708)
    assert memory.read(PhysAddr(0x3008), 8) == b"\x08\x07\x06\x05\x04\x03\x02\x01"
    assert memory.read_word(PhysAddr(0x3008)) == 0x0102030405060708
    assert memory.read_frame(Pfn(3)) == bytes(8) + b"\x08\x07\x06\x05\x04\x03\x02\x01" + bytes(PAGE - 16)
    assert memory.frames == SIZE // PAGE


def test_the_host_address_is_that_of_the_same_bytes() -> None:
    memory = PhysicalMemory(SIZE)
    memory.write(PhysAddr(0x5123), b"seen by the engine")
    assert ctypes.string_at(memory.host_address() + 0x5123, 18) == b"seen by the engine"
    ctypes.memset(memory.host_address() + 0x7000, 0x5A, 4)
    assert memory.read(PhysAddr(0x7000), 4) == b"ZZZZ"


def test_the_last_frame_of_the_largest_memory_holds_what_is_stored_there() -> None:
    memory = PhysicalMemory(LARGEST)
    assert memory.frames == 8 << 20
    last = PhysAddr(LARGEST - 8)
    memory.write_word(last, 0x1122_3344_5566_7788)
    assert memory.read_word(last) == 0x1122_3344_5566_7788
    assert memory.read_word(PhysAddr(last & 0xFFFF_FFFF)) == 0  # not taken modulo 4 GiB
    memory.undo(0)
    assert memory.read_word(last) == 0


def test_guest_code_loads_and_stores_in_frames_above_4_gib() -> None:
    """The engine maps all of a memory as large as this; the frame below it by 4 GiB is another."""
    rig = GuestRig()
    large = PhysicalMemory(LARGEST)
    large.load_image(PhysAddr(0), rig.memory.read(PhysAddr(0), rig.memory.size))
    rig.memory = large
    high = Pfn((LARGEST >> 12) - 1)
    rig.preset(rig.slot(VA), leaf(high))
    rig.memory.load_image(PhysAddr(high << 12), (41).to_bytes(8, "little"))
    rig.put("mov rax, [rdi]; add rax, 1; mov [rdi + 8], rax; hlt")
    steps(rig.core({"rdi": VA}), 4)
    assert rig.memory.read_word(PhysAddr((high << 12) + 8)) == 42
    assert rig.memory.read_word(PhysAddr((high << 12 & 0xFFFF_FFFF) + 8)) == 0


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALLEST, 18 * MIB, LARGEST])
def test_sizes_from_the_smallest_to_the_largest_are_taken(size: int) -> None:
    assert PhysicalMemory(size).size == size


@pytest.mark.parametrize("size", [0, -2 * MIB, SMALLEST - 2 * MIB, 17 * MIB, SMALLEST + 1, LARGEST + 2 * MIB])
def test_a_wrong_size_is_refused_with_what_is_wanted(size: int) -> None:
    message = f"^memory size {size:#x}: want a multiple of 2 MiB, 16 MiB to 32 GiB$"
    with pytest.raises(ValueError, match=message):
        PhysicalMemory(size)


@pytest.mark.parametrize(
    ("pa", "length"), [(SIZE, 1), (SIZE - 7, 8), (SIZE + PAGE, 8), (1 << 51, 8), (-1, 1), (-8, 8)]
)
def test_outside_memory_nothing_is_read_or_written(pa: int, length: int) -> None:
    memory = PhysicalMemory(SIZE)
    for attempt in (
        lambda: memory.read(PhysAddr(pa), length),
        lambda: memory.write(PhysAddr(pa), b"x" * length),
        lambda: memory.load_image(PhysAddr(pa), b"x" * length),
    ):
        with pytest.raises(OutsideMemory) as caught:
            attempt()
        assert caught.value.pa == pa
        assert str(caught.value) == f"physical {pa:#x}+{length} is outside the 0x1000000 bytes of memory"
    assert memory.journal.now == 0
    assert memory.read(PhysAddr(SIZE - 8), 8) == bytes(8)
    assert memory.read(PhysAddr(0), 8) == bytes(8)


@pytest.mark.parametrize("method", ["read_word", "word_at", "write_word"])
def test_a_word_that_begins_inside_and_ends_outside_is_outside(method: str) -> None:
    memory = PhysicalMemory(SIZE)
    arguments = {"read_word": (), "word_at": (0,), "write_word": (0,)}[method]
    with pytest.raises(OutsideMemory):
        getattr(memory, method)(SIZE - 4, *arguments)


def test_a_store_over_a_frame_boundary_is_refused_and_leaves_no_trace() -> None:
    memory = PhysicalMemory(SIZE)
    with pytest.raises(ValueError, match=r"^store of 8 bytes at 0x1ffc crosses a frame boundary$"):
        memory.write(PhysAddr(0x1FFC), b"12345678")
    assert memory.journal.now == 0
    assert memory.read(PhysAddr(0x1FFC), 8) == bytes(8)


def test_an_empty_journal_knows_no_change() -> None:
    journal = Journal()
    assert journal.now == 0
    assert list(journal.since(0)) == []
    assert list(journal.stores_to_word(PhysAddr(0), 0)) == []
    assert journal.next_change(PhysAddr(0), 8, 0) is None
    assert journal.last_change(PhysAddr(0), 8, 0) is None
