"""A difference as it is printed."""

from __future__ import annotations

from dumps import (
    real,
)

from hvolab.dump.compare import compare


def test_a_difference_reads_as_one_line() -> None:
    assert str(compare(real("main0_before"), real("main1_alloc64"))[0]) == (
        "pmd 0xffffea0000000000: kind: 2M leaf | split"
    )
