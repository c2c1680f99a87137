"""Files that are written beside what is printed: a place that is none is told before, an error after."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from hvolab.command.policies.output import check_place, write


def test_a_folder_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="no such directory") as caught:
        check_place(tmp_path / "none" / "page.html", "--html")
    assert caught.value.param_hint == "--html"
    check_place(tmp_path / "page.html", "--html")
    check_place(None, "--html")


def test_what_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="Is a directory"):
        write(tmp_path, "text", "--plot")


def test_a_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for text in ("longer than", "ü"):
        write(path, text, "--html")
    assert path.read_text(encoding="utf-8") == "ü"
