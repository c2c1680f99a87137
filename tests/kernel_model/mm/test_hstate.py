"""The sizes of huge pages."""

from __future__ import annotations

from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M


def test_the_names_of_the_two_sizes_linux_has() -> None:
    assert (HSTATE_2M.name, HSTATE_2M.pages_per_huge_page) == ("2M", 512)
    assert (HSTATE_1G.name, HSTATE_1G.pages_per_huge_page) == ("1G", 262144)
