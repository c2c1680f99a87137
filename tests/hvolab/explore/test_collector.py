"""Who explores leaves Python's collector as it was."""

from __future__ import annotations

import gc

import pytest

from hvolab.explore.collector import rarely_collected


def test_it_is_told_to_look_less_often_and_then_as_before() -> None:
    before = gc.get_threshold()
    with rarely_collected():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


def test_an_error_leaves_it_as_it_was() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), rarely_collected():
        raise KeyError
    assert gc.get_threshold() == before
