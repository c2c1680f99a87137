"""The file that a matrix is kept in, a line a cell, so that it can be interrupted, or killed, and go on.

A line is written at once, and under a lock: several matrices may keep theirs in one file. What a process that
was killed has left of a line is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO

from hvolab.checked.error import InputError
from hvolab.checked.load import one_line
from hvolab.checked.place import Place
from hvolab.matrix.cell import CellDone

_MOST = 64 << 20  # bytes


class ResultsError(ValueError):
    """The file cannot be read or written. One line."""


class Results:
    """Those in the file at `path`, by what they were made from. No path: they are kept in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._done: dict[str, CellDone] = {}

    def open(self) -> None:
        """What was kept before; the file is made when there is none. Raises ResultsError."""
        if self._path is None:
            return
        name = one_line(self._path)
        if self._path.exists() and not self._path.is_file():
            raise ResultsError(f"{name} is no file")
        self._write(b"")
        for number, line in enumerate(self._read().splitlines(), 1):
            done = _cell(f"{name}, line {number}", line)
            self._done[done.made_from] = done

    def find(self, made_from: str) -> CellDone | None:
        return self._done.get(made_from)

    def keep(self, done: CellDone) -> None:
        """Raises ResultsError when the file cannot be written."""
        self._done[done.made_from] = done
        self._write(json.dumps(done.save()).encode("ascii") + b"\n")

    def _read(self) -> bytes:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                found = file.read(_MOST + 1)
        except OSError as error:
            raise ResultsError(f"cannot read {one_line(self._path)}: {error.strerror}") from None
        if len(found) > _MOST:
            raise ResultsError(f"{one_line(self._path)} has more than {_MOST} bytes")
        if found and b"\n" not in found:
            raise ResultsError(f"these are no results of a matrix: {one_line(self._path)}: no line is whole")
        return found[: found.rfind(b"\n") + 1]

    def _write(self, line: bytes) -> None:
        """After the last whole line."""
        if self._path is None:
            return
        try:
            with self._path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if line:
                    _cut_off(file)
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise ResultsError(f"cannot write {one_line(self._path)}: {error.strerror}") from None


def _cut_off(file: BinaryIO) -> None:
    """What comes after the last end of a line."""
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


def _cell(name: str, line: bytes) -> CellDone:
    try:
        return CellDone.load(Place(name, "", json.loads(line)))
    except InputError as error:
        said = str(error)
    except (ValueError, RecursionError):
        said = f"{name}: no JSON"
    raise ResultsError(f"these are no results of a matrix: {said}")
