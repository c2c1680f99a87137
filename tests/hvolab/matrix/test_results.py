"""The file of a matrix: a line a cell, and nothing in it is done again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hvolab.matrix.cell import Cell, CellDone
from hvolab.matrix.results import Results, ResultsError

ONE, OTHER, THIRD = (CellDone(Cell(name, "s", "lazy", 2), name * 16) for name in "abc")


def line(done: CellDone) -> str:
    return json.dumps(done.save()) + "\n"


def kept(path: Path) -> list[CellDone | None]:
    results = Results(path)
    results.open()
    return [results.find(one.made_from) for one in (ONE, OTHER, THIRD)]


def test_what_was_kept_is_found_by_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    assert kept(path) == [None] * 3
    results = Results(path)
    results.keep(ONE)
    results.keep(OTHER)
    assert kept(path) == [ONE, OTHER, None]
    assert path.read_text(encoding="ascii") == line(ONE) + line(OTHER)
    assert [*tmp_path.iterdir()] == [path]


def test_without_a_file_it_is_in_memory(tmp_path: Path) -> None:
    results = Results(None)
    results.open()
    results.keep(ONE)
    assert results.find(ONE.made_from) == ONE
    assert [*tmp_path.iterdir()] == []


def test_what_a_killed_process_has_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text(line(ONE) + line(OTHER)[:40], encoding="ascii")
    assert kept(path) == [ONE, None, None]
    results = Results(path)
    results.open()
    results.keep(THIRD)
    assert path.read_text(encoding="ascii") == line(ONE) + line(THIRD)


def test_two_that_keep_in_one_file_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    own, beside = Results(path), Results(path)
    own.open()
    beside.open()
    own.keep(ONE)
    beside.keep(OTHER)
    own.keep(THIRD)
    assert kept(path) == [ONE, OTHER, THIRD]


def test_a_link_stays_a_link_and_a_mode_a_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "kept", tmp_path / "link"
    path.write_text("", encoding="ascii")
    path.chmod(0o640)
    link.symlink_to(path)
    Results(link).keep(ONE)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert kept(path) == [ONE, None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "no line is whole"),
        ("nonsense\n", "line 1: no JSON"),
        (line(ONE) + "{}\n", "line 2: the whole file: missing field 'reason'"),
        (line(ONE).replace('"reason": ""', '"reason": "why"'), "reason: what was not explored is not kept"),
        (line(ONE).replace('"verdicts": []', '"verdicts": ["legal"]'), "expected a violation, found 'legal'"),
        ("[" * 100_000 + "\n", "line 1: no JSON"),
    ],
)
def test_a_file_of_something_else_is_one_line_and_stays_as_it_is(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "kept"
    path.write_text(text, encoding="ascii")
    with pytest.raises(ResultsError) as error:
        Results(path).open()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_text(encoding="ascii") == text


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"cannot write .*: No such file or directory"):
        Results(tmp_path / "nowhere" / "kept").open()
    os.mkfifo(tmp_path / "fifo")
    for name in (".", "fifo"):
        with pytest.raises(ResultsError, match="is no file"):
            Results(tmp_path / name).open()
