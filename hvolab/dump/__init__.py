"""Read, write and build dumps of the vmemmap page tables: the module to import from.

The format is that of dumps taken from a real Linux, described in docs/dump-format.md, so that a dump of
ours can stand where one of those does. `hvolab.dump.compare` says how two of them differ.

Promised: a file is never trusted (size, depth, types, ranges), what is wrong with it is one `InputError`
line, JSON is the only thing read, and `read_dump` gives back what `write_dump` wrote. Not promised: that
fields of a file which `Dump` has no place for survive, or that a write cut short leaves the old file.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from hvolab.checked.error import InputError
from hvolab.checked.load import DEFAULT_LIMITS, FileLimits, load_json, one_line
from hvolab.dump.build import dump_of, summary_of, with_mappings
from hvolab.dump.decode import dump_from
from hvolab.dump.encode import document_of
from hvolab.dump.flag_words import FLAG_WORDS
from hvolab.dump.model import (
    COUNTERS,
    TABLE_FLAGS,
    Dump,
    FolioRow,
    Leaf,
    Pmd,
    PmdKind,
    StructBlock,
    StructRun,
)
from hvolab.dump.place import DumpPlace

__all__ = [
    "COUNTERS",
    "DEFAULT_LIMITS",
    "FLAG_WORDS",
    "TABLE_FLAGS",
    "Dump",
    "FileLimits",
    "FolioRow",
    "Leaf",
    "Pmd",
    "PmdKind",
    "StructBlock",
    "StructRun",
    "dump_of",
    "read_dump",
    "summary_of",
    "with_mappings",
    "write_dump",
]


def read_dump(path: Path | str, limits: FileLimits = DEFAULT_LIMITS) -> Dump:
    """The dump in `path`, JSON or gzip-compressed JSON by its first bytes, whatever its name.

    Raises `InputError`, one line naming the file and what is wrong where: it cannot be read, passes the
    `limits` (bytes and levels), is not JSON, or is not a dump by docs/dump-format.md.
    """
    file = Path(path)
    return dump_from(DumpPlace(one_line(file), "", load_json(file, limits)))


def write_dump(dump: Dump, path: Path | str) -> None:
    """Write `dump`; a name ending in ".gz" gets gzip. The same dump gives the same bytes.

    Raises `InputError` when the file cannot be written, or, before anything is written, when `read_dump`
    would refuse the result or give back another dump.
    """
    file = Path(path)
    document = document_of(dump)
    if dump_from(DumpPlace(one_line(file), "", document)) != dump:
        raise InputError(f"{one_line(file)}: not written: the dump holds what the format has no field for")
    text = json.dumps(document, separators=(",", ":")) + "\n"
    data = text.encode("ascii")
    try:
        file.write_bytes(gzip.compress(data, mtime=0) if file.suffix == ".gz" else data)
    except OSError as error:
        raise InputError(f"{one_line(file)}: cannot write: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in the name
        raise InputError(f"{one_line(file)}: cannot write: {error}") from error
