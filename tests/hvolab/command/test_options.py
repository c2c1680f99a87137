"""Options that several subcommands share: programs, CPU models, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import NOWHERE, hvolab, schema

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
    arguments: tuple[str, ...], message: str, files: dict[str, str]
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


def test_of_two_files_to_load_none_is_left_out_in_silence() -> None:
    done = hvolab("run", "stale-read", "--load", "a.py", "--load", "b.py")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "a.py and b.py: one file is loaded" in done.err


def test_a_guest_instruction_that_is_not_modelled_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.S").write_text("rdtsc\nhlt\n", encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "mine.S", "--json")
    assert done.status == 2
    assert done.err.startswith("hvolab: guest instruction not modelled at 0xffffffff811")
    assert done.err.endswith(": rdtsc\n")


def test_a_program_that_does_not_do_what_the_script_waits_for_runs_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.S").write_text("hlt\n", encoding="utf-8")
    done = hvolab("run", "stale-read", "--program", tmp_path / "mine.S", "--json")
    assert (done.status, done.err) == (0, "")
    assert done.json()["outcome"] == "completed"


@pytest.mark.parametrize(
    "source", [NOWHERE, "hlt\n", "mov rax, [rdi]\nhlt\n"], ids=["nowhere", "hlt", "reads"]
)
def test_a_program_given_to_remap_is_no_internal_error(source: str, tmp_path: Path) -> None:
    """The view of remap shows what its own readers leave in their buffers; others leave nothing there."""
    (tmp_path / "mine.S").write_text(source, encoding="utf-8")
    done = hvolab("run", "remap", "--program", tmp_path / "mine.S")
    assert done.status in (0, 1, 2)
    assert "Traceback" not in done.err
    assert done.err.count("\n") <= 1


def test_the_lazy_model_can_be_chosen() -> None:
    document = hvolab("run", "stale-read", "--cpu-model", "lazy", "--seed", "0", "--json").json()
    schema("run").validate(document)
    assert document["findings"] == []


# --- guest programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tail-write", "lost-update"])
def test_a_program_that_jumps_to_nowhere_is_a_violation(name: str, tmp_path: Path) -> None:
    (tmp_path / "nowhere.S").write_text(NOWHERE, encoding="utf-8")
    done = hvolab("run", name, "--program", tmp_path / "nowhere.S", "--json")
    assert (done.status, done.err) == (1, "")
    schema("run").validate(done.json())
    (finding,) = done.json()["findings"]
    assert finding["verdict"] == "violation: kernel"
    assert (finding["cr2"], finding["error_code"], finding["rip"]) == ("0x1000", 16, "0x1000")
    assert finding["code"] == "nowhere.S"
    assert finding["log"][0] == "BUG: unable to handle page fault for address: 0000000000001000"


def test_what_is_found_instead_is_said(tmp_path: Path) -> None:
    (tmp_path / "nowhere.S").write_text(NOWHERE, encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "nowhere.S")
    text = " ".join(done.out.split())
    assert done.status == 1
    assert "found violation: kernel" in text
    assert "as expected" not in text


def test_a_program_gets_the_arguments_of_the_one_it_stands_for(tmp_path: Path) -> None:
    (tmp_path / "mine.S").write_text("lea rax, [rdi + 8]\nmov [rax], rsi\nhlt\n", encoding="utf-8")
    done = hvolab("run", "tail-write", "--program", tmp_path / "mine.S", "--json")
    (finding,) = done.json()["findings"]
    assert finding["verdict"] == "violation: write-protect"
    assert finding["cr2"] == hex(0xFFFF_EA00_0010_1028 + 8)
