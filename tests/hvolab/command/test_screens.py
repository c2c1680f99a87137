"""What the commands print, as text: at 80 and at 160 columns, with and without a terminal and its colours.

The texts are in tests/fixtures/screens. Where one is out of date on purpose, take it away and run this once:
what is missing is written, and the test fails to say so.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from command_line import hvolab_on

SCREENS = Path(__file__).resolve().parents[2] / "fixtures" / "screens"
COMMANDS = {
    "demo": ("demo",),
    "run": ("run", "missed-cpu"),
    "run-8": ("run", "stale-read", "--cpus", "8"),
    "explore": ("explore", "frozen-tail", "--variant", "no-rcu-wait", "--no-shrink"),
    "why": ("why", "stale-read"),
    "step": ("step", "missed-cpu", "--at", "313"),
    "list": ("list",),
    "show": ("show", "flush-sleeper"),
}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
TERMINALS = {
    "no terminal": {},
    "a terminal": {"FORCE_COLOR": "1", "TERM": "xterm-256color"},
    "a terminal without colour": {"FORCE_COLOR": "1", "NO_COLOR": "1", "TERM": "xterm-256color"},
}


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_printed_is_the_text_on_file(name: str, columns: int) -> None:
    done = hvolab_on(columns, *COMMANDS[name])
    path = SCREENS / f"{name}-{columns}.txt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(done.out, encoding="utf-8")
        pytest.fail(f"{path.name} was not there, and has been written: look at it")
    assert done.out == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("terminal", TERMINALS)
@pytest.mark.parametrize("name", [pytest.param("demo", marks=pytest.mark.slow), "run", "list", "step"])
def test_a_terminal_changes_colours_and_nothing_else(
    name: str, terminal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    done = hvolab_on(80, *COMMANDS[name], **TERMINALS[terminal])
    plain = _COLOUR.sub("", done.out)
    assert plain == (SCREENS / f"{name}-80.txt").read_text(encoding="utf-8")
    if terminal == "no terminal":
        assert done.out == plain


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_screen_but_what_is_to_be_copied(name: str) -> None:
    for columns in (80, 160):
        lines = (SCREENS / f"{name}-{columns}.txt").read_text(encoding="utf-8").splitlines()
        wide = [line for line in lines if len(line) > columns]
        copied = (
            "replay ",
            "try it ",
            "       hvolab run ",
            "version ",
            "window ",
            "store ",
            "flush ",
            "rule ",
        )
        assert [line for line in wide if not line.startswith(copied)] == []
