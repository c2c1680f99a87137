"""The shape of the source tree: imports point one way, and what no module may do, none does.

Everything is read out of the syntax trees of the product's modules, imports inside functions included. Each
rule is a function over one module's source, or over all of them, and has a test that shows it can fail.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "rooms.toml").read_text(encoding="utf-8")
)
"""Room to the rooms it may import, by name; a layer's name stands for all of its rooms."""
LAYERS = frozenset(room.partition(".")[0] for room in ROOMS)
MOST_FILES = 15
"""In one folder: a room with more wants sub-rooms."""
ONLY_IMPORTER = {
    "unicorn": ("emu/guest/engine.py",),
    "keystone": ("firmware/assemble.py",),
    "capstone": ("emu/guest/decode.py",),
    "rich": ("hvolab/",),
    "click": ("hvolab/",),
}
"""Package from outside to the modules that may import it, or the start of their paths."""
BEHIND_SIGHT = frozenset(
    {"mmu", "memory", "journal", "words", "counters", "apic", "machine", "moment", "since", "trace"}
)
"""Attributes by which a judge would know more than it has asked for."""
FORBIDDEN_MODULES = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"})
FORBIDDEN_CALLS = frozenset({"eval", "exec", "compile", "__import__"})
LONGEST = 420
LONGEST_TEST = 500
PYTEST_PLUGIN = "hvolab/pytest_plugin.py"
PORT = "kernel_model/hvo/hugetlb_vmemmap.py"
LONGEST_PORT = {PORT: 560}
"""The port follows one C file from its first function to its last."""


class Module(NamedTuple):
    """A module of the product: its path from the root, and its source."""

    path: str
    source: str

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def layer(self) -> str:
        return self.path.partition("/")[0]


@cache
def tree(module: Module) -> ast.Module:
    return ast.parse(module.source, module.path)


def product() -> tuple[Module, ...]:
    paths = sorted(path for layer in sorted(LAYERS) for path in (ROOT / layer).rglob("*.py"))
    return tuple(
        Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths
    )


MODULES = product()


def files_of_tests() -> tuple[Module, ...]:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    return tuple(
        Module(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths
    )


TESTS = files_of_tests()


# --- the rules ------------------------------------------------------------------------------------------


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything imported, wherever in the module; a relative import made absolute."""
    package = module.path.removesuffix(".py").split("/")
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*package[: -node.level], *([node.module] if node.module else [])])
            start = base if node.level else (node.module or "")
            for name in node.names:
                yield node.lineno, f"{start}.{name.name}"


def room_of(name: str) -> str | None:
    """The room that a module or an imported name lies in; None for what is in no room."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        room = ".".join(parts[:length])
        if room in ROOMS:
            return room
    return None


def upward_imports(module: Module) -> list[str]:
    """Imports of a room that this one may not know."""
    here = room_of(module.name)
    allowed = set() if here is None else {here, *ROOMS[here]}
    wrong = []
    for line, name in imports(module):
        layer = name.partition(".")[0]
        if layer in LAYERS and room_of(name) not in allowed and layer not in allowed - {module.layer}:
            wrong.append(f"{module.path}:{line} imports {name}")
    return wrong


def imports_of_tests(module: Module) -> list[str]:
    """A product does not import its tests, nor what only they need."""
    only_tests = {"tests", "benchmarks", "pytest", "hypothesis", "jsonschema"}
    if module.path == PYTEST_PLUGIN:
        only_tests -= {"pytest"}  # it is loaded by pytest, and by nobody else
    tops = [(line, name.partition(".")[0]) for line, name in imports(module)]
    return [f"{module.path}:{line} imports {top}" for line, top in tops if top in only_tests]


def foreign_imports(module: Module) -> list[str]:
    """Imports of a package from outside that belongs to other modules."""
    wrong = []
    for line, name in imports(module):
        homes = ONLY_IMPORTER.get(name.partition(".")[0])
        if homes is not None and not module.path.startswith(homes):
            wrong.append(f"{module.path}:{line} imports {name}")
    return wrong


def reads_of_the_environment(module: Module) -> list[str]:
    """os.environ and its like, however they are reached."""
    names = {"environ", "environb", "getenv", "getenvb"}
    wrong = [f"{module.path}:{line}" for line, name in imports(module) if name.split(".")[-1] in names]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and node.attr in names:
            wrong.append(f"{module.path}:{node.lineno}")
    return wrong


def code_from_data(module: Module) -> list[str]:
    """pickle and its like, eval, exec, and imports by name at run time."""
    wrong = []
    for line, name in imports(module):
        if name.partition(".")[0] in FORBIDDEN_MODULES or name.endswith("importlib.import_module"):
            wrong.append(f"{module.path}:{line} imports {name}")
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Name) and node.id in FORBIDDEN_CALLS:
            wrong.append(f"{module.path}:{node.lineno} uses {node.id}")
        if isinstance(node, ast.Attribute) and node.attr == "import_module":
            wrong.append(f"{module.path}:{node.lineno} uses import_module")
    return wrong


def looks_past_sight(module: Module) -> list[str]:
    """What a judge does behind Sight's back: the machine, its parts, and the insides of a translation."""
    if not module.path.startswith("hvolab/judge/") or module.path.startswith("hvolab/judge/sight/"):
        return []
    wrong = [
        f"{module.path}:{line} imports {name}"
        for line, name in imports(module)
        if name.startswith(("emu.machine", "emu.mmu", "emu.memory", "emu.cpu"))
    ]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and node.attr in BEHIND_SIGHT:
            wrong.append(f"{module.path}:{node.lineno} looks at .{node.attr}")
    return wrong


def missing_docstring(module: Module) -> list[str]:
    return [] if (ast.get_docstring(tree(module)) or "").strip() else [f"{module.path} has no docstring"]


def too_long(module: Module) -> list[str]:
    lines, most = len(module.source.splitlines()), LONGEST_PORT.get(module.path, LONGEST)
    return [f"{module.path} has {lines} lines, at most {most}"] if lines > most else []


def open_matches(module: Module) -> list[str]:
    """A match that lets what it does not name pass, and does not say why."""
    wrong = []
    lines = module.source.splitlines()
    for node in ast.walk(tree(module)):
        if not isinstance(node, ast.Match):
            continue
        last = node.cases[-1]
        first = last.body[0]
        match first:
            case ast.Pass() | ast.Return(value=None | ast.Constant(value=None)):
                told = "#" in lines[first.lineno - 1]
            case _:
                told = True  # does something with it, if only to raise
        if not _takes_the_rest(last) or not told:
            wrong.append(f"{module.path}:{node.lineno} lets the rest pass")
    return wrong


def _takes_the_rest(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None


def names_of_two_things(modules: Iterable[Module]) -> list[str]:
    """Classes and type aliases that are defined twice; a leading underscore makes no other name."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in ast.walk(tree(module)):
            match node:
                case (
                    ast.ClassDef(name=name)
                    | ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"))
                ):
                    homes[name.lstrip("_")].append(f"{module.path}:{node.lineno}")
                case _:
                    pass  # names nothing that another module could take for a thing of its own
    return [f"{name}: {', '.join(places)}" for name, places in homes.items() if len(places) > 1]


RULES = (
    upward_imports,
    imports_of_tests,
    foreign_imports,
    reads_of_the_environment,
    code_from_data,
    looks_past_sight,
    open_matches,
    missing_docstring,
    too_long,
)


def too_long_a_test(module: Module) -> list[str]:
    lines = len(module.source.splitlines())
    return [f"{module.path} has {lines} lines, at most {LONGEST_TEST}"] if lines > LONGEST_TEST else []


# --- the product ----------------------------------------------------------------------------------------


def test_the_layers_are_all_there() -> None:
    assert {module.layer for module in MODULES} == LAYERS
    assert len(MODULES) > 60


def test_every_room_of_the_table_is_there_and_stands_on_earlier_ones() -> None:
    assert {room for module in MODULES if (room := room_of(module.name))} == set(ROOMS)
    seen: set[str] = set()
    for room, below in ROOMS.items():
        layers = {name.partition(".")[0] for name in seen}
        assert [name for name in below if name not in seen | layers] == []
        seen.add(room)


def test_no_room_has_more_files_than_can_be_taken_in_at_once() -> None:
    files = Counter(
        module.path.rpartition("/")[0] for module in MODULES if not module.path.endswith("__init__.py")
    )
    assert {room: count for room, count in files.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Callable[[Module], list[str]]) -> None:
    assert [found for module in MODULES for found in rule(module)] == []


def test_one_name_is_one_thing() -> None:
    assert names_of_two_things(MODULES) == []


def test_no_test_file_is_too_long() -> None:
    assert [found for module in TESTS for found in too_long_a_test(module)] == []
    assert len(TESTS) > 100


def test_every_test_that_the_docs_name_is_there() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    named = {
        path for page in pages for path in re.findall(r"tests/[\w/]+\.py", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert sorted(named - {module.path for module in TESTS}) == []


@pytest.mark.parametrize("package", sorted(ONLY_IMPORTER))
def test_every_package_from_outside_has_a_home(package: str) -> None:
    """The table above would say nothing about a package that nobody imports any more."""
    users = {
        module.path for module in MODULES for _, name in imports(module) if name.partition(".")[0] == package
    }
    assert users


def test_no_two_modules_import_each_other_in_a_ring() -> None:
    """Modules of the product can be read in an order in which each needs only those before it."""
    names = {
        module.path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): module
        for module in MODULES
    }
    left = {
        name: {found for _, full in imports(module) if (found := _owner(full, names)) and found != name}
        for name, module in names.items()
    }
    while ready := [name for name, needs in left.items() if not needs & left.keys()]:
        for name in ready:
            del left[name]
    assert left == {}


def _owner(full: str, names: dict[str, Module]) -> str | None:
    """The module that an imported name is, or lies in."""
    for candidate in (full, full.rpartition(".")[0]):
        if candidate in names:
            return candidate
    return None


# --- the rules can fail ---------------------------------------------------------------------------------

GOOD = '"""A module."""\n'


@pytest.mark.parametrize(
    ("rule", "path", "line"),
    [
        (upward_imports, "emu/memory.py", "from emu.paging.pte import Pte"),
        (upward_imports, "emu/paging/x.py", "from emu.machine import Machine"),
        (upward_imports, "emu/mmu.py", "from emu.cpu.ops import Op"),
        (upward_imports, "kernel_model/core/x.py", "from kernel_model.mm.page import field"),
        (upward_imports, "hvolab/judge/x.py", "from hvolab.subject.run import run"),
        (upward_imports, "hvolab/explore/search/x.py", "from hvolab.explore.explorer import explore"),
        (upward_imports, "hvolab/nowhere/x.py", "from emu.addr import Pfn"),
        (upward_imports, "emu/machine.py", "import kernel_model.boot"),
        (upward_imports, "emu/machine.py", "from hvolab import run"),
        (upward_imports, "emu/machine.py", "from firmware.load import load_program"),
        (upward_imports, "firmware/x.py", "from emu.addr import Pfn"),
        (upward_imports, "firmware/x.py", "import kernel_model"),
        (upward_imports, "kernel_model/boot.py", "from firmware import program"),
        (upward_imports, "kernel_model/flush/x.py", "import hvolab.subject.run as r"),
        (upward_imports, "emu/machine.py", "def f():\n    import hvolab"),
        (upward_imports, "emu/machine.py", "if False:\n    from kernel_model import boot"),
        (imports_of_tests, "hvolab/x.py", "import pytest"),
        (imports_of_tests, "hvolab/x.py", "from tests import helpers"),
        (foreign_imports, "emu/x.py", "import unicorn"),
        (foreign_imports, "emu/guest/guest_core.py", "from unicorn.x86_const import UC_X86_REG_RAX"),
        (foreign_imports, "firmware/load.py", "import keystone"),
        (foreign_imports, "kernel_model/x.py", "from rich.console import Console"),
        (reads_of_the_environment, "hvolab/x.py", "import os\nos.environ['A']"),
        (reads_of_the_environment, "hvolab/x.py", "import os as o\nx = o.getenv('A')"),
        (reads_of_the_environment, "hvolab/x.py", "from os import environ"),
        (reads_of_the_environment, "hvolab/x.py", "from os import getenv as g"),
        (code_from_data, "hvolab/x.py", "import pickle"),
        (code_from_data, "hvolab/x.py", "from pickle import loads"),
        (code_from_data, "hvolab/x.py", "from importlib import import_module"),
        (code_from_data, "hvolab/x.py", "import importlib\nimportlib.import_module('x')"),
        (code_from_data, "hvolab/x.py", "eval('1')"),
        (code_from_data, "hvolab/x.py", "f = exec"),
        (code_from_data, "hvolab/x.py", "__import__('x')"),
        (looks_past_sight, "hvolab/judge/rows/x.py", "from emu.machine import Machine"),
        (looks_past_sight, "hvolab/judge/x.py", "import emu.memory"),
        (looks_past_sight, "hvolab/judge/x.py", "def f(x):\n    return x.machine.steps"),
        (looks_past_sight, "hvolab/judge/rows/x.py", "def f(entry):\n    return entry.moment"),
        (open_matches, "hvolab/x.py", "match 1:\n    case int():\n        x = 1"),
        (open_matches, "hvolab/x.py", "match 1:\n    case int():\n        x = 1\n    case _:\n        pass"),
        (
            open_matches,
            "hvolab/x.py",
            "match 1:\n    case int():\n        x = 1\n    case _ if x:\n        x = 2",
        ),
        (open_matches, "emu/x.py", "def f():\n    match 1:\n        case _:\n            return None"),
        (missing_docstring, "hvolab/x.py", None),
        (too_long, "hvolab/x.py", "\n" * LONGEST),
        (too_long, PORT, "\n" * LONGEST_PORT[PORT]),
        (too_long_a_test, "tests/emu/test_x.py", "\n" * LONGEST_TEST),
    ],
)
def test_a_rule_finds_what_breaks_it(
    rule: Callable[[Module], list[str]], path: str, line: str | None
) -> None:
    broken = Module(path, "x = 1\n" if line is None else f"{GOOD}{line}\n")
    assert rule(broken) != []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (
            "hvolab/subject/x.py",
            "from kernel_model.boot import boot\nfrom emu.addr import Pfn\nimport firmware",
        ),
        ("kernel_model/mm/x.py", "from emu.addr import Pfn"),
        ("emu/guest/engine.py", "from unicorn import Uc"),
        ("firmware/assemble.py", "import keystone"),
        ("hvolab/x.py", "import os\nos.path.join('a', 'b')"),
        ("hvolab/x.py", "import re\npattern = re.compile('x')"),
        ("emu/x.py", "evaluate = 1\nexecute = evaluate"),
        ("emu/x.py", "match 1:\n    case 1:\n        x = 1\n    case _:\n        pass  # of no matter here"),
        ("emu/x.py", "match 1:\n    case 1:\n        x = 1\n    case _:\n        assert_never(1)"),
        ("hvolab/x.py", "\n" * (LONGEST - 2)),
    ],
)
def test_a_rule_lets_the_rest_be(path: str, line: str) -> None:
    fine = Module(path, f"{GOOD}{line}\n")
    assert [found for rule in RULES for found in rule(fine)] == []


@pytest.mark.parametrize(
    "again",
    ["class Answer: ...", "class _Answer: ...", "Answer: TypeAlias = int", "def f():\n    class Answer: ..."],
)
def test_a_name_that_stands_for_two_things_is_found(again: str) -> None:
    one, other = Module("emu/x.py", "class Answer: ..."), Module("hvolab/show/x.py", again)
    line = again.count("\n") + 1
    assert names_of_two_things([one, other]) == [f"Answer: emu/x.py:1, hvolab/show/x.py:{line}"]
    assert names_of_two_things([other]) == []


def test_a_relative_import_is_seen_for_what_it_is() -> None:
    module = Module("kernel_model/flush/upstream.py", "from ..boot import boot\nfrom . import policy\n")
    assert [name for _, name in imports(module)] == ["kernel_model.boot.boot", "kernel_model.flush.policy"]
