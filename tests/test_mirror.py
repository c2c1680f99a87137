"""Tests mirror the tree: what tests a module lies where the module lies, under its name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("emu", "firmware", "kernel_model", "hvolab")
VALUES = "only values, or an interface"
"""Nothing in it does anything."""
SCENARIOS, BUGS = "tests/hvolab/catalog/test_scenarios.py", "tests/hvolab/catalog/test_bugs.py"
VARIANTS = "tests/kernel_model/variants/test_catalog.py"

WITHOUT = {
    "emu/cpu/software.py": VALUES,
    "firmware/assembly_error.py": "tests/firmware/test_assemble.py",
    "firmware/generations.py": "tests/firmware/test_reader_programs.py",
    "hvolab/api.py": "tests/hvolab/test_docs.py",
    "hvolab/catalog/common.py": SCENARIOS,
    "hvolab/catalog/listing.py": "tests/hvolab/command/test_list.py",
    "hvolab/catalog/pool.py": SCENARIOS,
    "hvolab/catalog/races.py": SCENARIOS,
    "hvolab/catalog/readers.py": SCENARIOS,
    "hvolab/catalog/bugs/all.py": BUGS,
    "hvolab/catalog/bugs/bug.py": BUGS,
    "hvolab/catalog/bugs/bug_setups.py": BUGS,
    "hvolab/catalog/bugs/flush_bugs.py": BUGS,
    "hvolab/catalog/bugs/kernel_bugs.py": BUGS,
    "hvolab/checked/error.py": VALUES,
    "hvolab/checked/json_value.py": VALUES,
    "hvolab/command/bad_input.py": "tests/hvolab/command/test_slips.py",
    "hvolab/command/exploring/every.py": "tests/hvolab/command/test_explore_first.py",
    "hvolab/command/exploring/plan.py": "tests/hvolab/command/test_explore.py",
    "hvolab/command/exploring/telling.py": "tests/hvolab/command/test_explore_first.py",
    "hvolab/command/stories/five.py": "tests/hvolab/command/test_demo.py",
    "hvolab/dump/model.py": "tests/hvolab/dump/test_decode.py",
    "hvolab/dump/place.py": "tests/hvolab/dump/test_decode.py",
    "hvolab/explore/audience.py": "tests/hvolab/explore/test_explorer.py",
    "hvolab/judge/judge.py": VALUES,
    "hvolab/judge/question.py": VALUES,
    "hvolab/judge/sight/watcher.py": VALUES,
    "hvolab/load/making.py": "tests/hvolab/load/test_user_file.py",
    "hvolab/load/source.py": "tests/hvolab/load/test_user_file.py",
    "hvolab/show/explained.py": "tests/hvolab/command/test_why.py",
    "hvolab/show/moments.py": "tests/hvolab/command/stepping/test_step.py",
    "hvolab/subject/stuck.py": "tests/hvolab/subject/test_blame.py",
    "kernel_model/core/events.py": VALUES,
    "kernel_model/core/gfp.py": VALUES,
    "kernel_model/core/history.py": VALUES,
    "kernel_model/core/kconfig.py": VALUES,
    "kernel_model/variants/named.py": VALUES,
    "kernel_model/variants/pool.py": VARIANTS,
    "kernel_model/variants/remap.py": VARIANTS,
    "kernel_model/variants/restore.py": VARIANTS,
    "kernel_model/variants/split.py": VARIANTS,
}
"""Modules without a test file of their name, and why: nothing to test, or what tests them all together."""


def place_of_tests(module: str) -> str:
    """Where the tests of a module are to be found, both from the root."""
    folder, _, name = module.rpartition("/")
    return f"tests/{folder}/test_{name}"


def without_tests(files: set[str], excused: set[str]) -> list[str]:
    """The modules among the files that should have a test file of their name among them, and have not."""
    modules = {
        path
        for path in files
        if path.startswith(tuple(f"{layer}/" for layer in LAYERS))
        and not path.endswith(("/__init__.py", "/__main__.py"))
    }
    return sorted(path for path in modules - excused if place_of_tests(path) not in files)


def stale(files: set[str], table: dict[str, str]) -> list[str]:
    """The entries of the table for a module that is gone, or tested, or for a test that is gone."""
    return sorted(
        module
        for module, why in table.items()
        if module not in files or place_of_tests(module) in files or (why != VALUES and why not in files)
    )


def deeds(source: str) -> list[str]:
    """The functions in it that do something: more than a docstring and `...`."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not all(isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) for one in node.body)
    ]


FILES = {
    path.relative_to(ROOT).as_posix()
    for folder in (*LAYERS, "tests")
    for path in (ROOT / folder).rglob("*.py")
}


def test_every_module_has_a_place_of_tests_its_name() -> None:
    assert without_tests(FILES, set(WITHOUT)) == []


def test_no_excuse_is_stale() -> None:
    assert stale(FILES, WITHOUT) == []


def test_a_module_of_only_values_does_nothing() -> None:
    values = [module for module, why in WITHOUT.items() if why == VALUES]
    found = {module: deeds((ROOT / module).read_text(encoding="utf-8")) for module in values}
    assert {module: names for module, names in found.items() if names} == {}


# --- the rules can fail ---------------------------------------------------------------------------------

SMALL = {
    "emu/x.py",
    "emu/cpu/__init__.py",
    "emu/cpu/y.py",
    "hvolab/__main__.py",
    "tests/emu/test_x.py",
    "a/b.py",
}


def test_a_module_without_tests_is_found() -> None:
    assert without_tests(SMALL, set()) == ["emu/cpu/y.py"]
    assert without_tests(SMALL | {"tests/emu/test_y.py"}, set()) == ["emu/cpu/y.py"], "it lies elsewhere"
    assert without_tests(SMALL, {"emu/cpu/y.py"}) == []
    assert without_tests(SMALL | {"tests/emu/cpu/test_y.py"}, set()) == []


def test_a_deed_is_found() -> None:
    assert deeds('X = 1\n\n\nclass A:\n    def f(self): ...\n    def g(self):\n        "says"\n') == []
    assert deeds("async def f():\n    return 1\n") == ["f"]


@pytest.mark.parametrize(
    ("entry", "why", "found"),
    [
        ("emu/cpu/y.py", VALUES, False),
        ("emu/cpu/y.py", "tests/emu/test_x.py", False),
        ("emu/cpu/y.py", "tests/emu/test_gone.py", True),
        ("emu/gone.py", VALUES, True),
        ("emu/x.py", VALUES, True),
    ],
)
def test_an_excuse_that_is_stale_is_found(entry: str, why: str, found: bool) -> None:
    assert stale(SMALL, {entry: why}) == ([entry] if found else [])
