"""The documents name files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = tuple(
    path.relative_to(ROOT).as_posix() for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
)
_PATH = re.compile(
    r"(?<![\w./-])((?:emu|firmware|kernel_model|hvolab|tests|benchmarks|docs)(?:/[\w*-]+)*/[\w*.-]*\w/?)"
)


def not_there(text: str) -> list[str]:
    """The paths a text names, from the root of the tree, that lead to nothing. `*` is any part of a name."""
    named = (match[1].rstrip(".") for match in _PATH.finditer(text))
    return [path for path in named if not any(ROOT.glob(path)) and not any(ROOT.glob(f"{path}.py"))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_no_file_that_is_gone(document: str) -> None:
    assert not_there((ROOT / document).read_text(encoding="utf-8")) == []


def test_the_documents_name_files_at_all() -> None:
    texts = [(ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS]
    assert sum(len(_PATH.findall(text)) for text in texts) > 40


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("in `hvolab/monitor.py`.", ["hvolab/monitor.py"]),
        ("in `emu/machine.py`, `tests/emu/paging/test_rules_of_*.py` and `hvolab/catalog/`.", []),
        ("`tests/emu/test_nothing_of_*.py`", ["tests/emu/test_nothing_of_*.py"]),
        ("`hvolab/search`", ["hvolab/search"]),
        ("`hvolab/explore/search`", []),
    ],
)
def test_a_path_that_is_gone_is_found(text: str, gone: list[str]) -> None:
    assert not_there(text) == gone
