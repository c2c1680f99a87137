"""What can change, found in what a file has made."""

from __future__ import annotations

import sys
import textwrap
from types import ModuleType

import pytest

from hvolab.load.changeable import changeable_in


def module_of(source: str) -> ModuleType:
    module = ModuleType("mine")
    sys.modules["mine"] = module  # dataclasses look their module up there
    exec(textwrap.dedent(source), vars(module))  # noqa: S102
    del sys.modules["mine"]
    return module


@pytest.mark.parametrize(
    ("source", "where", "what"),
    [
        ("N = iter(range(3))", "N", "a range_iterator"),
        ("import functools\n@functools.cache\ndef box(): return [0]", "box", "a _lru_cache_wrapper"),
        ("class A:\n  held = {}", "A.held", "a dict"),
        ("def f(seen=[]): pass", "a default of f", "a list"),
        ("class A:\n  def f(self, *, seen=set()): pass", "a default of A.f", "a set"),
        (
            "def make():\n  held = []\n  def f(): held.append(1)\n  return f\ng = make()",
            "what g closes over",
            "a list",
        ),
        ("class A: pass\none = A()", "one", "a A"),
        ("pair = (1, [2])", "pair", "a list"),
        ("from types import SimpleNamespace\nn = SimpleNamespace(a=1)", "n", "a SimpleNamespace"),
        ("import re\nm = re.finditer('a', 'aa')", "m", "a callable_iterator"),
    ],
)
def test_what_can_change_is_named(source: str, where: str, what: str) -> None:
    assert [found for found in changeable_in(module_of(source)) if found[0] == where] == [(where, what)]


def test_values_functions_and_frozen_things_cannot() -> None:
    source = """
    from dataclasses import dataclass
    from enum import Enum
    from hvolab.api import *

    LIMIT, NAMES, NOTHING = 3, ("a", frozenset({1})), None

    class Colour(Enum):
        RED = 1

    @dataclass(frozen=True)
    class Pair:
        a: int = 1

    PAIR, RED, MODEL = Pair(), Colour.RED, CpuModel("mine", LazySpec())

    class Patch(HugetlbVmemmap):
        LIMIT = 5
        async def vmemmap_remap_range(self, start, end, walk, limit=3):
            return await super().vmemmap_remap_range(start, end, walk)

    @judge(0, Stored)
    def counts(state, event, sight): return state, []
    """
    assert list(changeable_in(module_of(source))) == []
