"""Events are values, and a site is one line."""

from __future__ import annotations

import pytest

from emu.addr import VirtAddr
from emu.events import Finished, GuestSite, InterruptSite, RoutineSite, Site


@pytest.mark.parametrize(
    ("site", "text"),
    [
        (RoutineSite(("outer", "inner")), "inner"),
        (RoutineSite(()), "?"),
        (GuestSite("reader", VirtAddr(0x1000), "mov rax, [rdi]"), "reader 0x1000: mov rax, [rdi]"),
        (InterruptSite(0xFB), "interrupt 0xfb"),
    ],
)
def test_a_site_says_where_in_one_line(site: Site, text: str) -> None:
    assert str(site) == text


def test_events_that_say_the_same_are_equal() -> None:
    assert Finished(1, "t", killed=True) == Finished(1, "t", killed=True) != Finished(1, "t", killed=False)
