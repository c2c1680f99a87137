"""Addresses and pages against definitions written out differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from property_settings import PROPERTY

from emu.addr import (
    PAGE_BYTES,
    PAGE_MASK,
    PAGE_SHIFT,
    WORD_MASK,
    PageSize,
    Pfn,
    PhysAddr,
    VirtAddr,
    frame,
    frame_start,
    is_canonical,
    page_start,
)

WORDS = st.integers(0, WORD_MASK)


def sign_extended(value: int) -> int:
    """Bits 47:0 with bit 47 copied upwards, by arithmetic on signed numbers."""
    low = value % 2**48
    return (low - 2**48 if low >= 2**47 else low) % 2**64


def test_page_constants_agree_with_one_another() -> None:
    assert (PAGE_SHIFT, PAGE_BYTES, PAGE_MASK, WORD_MASK) == (12, 4096, 0xFFF, 0xFFFF_FFFF_FFFF_FFFF)


@PROPERTY
@given(WORDS)
def test_canonical_means_equal_to_its_own_sign_extension(value: int) -> None:
    assert is_canonical(value) == (sign_extended(value) == value)


@PROPERTY
@given(WORDS)
def test_every_sign_extension_is_canonical(value: int) -> None:
    assert is_canonical(sign_extended(value))


@pytest.mark.parametrize(
    ("value", "canonical"),
    [
        (0, True),
        (0x0000_7FFF_FFFF_FFFF, True),
        (0x0000_8000_0000_0000, False),
        (0xFFFF_7FFF_FFFF_FFFF, False),
        (0xFFFF_8000_0000_0000, True),
        (0xFFFF_FFFF_FFFF_FFFF, True),
        (0x1_0000_0000_0000_0000, False),
        (-1, False),
    ],
)
def test_the_edges_of_the_canonical_halves(value: int, canonical: bool) -> None:
    assert is_canonical(value) is canonical


@PROPERTY
@given(WORDS, st.sampled_from(PageSize))
def test_page_start_is_the_largest_multiple_of_the_size_not_above(value: int, size: PageSize) -> None:
    start = page_start(VirtAddr(value), size)
    assert start % size == 0
    assert 0 <= value - start < size


def test_page_start_without_a_size_is_that_of_the_4k_page() -> None:
    assert page_start(VirtAddr(0xFFFF_FFFF_FFFF_FFFF)) == 0xFFFF_FFFF_FFFF_F000


@PROPERTY
@given(st.integers(0, 2**52 - 1))
def test_frame_and_offset_make_up_the_physical_address(pa: int) -> None:
    assert frame_start(frame(PhysAddr(pa))) + pa % 4096 == pa
    assert frame(frame_start(Pfn(pa >> 12))) == pa >> 12


@pytest.mark.parametrize(
    ("size", "number", "text"),
    [(PageSize.KIB4, 4096, "4K"), (PageSize.MIB2, 2 << 20, "2M"), (PageSize.GIB1, 1 << 30, "1G")],
)
def test_page_sizes_are_their_bytes_and_print_as_linux_writes_them(
    size: PageSize, number: int, text: str
) -> None:
    assert size == number
    assert str(size) == text
