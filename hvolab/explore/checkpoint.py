"""Checkpoints: an exploration's state in a file, so that it can be killed and go on.

The file is JSON. It is written beside its place and then moved there, so that it is whole at every moment:
after every new finding, and every few seconds. Findings are kept as schedules, replayed when they are read.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from hvolab.checked.error import InputError
from hvolab.checked.json_value import Json
from hvolab.checked.load import FileLimits, load_json, one_line
from hvolab.checked.place import Place

SCHEMA = 2
SECONDS_BETWEEN = 5.0
_LIMITS = FileLimits(file_bytes=256 << 20, document_bytes=256 << 20, depth=32)


class CheckpointError(ValueError):
    """The file cannot be read or written, or belongs to another exploration. One line."""


class Checkpoint:
    """The file at `path`. `identity` names what is explored and how; a file of another is refused."""

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        self._path = path
        self._identity = dict(identity)
        self._written = -SECONDS_BETWEEN

    def load(self) -> Place | None:
        """What was saved last; None when there is no file. Raises CheckpointError."""
        if not self._path.exists():
            return None
        try:
            place = Place(one_line(self._path), "", load_json(self._path, _LIMITS))
            place.field("schema").integer(SCHEMA, SCHEMA)
            for name, value in self._identity.items():
                saved = place.field(name).text()
                if saved != value:
                    raise CheckpointError(
                        f"{one_line(self._path)} is the checkpoint of another exploration: {name} is "
                        f"{saved!r} there, {value!r} here"
                    )
            return place.field("state")
        except InputError as error:
            raise CheckpointError(f"damaged checkpoint: {error}") from None

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._written >= SECONDS_BETWEEN

    def save(self, state: Json) -> None:
        """Replace the file. Raises CheckpointError when it cannot be written."""
        text = json.dumps({"schema": SCHEMA, **self._identity, "state": state}, separators=(",", ":"))
        beside = self._path.with_name(self._path.name + ".new")
        try:
            with beside.open("w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError as error:
            raise CheckpointError(f"cannot write {one_line(self._path)}: {error.strerror}") from None
        self._written = time.monotonic()
