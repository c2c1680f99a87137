"""Runs under one schedule are one run, or the file is not used."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_files import PATCH, overriding, written

from hvolab.catalog import scenario
from hvolab.load.twice import check_twice
from hvolab.load.user_file import load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.scenario import Setup


def setup_with(path: Path) -> Setup:
    found = load(str(path))
    setup = scenario("flush-reader").build(2)
    boot = found.completed(Chosen()).apply(setup.boot, found.axes)
    return found.judged(Setup(boot, setup.actors, (), setup.watched))


def test_a_file_that_keeps_to_the_machine_is_used(tmp_path: Path) -> None:
    check_twice(setup_with(written(tmp_path, PATCH)), "mine.py")


def test_what_an_object_of_the_file_remembers_is_named_by_where_runs_differ(tmp_path: Path) -> None:
    body = """
        for _ in range(next(NUMBERS)):
            await Load(HUGE_PAGE.folio)
        return await super().vmemmap_remap_range(start, end, walk)
    """
    path = written(tmp_path, overriding(body) + "\n\nNUMBERS = iter(range(99))\n")
    with pytest.raises(LoadError) as raised:
        check_twice(setup_with(path), "mine.py")
    said = str(raised.value)
    assert said.startswith("mine.py: two runs under one schedule differ at event ")
    assert said.endswith("It depends on something outside the machine")


def test_a_judge_that_remembers_is_found_out_by_what_it_says(tmp_path: Path) -> None:
    source = """
    from hvolab.api import *
    ONCE = iter(["the first time"])

    @judge(0, Stored)
    def forgetful(state, event, sight):
        return state, [Problem(said) for said in ONCE]
    """
    path = written(tmp_path, source)
    with pytest.raises(
        LoadError, match=r"^mine.py: two equal runs are judged differently: \['violation: own"
    ):
        check_twice(setup_with(path), "mine.py")
