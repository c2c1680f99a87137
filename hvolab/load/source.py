"""A user's file, read and run as a module that nothing else knows.

Its text is read once: what is run is what is hashed. Nothing is written beside it.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import InspectLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType

from hvolab.load.changeable import changeable_in
from hvolab.load.rules import INSTEAD, hidden_state
from hvolab.subject.blame import MARK, LoadError, blamed, in_a_line
from hvolab.subject.stuck import ended_when_stuck

DIGEST_DIGITS = 16
MODULE = "hvolab_loaded_"  # what the names of such modules begin with
LARGEST = 1 << 20


@dataclass(frozen=True, slots=True)
class FileRun:
    """A file that was run. `digest`: of its contents."""

    path: Path
    digest: str
    module: ModuleType


class _Text(InspectLoader):
    """A loader of one text, which was read from that path."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text

    def get_source(self, fullname: str) -> str:
        del fullname
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self.source_to_code(self._text, str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[MARK] = str(self._path)
        super().exec_module(module)


def read_source(path: Path) -> FileRun:
    """Read, check and run the file. Raises LoadError."""
    text = _text(path)
    try:
        tree = ast.parse(text, str(path))
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        said = getattr(error, "msg", "") or f"it cannot be read: {type(error).__name__}"
        raise LoadError(f"{path.name}{f':{line}' if line else ''}: {said}") from None
    for line, what in sorted(hidden_state(tree)):
        raise LoadError(f"{path.name}:{line}: {what}")
    digest = sha256(text.encode("utf-8")).hexdigest()[:DIGEST_DIGITS]
    name = f"{MODULE}{digest}"
    spec = spec_from_loader(name, _Text(path, text))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with ended_when_stuck(lambda: None):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise blamed(error) or LoadError(f"{path.name}: {in_a_line(error)}") from error
    for where, what in changeable_in(module):
        raise LoadError(f"{path.name}: {where} is {what}, which can change and would outlive a step{INSTEAD}")
    return FileRun(path, digest, module)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > LARGEST:
        raise LoadError(f"cannot use {path}: {len(data)} bytes, at most {LARGEST}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoadError(f"cannot read {path}: byte {error.start} is no UTF-8") from None
