"""State that no search could see is refused by what the file says, before it is run."""

from __future__ import annotations

import ast
import textwrap

import pytest

from hvolab.load.rules import hidden_state

KEEP = "keep it in a local variable, or in the machine (memory, named words)"


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("seen = []", 1, f"seen can be changed and would outlive a run: {KEEP}"),
        ("seen: dict = {}", 1, f"seen can be changed and would outlive a run: {KEEP}"),
        (
            "from collections import Counter\nn = Counter()",
            2,
            f"n can be changed and would outlive a run: {KEEP}",
        ),
        ("def f():\n  global n\n  n = 1", 2, f"n would outlive the step: {KEEP}"),
        ("class A:\n  seen = []", 2, f"what class A holds can be changed and would outlive a run: {KEEP}"),
        ("class A:\n  def f(self):\n    self.n = 1", 3, f"self.n would outlive the step: {KEEP}"),
        ("class A:\n  async def f(me):\n    me.n += 1", 3, f"me.n would outlive the step: {KEEP}"),
        ("class A:\n  def f(self):\n    self.n[3] = 1", 3, f"self.n would outlive the step: {KEEP}"),
        ("class A:\n  def f(self):\n    a, self.n = 1, 2", 3, f"self.n would outlive the step: {KEEP}"),
        ("class A:\n  def f(self):\n    del self.n", 3, f"self.n would outlive the step: {KEEP}"),
        ("class A:\n  def __init__(self):\n    self.n = []", 3, f"self.n would outlive the step: {KEEP}"),
        ("import random", 1, "what random gives is another thing in each run: let a Decide choose"),
        ("from time import time", 1, "what time gives is another thing in each run: let a Decide choose"),
        ("def f():\n  return hash('a') & 1", 2, "hash() is another number in each process"),
        (
            "for one in {'a', 'b'}:\n  pass",
            1,
            "a set of strings has another order in each process: write a tuple",
        ),
        (
            "async def f():\n  try:\n    pass\n  finally:\n    await g()",
            5,
            "finally awaits: a routine that is killed or cut off makes no more steps",
        ),
        (
            "class A:\n  async def __aexit__(self, *why):\n    await g()",
            3,
            "__aexit__ awaits: a routine that is killed or cut off makes no more steps",
        ),
    ],
)
def test_hidden_state_is_named_with_its_line(source: str, line: int, what: str) -> None:
    assert list(hidden_state(ast.parse(source))) == [(line, what)]


def test_what_keeps_nothing_is_fine() -> None:
    source = """
    from dataclasses import dataclass
    __all__ = ["A"]
    LIMIT, NAMES = 3, ("a", "b")

    @dataclass(frozen=True)
    class A:
        n: int = 0

        def __init__(self, site):
            self.site = site

        async def f(self):
            seen = []
            seen.append(self.n)
            other.n = 3
    """
    assert list(hidden_state(ast.parse(textwrap.dedent(source)))) == []
