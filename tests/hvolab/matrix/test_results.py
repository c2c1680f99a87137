"""The file of a matrix: whole at every moment, and nothing in it is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvolab.matrix.cell import Cell, CellDone
from hvolab.matrix.results import Results, ResultsError, as_text

ONE, OTHER = (CellDone(Cell(name, "s", "lazy", 2), name * 16) for name in "ab")


def test_what_was_kept_is_found_by_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    results = Results(path)
    results.load()
    assert results.find("a" * 16) is None
    results.keep(ONE)
    results.keep(OTHER)
    again = Results(path)
    again.load()
    assert [again.find(one.made_from) for one in (ONE, OTHER)] == [ONE, OTHER]
    assert path.read_text(encoding="ascii") == as_text([ONE, OTHER])
    assert [*tmp_path.iterdir()] == [path]


def test_without_a_file_it_is_in_memory(tmp_path: Path) -> None:
    results = Results(None)
    results.load()
    results.keep(ONE)
    assert results.find(ONE.made_from) == ONE
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "these are no results of a matrix: "),
        ('{"schema": 2, "cells": []}', "schema: expected an integer from 1 to 1"),
        ('{"schema": 1, "cells": [{}]}', "cells[0]: missing field 'policy'"),
        (as_text([ONE])[:-9], "these are no results of a matrix: "),
    ],
)
def test_a_file_of_something_else_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(text, encoding="ascii")
    with pytest.raises(ResultsError) as error:
        Results(path).load()
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_text(encoding="ascii") == text


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"cannot write .*: No such file or directory"):
        Results(tmp_path / "nowhere" / "kept.json").write()
