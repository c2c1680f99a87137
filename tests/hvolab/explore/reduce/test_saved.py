"""Footprints and choices in a checkpoint: what is read back is what was saved, or is refused in one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.choice import Step, TakeInterrupt
from emu.cpu.condition import Word
from hvolab.checked.error import InputError
from hvolab.checked.place import Place
from hvolab.explore.footprint.conflict import Footprint
from hvolab.explore.reduce.saved import (
    load_by_process,
    load_choices,
    load_footprint,
    save_by_process,
    save_choices,
    save_footprint,
)
from hvolab.judge.sight.resource import CellName, Kind, Resource

KINDS = [kind for kind in Kind if kind >= 0]  # the others are of names that are no Resource
NUMBERS = st.integers(-(1 << 40), 1 << 40)
TOUCHED = st.one_of(
    st.integers(0, 1 << 50),
    st.builds(Word, st.text(max_size=9), st.integers(0, 1 << 20)),
    st.builds(Resource, st.sampled_from(KINDS), NUMBERS, NUMBERS),
    st.builds(CellName, st.text(max_size=9), NUMBERS, NUMBERS),
)
SETS = st.frozensets(TOUCHED, max_size=6)
FOOTPRINTS = st.builds(Footprint, SETS, SETS, SETS)


def through_a_file(saved: object) -> Place:
    return Place("file", "", json.loads(json.dumps(saved)))


@given(FOOTPRINTS)
def test_a_footprint_survives_a_file(footprint: Footprint) -> None:
    assert load_footprint(through_a_file(save_footprint(footprint))) == footprint


@given(st.dictionaries(st.integers(0, 9), FOOTPRINTS, max_size=3))
def test_footprints_by_process_survive_a_file(footprints: dict[int, Footprint]) -> None:
    assert load_by_process(through_a_file(save_by_process(footprints))) == footprints


def test_a_footprint_is_written_in_one_order() -> None:
    """Sets have none of their own, and a checkpoint must be the same in every process."""
    touched = [Resource(Kind.OWNER, 9), Word("lock", 2), 72, CellName("copied", 5)]
    there, back = (Footprint(frozenset(some), frozenset(), frozenset()) for some in (touched, touched[::-1]))
    assert save_footprint(there) == save_footprint(back)
    assert save_footprint(there)[0] == [72, ["copied", 5, 0], ["lock", 2], [11, 9, 0]]


def test_choices_survive_a_file() -> None:
    choices = {0: Step(0), 3: Step(3), 258: TakeInterrupt(2)}
    assert load_choices(through_a_file(save_choices(choices))) == choices


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([[], []], "expected three lists"),
        ([[], [], 5], "[2]"),
        ([[-1], [], []], "-1"),
        ([[[1]], [], []], "expected a resource"),
        ([[[99, 0, 0]], [], []], "expected a kind of resource"),
        ([[[1.5, 0, 0]], [], []], "1.5"),
        ([[["lock", -1]], [], []], "-1"),
    ],
)
def test_a_damaged_footprint_is_refused(saved: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_footprint(Place("file", "", saved))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "row", [[0, "x0"], [0, "s"], [0, "s999"], [0], ["0", "s0"], [-1, "s0"]], ids=lambda row: str(row)
)
def test_a_damaged_choice_is_refused(row: list[object]) -> None:
    with pytest.raises(InputError):
        load_choices(Place("file", "", [row]))
