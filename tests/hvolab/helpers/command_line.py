"""The command `hvolab`, run in this process as on a terminal of 80 columns, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jsonschema
from large_runs import LARGE_RUNS

from hvolab.catalog import SCENARIOS
from hvolab.command.main import main

ROOT = Path(__file__).resolve().parents[3]
QUICK = tuple(chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS)
NOWHERE = "mov rax, 0x1000\njmp rax\n"

_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "LINES")


@dataclass(frozen=True)
class Printed:
    """What it left behind: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def hvolab(*arguments: str | Path) -> Printed:
    """`hvolab ARGUMENTS`."""
    return hvolab_on(80, *arguments)


def hvolab_on(columns: int, *arguments: str | Path, **terminal: str) -> Printed:
    """The same on a screen of that many columns. `terminal`: what the environment says of it."""
    out, err = StringIO(), StringIO()
    status: int | str | None = 0
    environment = {name: value for name, value in os.environ.items() if name not in _TERMINAL}
    with (
        patch.dict(os.environ, {**environment, "COLUMNS": str(columns), **terminal}, clear=True),
        patch.object(sys, "argv", ["hvolab", *map(str, arguments)]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as exited:
            status = exited.code
    assert isinstance(status, int)
    return Printed(status, out.getvalue(), err.getvalue())


def command_of(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from hvolab.command.main import main; main()", *arguments]


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_of(*arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def schema(name: str) -> jsonschema.Draft202012Validator:
    document = json.loads((ROOT / "hvolab" / "schema" / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(document)
