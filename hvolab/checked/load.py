"""A JSON document out of a file that nobody vouches for.

Promised: no more than the limits' bytes are held, whatever a gzip member claims; every way the file can
be wrong is a `InputError` of one line. Not promised: anything about what the document says.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from hvolab.checked.error import InputError

_GZIP_MAGIC: Final = b"\x1f\x8b"

_Container: TypeAlias = dict[str, object] | list[object]


@dataclass(frozen=True, slots=True)
class FileLimits:
    """How much a file may ask for: bytes on disk, bytes once decompressed, nested containers."""

    file_bytes: int = 64 << 20
    document_bytes: int = 256 << 20
    depth: int = 32


DEFAULT_LIMITS: Final = FileLimits()


def one_line(path: Path) -> str:
    """The path as text that stays on one line of an error message."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def load_json(path: Path, limits: FileLimits) -> object:
    """The document in `path`, plain or gzip by its first bytes. Raises `InputError`."""
    raw = _file_bytes(path, limits)
    if raw.startswith(_GZIP_MAGIC):
        raw = _decompress(path, raw, limits)
    if len(raw) > limits.document_bytes:
        raise InputError(f"{one_line(path)}: too large: more than {limits.document_bytes} bytes decompressed")
    document = _parse(path, raw, limits)
    if _deeper_than(document, limits.depth):
        raise _too_deep(path, limits)
    return document


def _file_bytes(path: Path, limits: FileLimits) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(limits.file_bytes + 1)
    except OSError as error:
        raise InputError(f"{one_line(path)}: cannot read: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in the name
        raise InputError(f"{one_line(path)}: cannot read: {error}") from error
    if len(raw) > limits.file_bytes:
        raise InputError(f"{one_line(path)}: too large: more than {limits.file_bytes} bytes")
    return raw


def _decompress(path: Path, raw: bytes, limits: FileLimits) -> bytes:
    # Asking for one byte more than allowed stops a decompression bomb there.
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            return file.read(limits.document_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{one_line(path)}: damaged gzip data: {error}") from error


def _parse(path: Path, raw: bytes, limits: FileLimits) -> object:
    try:
        document: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant
        )
    except RecursionError:
        # The parser's frames are of no use to anybody: `from None`.
        raise _too_deep(path, limits) from None
    except ValueError as error:
        raise InputError(f"{one_line(path)}: not JSON: {error}") from error
    return document


def _too_deep(path: Path, limits: FileLimits) -> InputError:
    return InputError(f"{one_line(path)}: nested too deep: more than {limits.depth} levels")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _deeper_than(document: object, depth: int) -> bool:
    level = _containers([document])
    for _ in range(depth):
        level = [child for container in level for child in _containers(_children(container))]
    return bool(level)


def _containers(values: Iterable[object]) -> list[_Container]:
    return [value for value in values if isinstance(value, dict | list)]


def _children(container: _Container) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container
