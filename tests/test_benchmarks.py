"""The benchmarks' own numbers, where they can be reckoned by hand: steps and pages, never a time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

# `benchmarks` is no installed package. First on the path, because tests/ is there as well, with folders that
# are named like the packages and would be taken for them by whatever is imported later.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
scale = importlib.import_module("benchmarks.scale")

HSTATE_16M = scale.Hstate("16M", 12)
# 4096 struct pages of 64 bytes fill 64 pages of vmemmap. The first stays, each other one is given back.
PTES = 63


@pytest.mark.parametrize("folios", [1, 4])
def test_each_folio_gives_back_its_vmemmap_but_one_page_and_gets_as_much_again(folios: int) -> None:
    measured = scale.measure(scale.Case(folios, HSTATE_16M))
    assert measured.optimize.ptes == folios * PTES
    assert measured.restore.ptes == folios * PTES


def test_the_steps_of_an_entry_do_not_grow_with_the_number_of_folios() -> None:
    """A batch shares what is done once, so it costs less; four times as many entries cost no more each."""
    one, four, sixteen = (scale.measure(scale.Case(folios, HSTATE_16M)) for folios in (1, 4, 16))
    assert one.optimize.steps_each >= four.optimize.steps_each >= sixteen.optimize.steps_each
    assert one.restore.steps_each >= four.restore.steps_each >= sixteen.restore.steps_each


def test_the_same_case_takes_the_same_steps_and_journal() -> None:
    first, second = (scale.measure(scale.Case(2, HSTATE_16M)) for _ in range(2))
    assert (first.optimize.steps, first.restore.steps) == (second.optimize.steps, second.restore.steps)
    assert first.journal == second.journal
    # Every page given back is poisoned, every page restored is copied: 4096 bytes overwritten each.
    assert first.journal > 2 * 2 * PTES * 4096
