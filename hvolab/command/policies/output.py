"""Files that a command writes beside what it prints."""

from __future__ import annotations

from pathlib import Path

import click


def check_place(path: Path | None, option: str) -> None:
    """Before anything is explored. Raises BadParameter."""
    if path is not None and not path.parent.is_dir():
        raise click.BadParameter(f"cannot write {path}: no such directory", param_hint=option)


def write(path: Path, text: str, option: str) -> None:
    """Raises BadParameter."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint=option) from None
