"""Every event that a run can have is told in words."""

from __future__ import annotations

from typing import get_args

import pytest
from catalog_runs import seen

from emu.events import MachineEvent
from hvolab.show.event_words import in_words, where_of

RUNS = ("missed-cpu", "tail-write", "spurious-write", "remap", "two-sizes")


def test_every_event_of_these_runs_has_words_of_its_own_kind() -> None:
    told: dict[str, set[str]] = {}
    for name in RUNS:
        for _, event in seen(name, 3).events:
            told.setdefault(type(event).__name__, set()).add(in_words(event))
    assert len(told) > 12
    assert all(all(words) for words in told.values())
    assert set(told) <= {kind.__name__ for kind in get_args(MachineEvent)}


@pytest.mark.parametrize("name", RUNS)
def test_a_place_names_kernel_functions_only(name: str) -> None:
    places = {where_of(event) for _, event in seen(name, 3).events}
    inner = {part for place in places for part in place.split(" < ")[:-1]}
    assert "vmemmap_pte_entry" in inner
    assert {part for part in inner if part.startswith("_")} == set()
