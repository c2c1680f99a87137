"""Scripts as text: what is written is read back, and what is no script says where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.addr import Pfn, VirtAddr
from emu.machine import MOST_CPUS
from emu.paging.walk import Lack
from hvolab.subject.pattern import (
    BeginsFlush,
    CopiesFrom,
    Finishes,
    Frees,
    Loads,
    SendsIpi,
    SetsPte,
    Stores,
)
from hvolab.subject.script import (
    AsFar,
    Decides,
    EndsDead,
    Interrupt,
    Makes,
    ScriptError,
    ToEnd,
    Translates,
    Until,
)
from hvolab.subject.script_text import parse_script

cpus = st.integers(0, MOST_CPUS - 1)
words = st.integers(0, (1 << 64) - 1).map(VirtAddr)
pages = words.map(lambda va: VirtAddr(va & ~0xFFF))
frames = st.integers(0, (1 << 40) - 1).map(Pfn)
times = st.integers(1, 1000)
names = st.from_regex(r"[a-z][a-z_0-9]{0,12}", fullmatch=True)
patterns = st.one_of(
    words.map(Loads),
    words.map(Stores),
    words.map(SetsPte),
    words.map(CopiesFrom),
    frames.map(Frees),
    names.map(Finishes),
    st.just(BeginsFlush()),
    st.just(SendsIpi()),
)
labels = st.from_regex(r"[a-z][a-z :0-9]{0,20}[a-z]", fullmatch=True)
constraints = st.one_of(
    st.builds(Until, cpus, patterns, times),
    st.builds(Makes, cpus, times),
    st.builds(ToEnd, cpus),
    st.builds(AsFar, cpus),
    st.builds(Interrupt, cpus),
    st.builds(Translates, cpus, pages, frames, st.booleans(), times),
    st.builds(EndsDead, cpus, pages, frames, st.sampled_from(Lack), times),
    st.builds(Decides, cpus, labels, st.integers(0, 9), times),
)


@given(st.lists(constraints, min_size=1).map(tuple))
def test_a_script_is_what_its_text_says(script) -> None:
    assert parse_script("\n".join(map(str, script))) == script


def test_comments_and_empty_lines_say_nothing() -> None:
    assert parse_script("# first\n\n  cpu1 to its end  # all of it\n") == (ToEnd(1),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the script is empty"),
        ("# nothing", "the script is empty"),
        ("cpu0 to its end\nthen", "line 2: 'then': want 'cpu' and a number below 256, then what"),
        ("cpu256 to its end", "line 1: 'cpu256 to its end': want 'cpu' and a number below 256, then what"),
        ("cpu0 jumps", "line 1: 'cpu0 jumps' is no constraint"),
        ("cpu0 until Load(12)", "line 1: 'cpu0 until Load(12)' is no constraint"),
        (
            "cpu0 until an IPI is sent 0 times",
            "line 1: 'cpu0 until an IPI is sent 0 times' is no constraint",
        ),
    ],
)
def test_what_is_no_script_says_where(text: str, message: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parse_script(text)
    assert str(caught.value) == message
