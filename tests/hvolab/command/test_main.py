"""The command: exit statuses, one line for every wrong input, help, JSON, and replay lines that replay.

Most tests call the entry point in this process; those about a shell, or a terminal, start one.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from hvolab.catalog import SCENARIOS, scenario
from hvolab.command.main import cli, main
from hvolab.judge.verdict import Verdict
from hvolab.subject.axes import option_of

ROOT = Path(__file__).resolve().parents[3]
NAMES = ", ".join(chosen.name for chosen in SCENARIOS)
QUICK = tuple(chosen.name for chosen in SCENARIOS if chosen.name not in ("remap-1g", "rollback"))
NOWHERE = "mov rax, 0x1000\njmp rax\n"


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Hvolab = Callable[..., Result]


@pytest.fixture
def hvolab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hvolab:
    """Runs the command in this process, as on a terminal of 80 columns that shows no colours."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["hvolab", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        out, err = capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return Result(exited.value.code, out, err)

    return call


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


# --- wrong input ----------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files that are wrong in some way, by name."""
    contents = {
        "empty.json": "",
        "object.json": "{}",
        "bad.S": "start:\n    frob rax\n",
        "empty.S": "",
        "nowhere.S": NOWHERE,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    (tmp_path / "latin1.S").write_bytes(b"# \xe4\nhlt\n")
    return {name: str(tmp_path / name) for name in (*contents, "latin1.S", "missing", ".")}


SCHEDULE_ERRORS = [
    ("", "the schedule is empty"),
    ("v3 0", "a schedule begins with 'v2' (or 'v1'), this one with 'v3'"),
    ("v2 0*2 x", "word 3 of the schedule is not a pick: 'x'"),
    ("v2 256", "word 2 of the schedule is not a pick: '256'"),
    ("v2 @12 0", "word 2 of the schedule is not a fingerprint, @ and 8 digits, 0-9 or a-f: '@12'"),
    ("v1 @1a2b3c4d 0", "word 2 of the schedule is not a pick: '@1a2b3c4d'"),
]
DIVERGING = [
    ("v1", 1, "the schedule ends after 0 picks, but the run goes on"),
    ("v2", 1, "the schedule ends after 0 picks, but the run goes on"),
    ("v2 0*5", 6, "the schedule ends after 5 picks, but the run goes on"),
    ("v2 0 1 7", 3, "pick 3 of the schedule is 7, but the run can run: 0, 1"),
    ("v2 0 i1", 2, "pick 2 of the schedule is i1, but the run can run: 0, 1"),
    ("v1 0 t0/2", 2, "pick 2 of the schedule is t0/2, but the run can run: 0, 1"),
]


@pytest.mark.parametrize(("text", "message"), SCHEDULE_ERRORS)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_schedule_that_cannot_be_followed(
    text: str, message: str, form: tuple[str, ...], hvolab: Hvolab
) -> None:
    for further in ((), ("--past-divergence",)):
        done = hvolab("run", "stale-read", "--schedule", text, *form, *further)
        assert (done.status, done.out, done.err) == (2, "", f"hvolab: {message}\n")


@pytest.mark.parametrize(("text", "pick", "why"), DIVERGING)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_schedule_of_another_run(
    text: str, pick: int, why: str, form: tuple[str, ...], hvolab: Hvolab
) -> None:
    """Bad input, unless the rest of the run is asked for."""
    done = hvolab("run", "stale-read", "--schedule", text, *form)
    assert (done.status, done.err) == (2, f"hvolab: {why}\n")
    done = hvolab("run", "stale-read", "--schedule", text, *form, "--past-divergence")
    assert (done.status, done.err) == (0, f"hvolab: note: diverged at pick {pick}: {why}\n")
    assert done.out != ""


def test_a_schedule_that_goes_on_after_the_run_has_ended(hvolab: Hvolab) -> None:
    own = hvolab("run", "stale-read", "--json").json()["schedule"]
    done = hvolab("run", "stale-read", "--schedule", f"{own} 0", "--json")
    assert done.status == 2
    words = done.err.split()
    assert done.err.startswith("hvolab: the run ended after ")
    assert int(words[-2]) == int(words[5]) + 1
    assert done.out == ""
    past = hvolab("run", "stale-read", "--schedule", f"{own} 0", "--json", "--past-divergence")
    assert past.status == 0
    assert past.err == f"hvolab: note: diverged at pick {words[-2]}: {done.err.removeprefix('hvolab: ')}"
    assert past.json()["schedule"] == own


WRONG_USAGE = [
    (("run", "nope"), f"there is no scenario 'nope'; there are: {NAMES}"),
    (("run", ""), f"there is no scenario ''; there are: {NAMES}"),
    (("run", "Tail-Write"), "there is no scenario 'Tail-Write'; did you mean tail-write?"),
    (("run", "a\nb"), f"there is no scenario 'a\\nb'; there are: {NAMES}"),
    (("run",), "Missing argument 'NAME'."),
    (("run", "stale-read", "--cpus", "0"), "Invalid value for '--cpus': 0 is not in the range 1<=x<=256."),
    (
        ("run", "stale-read", "--cpus", "257"),
        "Invalid value for '--cpus': 257 is not in the range 1<=x<=256.",
    ),
    (("run", "stale-read", "--cpus", "-1"), "Invalid value for '--cpus': -1 is not in the range 1<=x<=256."),
    (("run", "stale-read", "--cpus", "1"), "stale-read has actors on 2 CPUs, not 1: --cpus"),
    (("run", "flush-begun-before", "--cpus", "2"), "flush-begun-before has actors on 3 CPUs, not 2: --cpus"),
    (("run", "stale-read", "--seed", "-1"), "Invalid value for '--seed': -1 is not in the range x>=0."),
    (("run", "stale-read", "--seed", "1", "--schedule", "v1 0"), "--seed and --schedule exclude each other"),
    (("run", "stale-read", "--past-divergence"), "--past-divergence goes with --schedule"),
    (("run", "stale-read", "--past-divergence", "--seed", "1"), "--past-divergence goes with --schedule"),
    (("list", "more"), "Got unexpected extra argument (more)"),
    (("demo", "more"), "Got unexpected extra argument (more)"),
    (("run", "stale-read", "more"), "Got unexpected extra argument (more)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_USAGE, ids=lambda value: " ".join(value)[:60])
def test_wrong_usage_is_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, hvolab: Hvolab
) -> None:
    done = hvolab(*arguments)
    assert (done.status, done.err) == (2, f"hvolab: {message}\n")
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        (("nope",), "nope"),
        (("run", "stale-read", "--bogus"), "--bogus"),
        (("list", "--bogus"), "--bogus"),
        (("run", "stale-read", "--cpus", "two"), "--cpus"),
        (("run", "stale-read", "--cpus"), "--cpus"),
        (("run", "stale-read", "--schedule"), "--schedule"),
        (("explore", "nope"), "nope"),
        (("explore",), "NAME"),
    ],
)
def test_what_click_refuses_is_one_line_that_names_it(
    arguments: tuple[str, ...], about: str, hvolab: Hvolab
) -> None:
    done = hvolab(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("hvolab: ")
    assert done.err.endswith("\n")
    assert done.err.count("\n") == 1
    assert about in done.err


WRONG_FILES = [
    (("run", "stale-read", "--program", "missing"), "cannot read {missing}"),
    (("run", "stale-read", "--program", "."), "cannot read {.}"),
    (("run", "stale-read", "--program", "latin1.S"), "cannot read {latin1.S}"),
    (("run", "stale-read", "--program", "bad.S"), "bad.S, line 2: "),
    (("run", "stale-read", "--program", "empty.S"), "empty.S: "),
    (("run", "stale-read", "--trace", "."), "cannot write {.}: Is a directory"),
    (("run", "stale-read", "--trace", "missing/x"), "cannot write {missing}/x: No such file or directory"),
    (("run", "stale-read", "--dump", "missing/x"), "{missing}/x: cannot write: No such file or directory"),
    (("run", "stale-read", "--dump", "."), "cannot write: Is a directory"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_FILES, ids=lambda value: " ".join(value)[:60])
def test_a_file_that_is_wrong_is_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, files: dict[str, str], hvolab: Hvolab
) -> None:
    def path(argument: str) -> str:
        name, slash, rest = argument.partition("/")
        return files.get(name, name) + slash + rest

    for name, where in files.items():
        message = message.replace(f"{{{name}}}", where)
    done = hvolab(*map(path, arguments), "--json") if arguments[0] == "run" else hvolab(*map(path, arguments))
    assert done.status == 2
    assert done.err.startswith("hvolab: ")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_guest_instruction_that_is_not_modelled_is_named(tmp_path: Path, hvolab: Hvolab) -> None:
    (tmp_path / "mine.S").write_text("int3\nhlt\n", encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "mine.S", "--json")
    assert done.status == 2
    assert done.err.startswith("hvolab: guest instruction not modelled at 0xffffffff811")
    assert done.err.endswith(": int3\n")


def test_a_program_that_does_not_do_what_the_script_waits_for(tmp_path: Path, hvolab: Hvolab) -> None:
    (tmp_path / "mine.S").write_text("hlt\n", encoding="utf-8")
    done = hvolab("run", "stale-read", "--program", tmp_path / "mine.S", "--json")
    assert done.status == 2
    assert done.err == "hvolab: cannot meet 'cpu1 until Load(0xffffea0000101008)': the CPU has ended\n"


@pytest.mark.parametrize(
    "source", [NOWHERE, "hlt\n", "mov rax, [rdi]\nhlt\n"], ids=["nowhere", "hlt", "reads"]
)
def test_a_program_given_to_remap_is_no_internal_error(source: str, tmp_path: Path, hvolab: Hvolab) -> None:
    """The view of remap shows what its own readers leave in their buffers; others leave nothing there."""
    (tmp_path / "mine.S").write_text(source, encoding="utf-8")
    done = hvolab("run", "remap", "--program", tmp_path / "mine.S")
    assert done.status in (0, 1, 2)
    assert "Traceback" not in done.err
    assert done.err.count("\n") <= 1


def test_a_full_disk_under_the_trace_is_no_internal_error(hvolab: Hvolab) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    done = hvolab("run", "stale-read", "--json", "--trace", "/dev/full")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "/dev/full" in done.err


# --- help -----------------------------------------------------------------------------------------------


def test_no_argument_is_help(hvolab: Hvolab) -> None:
    done = hvolab()
    assert done.status == 0
    assert done.err == ""
    assert "Example:  hvolab run tail-write" in done.out
    assert all(name in done.out for name in cli.commands)


def help_texts() -> Iterator[tuple[str, ...]]:
    yield ()
    for name in cli.commands:
        yield (name,)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", list(help_texts()), ids=" ".join)
def test_help_starts_with_an_example(command: tuple[str, ...], flag: str, hvolab: Hvolab) -> None:
    done = hvolab(*command, flag)
    assert done.status == 0
    lines = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert lines[0].startswith("Usage: ")
    assert lines[1].startswith(f"Example:  hvolab {' '.join(command)}".rstrip())


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_says_what_it_is_for(name: str) -> None:
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help or parameter.show_default, f"{name} {parameter.opts}"


def test_the_version(hvolab: Hvolab) -> None:
    done = hvolab("--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("hvolab, version ")


# --- list and run ---------------------------------------------------------------------------------------


def test_list_names_every_scenario_and_its_question(hvolab: Hvolab) -> None:
    done = hvolab("list")
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    for chosen in SCENARIOS:
        assert chosen.name in text
        assert chosen.question.split(",")[0][:40] in text


def test_list_json_is_what_the_schema_says(hvolab: Hvolab) -> None:
    done = hvolab("list", "--json")
    assert (done.status, done.err) == (0, "")
    schema("list").validate(done.json())
    assert [entry["name"] for entry in done.json()["scenarios"]] == [chosen.name for chosen in SCENARIOS]
    assert [entry["cpus_min"] for entry in done.json()["scenarios"]] == [c.cpus_min for c in SCENARIOS]


@pytest.mark.parametrize(
    ("name", "option", "deviation", "verdict"),
    [
        (chosen.name, *option_of(bug.deviation), bug.verdict.value)
        for chosen in SCENARIOS
        for bug in chosen.bugs
        if chosen.name in QUICK
    ],
)
def test_run_of_a_scenario_with_its_bug_exits_with_1(
    name: str, option: str, deviation: str, verdict: str, hvolab: Hvolab
) -> None:
    done = hvolab("run", name, option, deviation, "--json")
    assert (done.status, done.err) == (1, "")
    assert verdict in {finding["verdict"] for finding in done.json()["findings"]}


@pytest.mark.parametrize("name", QUICK)
def test_run_json_is_what_the_schema_says(name: str, hvolab: Hvolab) -> None:
    chosen = scenario(name)
    done = hvolab("run", name, "--json")
    assert (done.status, done.err) == (1 if chosen.verdicts else 0, "")
    document = done.json()
    schema("run").validate(document)
    assert (document["scenario"], document["outcome"]) == (name, "completed")
    assert document["cpus"] == max(2, chosen.cpus_min)
    found = {finding["verdict"] for finding in document["findings"]}
    assert {v for v in found if v.startswith("violation")} == {v.value for v in chosen.verdicts}


@pytest.mark.parametrize("name", QUICK)
def test_run_exits_with_1_where_a_violation_was_found(name: str, hvolab: Hvolab) -> None:
    done = hvolab("run", name)
    assert (done.status, done.err) == (1 if scenario(name).verdicts else 0, "")
    assert "as expected" in done.out


@pytest.mark.slow
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_remap_1g_exits_with_0(form: tuple[str, ...], hvolab: Hvolab) -> None:
    done = hvolab("run", "remap-1g", "--cpus", "1", *form)
    assert (done.status, done.err) == (0, "")
    if form:
        schema("run").validate(done.json())
    else:
        assert "4095 pages are saved" in " ".join(done.out.split())


@pytest.mark.slow
def test_demo_runs_every_scenario(hvolab: Hvolab) -> None:
    done = hvolab("demo")
    assert (done.status, done.err) == (0, "")
    for chosen in SCENARIOS:
        assert f" {chosen.name}, " in done.out
    assert "each as expected" in done.out


def test_the_exit_status_is_that_of_the_process() -> None:
    for arguments, status in ((("list",), 0), (("run", "nope"), 2)):
        done = in_a_process(*arguments)
        assert done.returncode == status
        assert done.stderr.count("\n") == (1 if status == 2 else 0)


@pytest.mark.parametrize("name", ["tail-write"])
def test_without_a_terminal_there_are_no_escape_codes(name: str) -> None:
    done = in_a_process("run", name, COLUMNS="80", FORCE_COLOR="", NO_COLOR="")
    assert "\x1b" not in done.stdout
    replay = [line for line in done.stdout.splitlines() if line.startswith("replay ")]
    assert len(replay) == len(scenario(name).verdicts)
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if line not in replay)


def test_a_seed_replaces_the_script(hvolab: Hvolab) -> None:
    own = hvolab("run", "stale-read", "--json").json()["schedule"]
    seeded = [
        hvolab("run", "stale-read", "--json", "--seed", str(seed)).json()["schedule"] for seed in (1, 1, 2)
    ]
    assert seeded[0] == seeded[1]
    assert len({own, *seeded}) == 3


def test_a_seed_takes_the_turn_from_a_cpu_in_the_middle_of_its_work(hvolab: Hvolab) -> None:
    """The change points are spread over the whole run. Priorities alone give no more than 5 orders here."""
    schedules = {
        hvolab("run", "stale-read", "--json", "--seed", str(seed)).json()["schedule"] for seed in range(24)
    }
    assert len(schedules) > 8


def test_the_lazy_model_can_be_chosen(hvolab: Hvolab) -> None:
    document = hvolab("run", "stale-read", "--cpu-model", "lazy", "--seed", "0", "--json").json()
    schema("run").validate(document)
    assert document["findings"] == []


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
    name: str, hvolab: Hvolab, shell: Callable[[str], subprocess.CompletedProcess[str]]
) -> None:
    first = hvolab("run", name, "--cpus", "3", "--json")
    line = first.json()["findings"][0]["replay"]
    assert shlex.split(line)[:5] == ["hvolab", "run", name, "--cpus", "3"]
    again = shell(f"{line} --json")
    assert (again.returncode, again.stderr) == (first.status, "")
    assert json.loads(again.stdout) == first.json()


def fingerprints_of(name: str, hvolab: Hvolab, *cpus: str) -> list[str]:
    """The second word of the schedule of a scenario's own order, on that many CPUs each."""
    schedules = [hvolab("run", name, "--cpus", count, "--json").json()["schedule"] for count in cpus]
    return [schedule.split()[1] for schedule in schedules]


def test_a_replay_line_says_what_it_was_made_from(hvolab: Hvolab) -> None:
    first = hvolab("run", "tail-write", "--json").json()
    assert first["schedule"].startswith(f"v2 {fingerprints_of('tail-write', hvolab, '2')[0]} 0*")
    assert shlex.split(first["findings"][0]["replay"])[-1] == first["schedule"]
    shown = hvolab("run", "tail-write").out.splitlines()
    assert f"replay {first['findings'][0]['replay']}" in shown


def test_a_stale_schedule_that_does_not_fit_says_so(hvolab: Hvolab) -> None:
    own = hvolab("run", "stale-read", "--cpus", "2", "--json").json()["schedule"]
    two, three = fingerprints_of("stale-read", hvolab, "2", "3")
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
    form: tuple[str, ...], further: tuple[str, ...], hvolab: Hvolab
) -> None:
    own = hvolab("run", "tail-write", "--json").json()["schedule"]
    word = own.split()[1]
    stale = own.replace(word, "@00000000")
    done = hvolab("run", "tail-write", "--schedule", stale, *form, *further)
    note = f"the schedule was made from another setup (@00000000, this one is {word})"
    assert (done.status, done.err) == (1, f"hvolab: note: {note}\n")
    assert done.out == hvolab("run", "tail-write", "--schedule", own, *form).out


def test_a_schedule_of_another_cpu_model_is_stale(hvolab: Hvolab) -> None:
    own = hvolab("run", "missed-cpu", "--json").json()["schedule"]
    done = hvolab("run", "missed-cpu", "--schedule", own, "--cpu-model", "zen-3", "--json")
    assert done.err.startswith("hvolab: note: the schedule was made from another setup (@")


@pytest.mark.parametrize("further", [(), ("--past-divergence",)])
def test_a_schedule_without_fingerprint_is_followed_without_a_word(
    further: tuple[str, ...], hvolab: Hvolab
) -> None:
    first = hvolab("run", "tail-write", "--json")
    words = first.json()["schedule"].split()
    for text in (["v1", *words[2:]], ["v2", *words[2:]]):
        done = hvolab("run", "tail-write", "--schedule", " ".join(text), "--json", *further)
        assert (done.status, done.out, done.err) == (1, first.out, "")


AWKWARD = 'it\'s $HOME; `a` & "b" [red]x[-red] ü.S'


def test_a_replay_line_is_quoted_for_a_shell(
    tmp_path: Path,
    hvolab: Hvolab,
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


def test_a_file_name_with_control_characters_does_not_reach_the_terminal(
    tmp_path: Path, hvolab: Hvolab
) -> None:
    """Only the replay line has the name as it is: it must find the file again."""
    path = tmp_path / "a\x1b[31mb.S"
    path.write_text("mov rax, [rdi]\nnop\nmov rbx, [rdi]\nhlt\n", encoding="utf-8")
    done = hvolab("run", "missed-cpu", "--program", path)
    assert done.status == 1
    shown = [line for line in done.out.splitlines() if not line.startswith("replay ")]
    assert [line for line in shown if "\x1b" in line] == []


def test_a_replay_line_repeats_the_cpu_model(hvolab: Hvolab) -> None:
    first = hvolab("run", "missed-cpu", "--cpu-model", "zen-3", "--json")
    line = first.json()["findings"][0]["replay"]
    assert hvolab(*shlex.split(line)[1:], "--json").json() == first.json()


# --- guest programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tail-write", "lost-update"])
def test_a_program_that_jumps_to_nowhere_is_a_violation(name: str, tmp_path: Path, hvolab: Hvolab) -> None:
    (tmp_path / "nowhere.S").write_text(NOWHERE, encoding="utf-8")
    done = hvolab("run", name, "--program", tmp_path / "nowhere.S", "--json")
    assert (done.status, done.err) == (1, "")
    schema("run").validate(done.json())
    (finding,) = done.json()["findings"]
    assert finding["verdict"] == "violation: kernel"
    assert (finding["cr2"], finding["error_code"], finding["rip"]) == ("0x1000", 16, "0x1000")
    assert finding["code"] == "nowhere.S"
    assert finding["log"][0] == "BUG: unable to handle page fault for address: 0000000000001000"


def test_what_is_found_instead_is_said(tmp_path: Path, hvolab: Hvolab) -> None:
    (tmp_path / "nowhere.S").write_text(NOWHERE, encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "nowhere.S")
    text = " ".join(done.out.split())
    assert done.status == 1
    assert "found violation: kernel" in text
    assert "as expected" not in text


def test_a_program_gets_the_arguments_of_the_one_it_stands_for(tmp_path: Path, hvolab: Hvolab) -> None:
    (tmp_path / "mine.S").write_text("lea rax, [rdi + 8]\nmov [rax], rsi\nhlt\n", encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "mine.S", "--json")
    (finding,) = done.json()["findings"]
    assert finding["verdict"] == "violation: write-protect"
    assert finding["cr2"] == hex(0xFFFF_EA00_0010_1028 + 8)


# --- trace and dump -------------------------------------------------------------------------------------


def test_a_trace_does_not_change_the_run(tmp_path: Path, hvolab: Hvolab) -> None:
    trace = tmp_path / "trace.jsonl"
    assert (
        hvolab("run", "tail-write", "--json", "--trace", trace).out
        == hvolab("run", "tail-write", "--json").out
    )
    finding = hvolab("run", "tail-write", "--json").json()["findings"][0]
    lines = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    event = lines[finding["event"]]
    assert (event["n"], event["event"], event["cpu"]) == (finding["event"], "Faulted", finding["cpu"])


def test_a_run_that_is_refused_leaves_no_dump(tmp_path: Path, hvolab: Hvolab) -> None:
    path = tmp_path / "never.json"
    assert hvolab("run", "stale-read", "--schedule", "v2 0", "--dump", path).status == 2
    assert not path.exists()
