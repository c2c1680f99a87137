"""`firmware.catalog`: the table agrees with the files, and the programs can all be loaded at once."""

import re
import subprocess
import sys
from importlib.resources import files

import pytest

from firmware.catalog import PROGRAM_NAMES, TEXT_BASE, UnknownProgram, program, programs
from firmware.generations import GENERATIONS, PageRefGeneration
from firmware.load import USER_ORIGIN
from firmware.program import PAGE_SIZE


def header_fields(source: str) -> dict[str, list[str]]:
    """The `# Field: text` lines at the top of a source, each field with its lines."""
    fields: dict[str, list[str]] = {}
    field = ""
    for line in source.splitlines():
        if not line.startswith("# "):
            break
        if match := re.match(r"# ([A-Z][a-z]+): +(.*)", line):
            field = match[1]
            fields[field] = [match[2]]
        else:
            fields[field].append(line[1:].strip())
    return fields


def test_the_names() -> None:
    assert PROGRAM_NAMES == (
        "read_tails",
        "read_twice",
        "write_head",
        "write_tail",
        "read_then_write",
        "get_page_unless_zero",
        "compound_head",
        "walk_pfns",
        "get_page_unless_zero_v6_9",
        "get_page_unless_zero_2025",
        "kpageflags",
        "isolate_migratepages",
        "gup_fast",
    )
    assert tuple(p.name for p in programs()) == PROGRAM_NAMES


def test_each_program_has_a_page_of_its_own() -> None:
    assert [p.origin for p in programs()] == [TEXT_BASE + n * PAGE_SIZE for n in range(len(PROGRAM_NAMES))]
    assert all(p.end <= p.origin + PAGE_SIZE for p in programs())
    assert max(p.end for p in programs()) <= USER_ORIGIN


def test_a_program_is_built_once() -> None:
    assert program("read_twice") is program("read_twice")


def test_an_unknown_program_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownProgram) as caught:
        program("nothing")
    assert str(caught.value) == f"there is no program 'nothing'; there are: {', '.join(PROGRAM_NAMES)}"
    assert isinstance(caught.value, KeyError)


def test_no_source_is_forgotten() -> None:
    sources = {
        entry.name for entry in (files("firmware") / "programs").iterdir() if entry.name.endswith(".S")
    }
    assert sources == {f"{name}.S" for name in PROGRAM_NAMES}


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_the_header_says_what_the_catalog_says(name: str) -> None:
    described = program(name)
    header = header_fields(described.source)
    assert header["Question"] == [described.question]
    assert header["Arguments"] == [f"{a.register} = {a.meaning}" for a in described.arguments]
    assert header["Results"] == ([f"{r.register} = {r.meaning}" for r in described.results] or ["none"])
    assert header["Labels"] == [", ".join(described.labels)]


def test_importing_the_catalog_assembles_nothing() -> None:
    check = (
        "import firmware.assemble as a\n"
        "def refuse(*_): raise SystemExit('assembled at import')\n"
        "a.Ks = refuse\n"
        "import firmware.catalog\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


# --- the generations of page_ref_add_unless() -----------------------------------------------------------


def order_of(generation: PageRefGeneration) -> list[str]:
    """What the program does on its way to the write, by the first place where it does it."""
    source = program(generation.program).source
    steps = {
        "an RCU section": "inc qword ptr",
        "the fake-head test": "test al, 0x40",
        "the count": "mov eax, [rdi + 52]",
        "LOCK CMPXCHG": "lock cmpxchg",
    }
    return sorted(
        (step for step, code in steps.items() if code in source), key=lambda s: source.index(steps[s])
    )


def test_the_generations_do_what_they_say_in_that_order() -> None:
    assert [order_of(generation) for generation in GENERATIONS] == [
        ["the count", "LOCK CMPXCHG"],
        ["an RCU section", "the fake-head test", "the count", "LOCK CMPXCHG"],
        ["an RCU section", "the count", "the fake-head test", "LOCK CMPXCHG"],
    ]
    for generation in GENERATIONS:
        places = [generation.order.index(step) for step in order_of(generation)]
        assert places == sorted(places)


def test_a_commit_is_named_only_with_its_title() -> None:
    assert [(generation.releases, generation.commit) for generation in GENERATIONS] == [
        ("up to v6.9", None),
        ("v6.10 to v6.14", "bd225530a4c7"),
        ("since 2025", None),
    ]
    assert [generation.change is None for generation in GENERATIONS] == [True, False, False]
