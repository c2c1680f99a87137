"""Replay lines, and schedules made from another setup."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import ROOT, command_of, hvolab, schema

from hvolab.judge.verdict import Verdict

# --- replay lines ---------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Runs a line in a shell that finds the command by its name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "hvolab").write_text(f'#!/bin/sh\nexec {shlex.join(command_of())} "$@"\n', encoding="utf-8")
    (folder / "hvolab").chmod(0o755)

    def run(line: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            line, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    return run


REPLAYED = (
    "verdict",
    "also",
    "cpu",
    "va",
    "cr2",
    "error_code",
    "pfn",
    "code",
    "instruction",
    "rip",
    "event",
    "why",
)


@pytest.mark.parametrize("name", ["tail-write", "missed-cpu"])
def test_the_replay_line_finds_the_same_again(
    name: str, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    first = hvolab("run", name, "--cpus", "3", "--json")
    line = first.json()["findings"][0]["replay"]
    assert shlex.split(line)[:5] == ["hvolab", "run", name, "--cpus", "3"]
    again = shell(f"{line} --json")
    assert (again.returncode, again.stderr) == (first.status, "")
    assert json.loads(again.stdout) == first.json()


def fingerprints_of(name: str, *cpus: str) -> list[str]:
    """The second word of the schedule of a scenario's own order, on that many CPUs each."""
    schedules = [hvolab("run", name, "--cpus", count, "--json").json()["schedule"] for count in cpus]
    return [schedule.split()[1] for schedule in schedules]


def test_a_replay_line_says_what_it_was_made_from() -> None:
    first = hvolab("run", "tail-write", "--json").json()
    assert first["schedule"].startswith(f"v2 {fingerprints_of('tail-write', '2')[0]} 0*")
    assert shlex.split(first["findings"][0]["replay"])[-1] == first["schedule"]
    shown = hvolab("run", "tail-write").out.splitlines()
    assert f"replay {first['findings'][0]['replay']}" in shown


def test_a_stale_schedule_that_does_not_fit_says_so() -> None:
    own = hvolab("run", "stale-read", "--cpus", "2", "--json").json()["schedule"]
    two, three = fingerprints_of("stale-read", "2", "3")
    stale = f"the schedule was made from another setup ({two}, this one is {three})"
    why = f"pick 12 of the schedule is 0, but the run can run: 1, i2; {stale}"
    arguments = ("run", "stale-read", "--cpus", "3", "--schedule", own, "--json")
    done = hvolab(*arguments)
    assert (done.status, done.out, done.err) == (2, "", f"hvolab: {why}\n")
    past = hvolab(*arguments, "--past-divergence")
    assert (past.status, past.err) == (0, f"hvolab: note: diverged at pick 12: {why}\n")
    schema("run").validate(past.json())
    # It is a run like any other: its schedule is this setup's, and begins as the old one does.
    schedule = past.json()["schedule"]
    assert schedule.startswith(f"v2 {three} 0*10 i1 ")
    again = hvolab(*arguments[:5], schedule, "--json")
    assert (again.status, again.out, again.err) == (0, past.out, "")


@pytest.mark.parametrize("further", [(), ("--past-divergence",)])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_stale_schedule_that_fits_is_followed_with_a_note(
    form: tuple[str, ...], further: tuple[str, ...]
) -> None:
    own = hvolab("run", "tail-write", "--json").json()["schedule"]
    word = own.split()[1]
    stale = own.replace(word, "@00000000")
    done = hvolab("run", "tail-write", "--schedule", stale, *form, *further)
    note = f"the schedule was made from another setup (@00000000, this one is {word})"
    assert (done.status, done.err) == (1, f"hvolab: note: {note}\n")
    assert done.out == hvolab("run", "tail-write", "--schedule", own, *form).out


def test_a_schedule_of_another_cpu_model_is_stale() -> None:
    own = hvolab("run", "missed-cpu", "--json").json()["schedule"]
    done = hvolab("run", "missed-cpu", "--schedule", own, "--cpu-model", "zen-3", "--json")
    assert done.err.startswith("hvolab: note: the schedule was made from another setup (@")


@pytest.mark.parametrize("further", [(), ("--past-divergence",)])
def test_a_schedule_without_fingerprint_is_followed_without_a_word(further: tuple[str, ...]) -> None:
    first = hvolab("run", "tail-write", "--json")
    words = first.json()["schedule"].split()
    for text in (["v1", *words[2:]], ["v2", *words[2:]]):
        done = hvolab("run", "tail-write", "--schedule", " ".join(text), "--json", *further)
        assert (done.status, done.out, done.err) == (1, first.out, "")


AWKWARD = 'it\'s $HOME; `a` & "b" [red]x[-red] ü.S'


def test_a_replay_line_is_quoted_for_a_shell(
    tmp_path: Path,
    shell: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    (tmp_path / AWKWARD).write_text("mov rax, [rdi]\nnop\nmov rbx, [rdi]\nhlt\n", encoding="utf-8")
    first = hvolab("run", "missed-cpu", "--program", tmp_path / AWKWARD, "--json")
    assert first.status == 1
    finding = first.json()["findings"][0]
    assert (finding["verdict"], finding["code"]) == (Verdict.MISSED_FLUSH.value, AWKWARD)
    again = shell(f"{finding['replay']} --json")
    assert (again.returncode, again.stderr) == (1, "")
    found = json.loads(again.stdout)["findings"][0]
    assert {key: found[key] for key in REPLAYED} == {key: finding[key] for key in REPLAYED}
    # On the screen: the name as it is, and the line whole, whatever the width.
    shown = hvolab("run", "missed-cpu", "--program", tmp_path / AWKWARD).out
    assert f"replay {finding['replay']}" in shown.splitlines()
    assert AWKWARD in " ".join(shown.split())


def test_a_file_name_with_control_characters_does_not_reach_the_terminal(tmp_path: Path) -> None:
    """Only the replay line has the name as it is: it must find the file again."""
    path = tmp_path / "a\x1b[31mb.S"
    path.write_text("mov rax, [rdi]\nnop\nmov rbx, [rdi]\nhlt\n", encoding="utf-8")
    done = hvolab("run", "missed-cpu", "--program", path)
    assert done.status == 1
    shown = [line for line in done.out.splitlines() if not line.startswith("replay ")]
    assert [line for line in shown if "\x1b" in line] == []


def test_a_replay_line_repeats_the_cpu_model() -> None:
    first = hvolab("run", "missed-cpu", "--cpu-model", "zen-3", "--json")
    line = first.json()["findings"][0]["replay"]
    assert hvolab(*shlex.split(line)[1:], "--json").json() == first.json()
