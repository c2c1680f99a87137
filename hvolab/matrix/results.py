"""The file that a matrix is kept in, cell by cell, so that it can be interrupted, or killed, and go on.

It is written beside its place and then moved there, after each cell: it is whole at every moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from hvolab.checked.error import InputError
from hvolab.checked.load import DEFAULT_LIMITS, load_json, one_line
from hvolab.checked.place import Place
from hvolab.matrix.cell import CellDone

SCHEMA = 1


class ResultsError(ValueError):
    """The file cannot be read or written. One line."""


def as_text(cells: Iterable[CellDone]) -> str:
    """What the file holds, and what `--json` prints."""
    return json.dumps({"schema": SCHEMA, "cells": [one.save() for one in cells]}, indent=1) + "\n"


class Results:
    """Those in the file at `path`, by what they were made from. No path: they are kept in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._done: dict[str, CellDone] = {}

    def load(self) -> None:
        """What was kept before; nothing when there is no file. Raises ResultsError."""
        if self._path is None or not self._path.exists():
            return
        try:
            place = Place(one_line(self._path), "", load_json(self._path, DEFAULT_LIMITS))
            place.field("schema").integer(SCHEMA, SCHEMA)
            for one in place.field("cells").items():
                self._done[one.field("made_from").text()] = CellDone.load(one)
        except InputError as error:
            raise ResultsError(f"these are no results of a matrix: {error}") from None

    def find(self, made_from: str) -> CellDone | None:
        return self._done.get(made_from)

    def keep(self, done: CellDone) -> None:
        """Raises ResultsError when the file cannot be written."""
        self._done[done.made_from] = done
        self.write()

    def write(self) -> None:
        """Raises ResultsError when the file cannot be written."""
        if self._path is None:
            return
        beside = self._path.with_name(self._path.name + ".new")
        try:
            with beside.open("w", encoding="ascii") as file:
                file.write(as_text(self._done.values()))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise ResultsError(f"cannot write {one_line(self._path)}: {error.strerror}") from None
