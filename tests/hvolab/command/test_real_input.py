"""`hvolab run remap --layout FILE --do ...`: the page tables of a real kernel, and what it did."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path

import pytest
from command_line import hvolab
from dumps import LINUX_6_12, LINUX_7_3, real

from hvolab.dump import read_dump
from hvolab.dump.compare import compare
from hvolab.dump.real.operations import WORDS

BEFORE, AFTER = LINUX_6_12 / "main0_before.json.gz", LINUX_6_12 / "main1_alloc64.json.gz"
COUNTS_ONLY = LINUX_6_12 / "exact_optimize0_entry.json.gz"


def run_remap(layout: Path, *operations: str) -> tuple[str | Path, ...]:
    done = (word for operation in operations for word in ("--do", operation))
    return ("run", "remap", "--layout", layout, *done)


def test_the_command_writes_what_compare_finds_equal(tmp_path: Path) -> None:
    ours = tmp_path / "ours.json.gz"
    done = hvolab(*run_remap(BEFORE, f"optimize:{AFTER}"), "--dump", ours, "--json")
    assert (done.status, done.err, done.json()["findings"]) == (0, "", [])
    assert compare(read_dump(ours), real("main1_alloc64")) == ()
    assert read_dump(ours).state == f"optimize:{AFTER}"
    same = hvolab("compare", ours, AFTER)
    assert (same.status, same.out) == (0, "no differences\n")


def test_without_operations_the_dump_is_the_layout(tmp_path: Path) -> None:
    ours = tmp_path / "ours.json"
    assert hvolab(*run_remap(BEFORE), "--dump", ours).status == 0
    assert compare(read_dump(ours), real("main0_before")) == ()
    assert read_dump(ours).state == "end"


def test_operations_are_done_in_the_order_given(tmp_path: Path) -> None:
    ours = tmp_path / "ours.json"
    before, folios = (LINUX_6_12 / f"{name}.json.gz" for name in ("lists_before", "optimized24"))
    operations = ("sysctl=0", f"optimize:{folios}", "shrink=4", "sysctl=1", "restore", f"optimize:{folios}")
    done = hvolab(*run_remap(before, *operations), "--dump", ours, "--json")
    assert done.status == 0
    assert compare(read_dump(ours), real("optimized24")) == ()
    assert read_dump(ours).state == ", ".join(operations)


def test_the_replay_line_repeats_every_operation(tmp_path: Path) -> None:
    """A bug of the kernel makes one: there is a finding, and so a line."""
    before, folios = (LINUX_6_12 / f"{name}.json.gz" for name in ("lists_before", "optimized24"))
    given = run_remap(before, f"optimize:{folios}", "sysctl=0", "shrink=20")
    done = hvolab(*given, "--variant", "tails-writable", "--json")
    assert done.status == 1
    replay = shlex.split(done.json()["findings"][0]["replay"])
    assert " ".join(map(str, given[2:])) in " ".join(replay)
    again = hvolab(*replay[1:], "--json")
    assert again.json() == done.json()


WRONG = [
    (("--do", "restore"), "--do goes with --layout, which names the page tables to begin with"),
    (
        ("--until", "optimized"),
        "--until is gone: --do optimize:FILE in place of --folios FILE, then --do restore to restore",
    ),
    (
        ("--layout", BEFORE, "--folios", AFTER),
        "--folios is gone: --do optimize:FILE in place of --folios FILE, then --do restore to restore",
    ),
    (
        ("--layout", BEFORE, "--do", "shrnk=1"),
        f"--do shrnk=1: no such operation; there are {WORDS}",
    ),
    (("--layout", BEFORE, "--do", "restore"), "--do restore: the pool is empty, there is nothing to restore"),
    (
        ("--layout", BEFORE, "--do", f"optimize:{BEFORE}"),
        "--do optimize: the dump 'main0_before' lists no folios",
    ),
    (
        ("--layout", COUNTS_ONLY),
        f"the dump '{real('exact_optimize0_entry').state}' has counts only, no leaves",
    ),
    (
        ("--layout", LINUX_6_12 / "both_before.json.gz", "--do", f"optimize:{AFTER}"),
        "the dumps are of machines with 2560 and 1024 MiB",
    ),
    (("--layout", BEFORE, *("--do", "sysctl=0") * 33), "--do: 33 operations; at most 32"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_input_is_one_line_and_status_2(arguments: tuple[str | Path, ...], message: str) -> None:
    done = hvolab("run", "remap", *arguments)
    assert (done.status, done.out, done.err) == (2, "", f"hvolab: {message}\n")


@pytest.mark.parametrize("option", [("--layout", BEFORE), ("--do", "restore")])
def test_a_scenario_that_boots_no_layout(option: tuple[str | Path, ...]) -> None:
    done = hvolab("run", "stale-read", *option)
    assert (done.status, done.err) == (2, "hvolab: --layout and --do go with the scenario remap\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "not JSON: "), ("{}", "not a dump: missing field 'kernel'"), (None, "cannot read: ")],
)
def test_a_file_that_is_no_dump_is_named(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    for arguments in (run_remap(path), run_remap(BEFORE, f"optimize:{path}")):
        done = hvolab(*arguments)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith(f"hvolab: {path}: {message}")


@pytest.mark.parametrize("ram_mb", [1 << 20, 8192, 1025, 8])
def test_a_dump_of_a_machine_that_cannot_be_built(ram_mb: int, tmp_path: Path) -> None:
    """Too large, too small, or odd: bad input, not our error."""
    path = tmp_path / "layout"
    document = json.loads(gzip.decompress(BEFORE.read_bytes()))
    path.write_text(json.dumps({**document, "ram_mb": ram_mb}), encoding="utf-8")
    done = hvolab(*run_remap(path), "--json")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("hvolab: ")


def test_a_layout_of_another_generation() -> None:
    done = hvolab(*run_remap(LINUX_7_3 / "main1_alloc64.json.gz"))
    assert (done.status, done.err.count("\n")) == (2, 1)
