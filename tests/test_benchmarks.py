"""The benchmarks' own numbers, where they can be reckoned by hand: steps and pages, never a time."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from kernel_model.hstate import Hstate

ROOT = Path(__file__).resolve().parents[1]
HSTATE_16M = Hstate("16M", 12)
# 4096 struct pages of 64 bytes fill 64 pages of vmemmap. The first stays, each other one is given back.
PTES = 63


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks.scale: no installed package, found from the root of the tree as `make bench` does."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.scale")


@pytest.mark.parametrize("folios", [1, 4])
def test_each_folio_gives_back_its_vmemmap_but_one_page_and_gets_as_much_again(
    scale: ModuleType, folios: int
) -> None:
    measured = scale.measure(scale.Case(folios, HSTATE_16M))
    assert measured.optimize.ptes == folios * PTES
    assert measured.restore.ptes == folios * PTES


def test_the_steps_of_an_entry_do_not_grow_with_the_number_of_folios(scale: ModuleType) -> None:
    """A batch shares what is done once, so it costs less; four times as many entries cost no more each."""
    one, four, sixteen = (scale.measure(scale.Case(folios, HSTATE_16M)) for folios in (1, 4, 16))
    assert one.optimize.steps_each >= four.optimize.steps_each >= sixteen.optimize.steps_each
    assert one.restore.steps_each >= four.restore.steps_each >= sixteen.restore.steps_each


def test_the_same_case_takes_the_same_steps_and_journal(scale: ModuleType) -> None:
    first, second = (scale.measure(scale.Case(2, HSTATE_16M)) for _ in range(2))
    assert (first.optimize.steps, first.restore.steps) == (second.optimize.steps, second.restore.steps)
    assert first.journal == second.journal
    # Every page given back is poisoned, every page restored is copied: 4096 bytes overwritten each.
    assert first.journal > 2 * 2 * PTES * 4096
