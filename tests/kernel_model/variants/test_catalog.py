"""Each variant deviates in what its name says and in nothing else.

Run for run, event for event, against upstream: where the deviation cannot matter nothing at all may differ,
and where it can, only what is written here. A minus is left out, a plus is done beside; with an arrow, the
first thing that differs, where more follows from it.
"""

from __future__ import annotations

from functools import cache

import pytest
from deviations import DEVIATIONS
from hvo_same import STORIES, Story, difference, run

from emu.addr import VirtAddr
from emu.events import MachineEvent
from kernel_model.flush.broken import BROKEN
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.safe import SAFE
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, WalkFlag
from kernel_model.mm.hstate import Hstate
from kernel_model.variants.catalog import VARIANTS
from kernel_model.variants.named import NamedVariant


@cache
def upstream(name: str) -> list[MachineEvent]:
    return run(story(name))


def story(name: str) -> Story:
    return next(one for one in STORIES if one.name == name)


def deviations(of: NamedVariant | NamedPolicy) -> dict[str, str]:
    """By story, where there is one."""
    told = {one.name: difference(one, of, upstream(one.name)) for one in STORIES}
    return {name: text for name, text in told.items() if text}


@pytest.mark.parametrize("of", [*VARIANTS, *SAFE, *BROKEN], ids=lambda one: one.name)
def test_a_deviation_does_nothing_otherwise_but_what_its_name_says(of: NamedVariant | NamedPolicy) -> None:
    expected = {name: text for text, names in DEVIATIONS[of.name].items() for name in names}
    assert deviations(of) == expected


def test_no_variant_is_left_out() -> None:
    assert set(DEVIATIONS) == {one.name for one in (*VARIANTS, *SAFE, *BROKEN)}


def test_a_warning_that_is_left_out_is_told() -> None:
    class Unwarned(HugetlbVmemmap):
        async def _warn_unless_frozen_hugetlb(self, where: str, folio: VirtAddr) -> None:
            del where, folio

    told = deviations(NamedVariant("unwarned", "", Unwarned))
    assert told["optimize what is"] == "- folio_test_hugetlb: Loaded, - folio_ref_count: Loaded"
    assert set(told) >= {"optimize", "optimize, switched off", "restore", "restore a list"}


def test_a_second_try_that_is_left_out_is_told() -> None:
    """Only where memory runs out while pages are in hand."""

    class GivesUp(HugetlbVmemmap):
        async def _optimize_folio(
            self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
        ) -> int:
            return 0 * await super()._optimize_folio(h, folio, vmemmap_pages, flags)

    told = deviations(NamedVariant("gives up", "", GivesUp))
    assert list(told) == ["optimize a list, and again"]
