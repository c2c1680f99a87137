"""The pages for users are what happens: their files are written, their commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import Printed, hvolab

DOCS = Path(__file__).resolve().parents[2] / "docs"
WITH_FILES = ("your-own.md", "your-patch.md", "write-a-policy.md")
PAGES = (*WITH_FILES, "costs.md")
_FILE = re.compile(r"```python\n# (\S+\.py)\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"```text\n\$ hvolab ([^\n]+)\n(.*?)```", re.DOTALL)


def files_of(page: str) -> dict[str, str]:
    return dict(_FILE.findall((DOCS / page).read_text(encoding="utf-8")))


COMMANDS = [
    (page, command, said)
    for page in PAGES
    for command, said in _COMMAND.findall((DOCS / page).read_text(encoding="utf-8"))
]


@pytest.fixture
def in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for page in PAGES:
        for name, source in files_of(page).items():
            (tmp_path / name).write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("page", "command", "said"), COMMANDS, ids=[command for _, command, _ in COMMANDS])
def test_a_command_of_the_page_says_what_the_page_says(
    in_a_directory: Path, page: str, command: str, said: str
) -> None:
    status, *words = said.strip().splitlines()
    done: Printed = hvolab(*shlex.split(command))
    assert f"exit status {done.status}" == status, done.err
    assert words
    assert [line for line in words if line not in done.out] == []


@pytest.mark.parametrize("page", PAGES)
def test_there_is_something_to_try_on_each_page(page: str) -> None:
    assert bool(files_of(page)) == (page in WITH_FILES)
    assert any(one == page for one, _, _ in COMMANDS)


def test_a_patch_takes_at_most_ten_lines_and_a_policy_twenty_five() -> None:
    lines = {
        name: len([line for line in source.splitlines() if line.strip()])
        for page in PAGES
        for name, source in files_of(page).items()
    }
    assert lines["mine.py"] <= 10
    assert max(lines[name] for name in ("no_wait.py", "everything.py", "sleepers.py", "hasty.py")) <= 25


def test_the_picture_in_the_readme_is_that_of_a_run_today(tmp_path: Path) -> None:
    """Where it is not: hvolab run missed-cpu --svg docs/missed-cpu.svg"""
    done = hvolab("run", "missed-cpu", "--svg", tmp_path / "now.svg")
    assert (done.status, done.err) == (1, "")
    assert (tmp_path / "now.svg").read_bytes() == (DOCS / "missed-cpu.svg").read_bytes()
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert "(docs/missed-cpu.svg)" in readme
    assert "`hvolab run missed-cpu --svg docs/missed-cpu.svg`" in readme


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = hvolab("run", "stale-read", "--svg", tmp_path / "nowhere" / "x.svg")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "No such file or directory" in done.err
