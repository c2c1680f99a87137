"""Any variant under any policy on any CPU: the replay line gives the same run in a process of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from itertools import product
from typing import Any

import pytest

PROGRAM = "from hvolab.command.main import main; main()"
COMBINED = list(
    product(
        ("upstream", "free-before-flush", "no-flush-after-remap"),
        ("upstream", "local-only", "never"),
        ("lazy", "lazy-no-psc", "skylake"),
    )
)
SOME = [COMBINED[0], COMBINED[13], COMBINED[26]]


def run_json(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, "--json"], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    document: dict[str, Any] = json.loads(done.stdout)
    document["status"] = done.returncode
    return document


def reproduce(variant: str, policy: str, model: str) -> None:
    options = ("--variant", variant, "--policy", policy, "--cpu-model", model)
    first = run_json("run", "flush-reader", *options)
    assert (first["variant"], first["policy"]) == (variant, policy)
    words = shlex.split(first["replay"])
    assert words[:3] == ["hvolab", "run", "flush-reader"]
    assert [words[words.index(option) + 1] for option in options[::2]] == [variant, policy, model]
    assert run_json(*words[1:]) == first


@pytest.mark.parametrize(("variant", "policy", "model"), SOME)
def test_a_replay_line_does_not_forget_an_axis(variant: str, policy: str, model: str) -> None:
    reproduce(variant, policy, model)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "policy", "model"), COMBINED)
def test_every_combination_of_three_of_each_is_reproduced(variant: str, policy: str, model: str) -> None:
    reproduce(variant, policy, model)
