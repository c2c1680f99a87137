"""The command `hvolab`, run in this process."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hvolab.command.main import main


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
    out, err = StringIO(), StringIO()
    status: int | str | None = 0
    with (
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
