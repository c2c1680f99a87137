"""No test can pass because there was nothing to look at.

An assertion inside a loop says nothing where the loop does nothing. So in every function of the tests, a
loop that holds assertions, or an `all(...)` that is asserted, must be over what cannot be empty: a literal, a
range of numbers, a constant, what another assertion, outside of the loop, has looked at, or what hypothesis
draws. That no set of parameters is empty pytest itself sees to (`empty_parameter_set_mark`).

Read out of the syntax trees: what the rule cannot see, `assert things` before the loop says.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TypeAlias

import pytest
from something import ROOT, is_something, scope_of

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Loop: TypeAlias = ast.For | ast.AsyncFor | ast.comprehension


def vacuous(source: str) -> list[str]:
    """`line function: what` for each loop with assertions in it that may look at nothing."""
    tree = ast.parse(source)
    constants = scope_of(tree)
    wrong = []
    for function in ast.walk(tree):
        if not isinstance(function, Function) or gives_something_back(function):
            continue
        drawn = {one.arg for one in function.args.args} if is_property(function) else set()
        scope = constants.inner(function.body)
        wrong += [
            f"{loop.iter.lineno} {function.name}: {ast.unparse(loop.iter)}"
            for loop in loops_with_assertions(function)
            if not is_something(loop.iter, scope)
            and not is_asserted_outside(loop, function)
            and not drawn & {node.id for node in ast.walk(loop.iter) if isinstance(node, ast.Name)}
        ]
    return wrong


def loops_with_assertions(function: Function) -> Iterator[Loop]:
    """Those of functions defined inside are theirs."""
    for node in own_nodes(function):
        if isinstance(node, ast.For | ast.AsyncFor) and any(map(is_assertion, ast.walk(node))):
            yield node
        if isinstance(node, ast.Assert):
            match node.test:
                case ast.Call(func=ast.Name(id="all"), args=[ast.GeneratorExp(generators=loops)]):
                    yield from loops


def gives_something_back(function: Function) -> bool:
    """A helper that returns what it found: whoever asked it looks at that, its own assertions are guards."""
    return any(isinstance(node, ast.Return | ast.Yield) and node.value for node in own_nodes(function))


def is_property(function: Function) -> bool:
    """Whether its parameters are drawn, again and again: they are not empty every time."""
    return any(ast.unparse(one).startswith("given(") for one in function.decorator_list)


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from own_nodes(child)


def is_assertion(node: ast.AST) -> bool:
    """An assert, or a block that must raise."""
    if isinstance(node, ast.Assert):
        return True
    return isinstance(node, ast.withitem) and ast.unparse(node.context_expr).startswith("pytest.raises(")


def is_asserted_outside(loop: Loop, function: Function) -> bool:
    """Whether an assertion that is not in the loop speaks of what the loop is over."""
    inside = set(ast.walk(loop))
    wanted = {ast.dump(node) for node in [loop.iter, *bases(loop.iter)]}
    return any(
        ast.dump(part) in wanted
        for node in own_nodes(function)
        if isinstance(node, ast.Assert) and node not in inside and loop.iter not in set(ast.walk(node))
        for part in ast.walk(node.test)
    )


def bases(expression: ast.expr) -> Iterator[ast.expr]:
    """What is looked through: sorted(x), x.items() and enumerate(x) have something in them when x has."""
    match expression:
        case ast.Call(func=ast.Name(), args=[first, *_]):
            yield first
            yield from bases(first)
        case ast.Call(func=ast.Attribute(value=value), args=[]):
            yield value
            yield from bases(value)


# --- the tests ------------------------------------------------------------------------------------------

FILES = sorted((ROOT / "tests").rglob("*.py"))


def test_no_test_looks_at_what_may_be_nothing() -> None:
    assert len(FILES) > 100
    wrong = [
        f"{path.relative_to(ROOT)}:{found}"
        for path in FILES
        for found in vacuous(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_no_set_of_parameters_may_be_empty(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.getini("empty_parameter_set_mark") == "fail_at_collect"


# --- the rule can fail ----------------------------------------------------------------------------------


def in_a_test(lines: str, before: str = "") -> str:
    indented = "".join(f"    {line}\n" for line in lines.splitlines())
    return f"{before}\n\ndef test_x():\n{indented}"


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ("for one in found():\n    assert one", "found()"),
        ("for one in found():\n    if one:\n        assert one", "found()"),
        ("for one in found():\n    with pytest.raises(ValueError):\n        one()", "found()"),
        ("assert all(one for one in found())", "found()"),
        ("assert other()\nfor one in found():\n    assert one", "found()"),
        ("assert [one for one in things if one]\nfor one in other:\n    assert one", "other"),
        ("for a in (1, 2):\n    for one in found(a):\n        assert one", "found(a)"),
        ("for one in []:\n    assert one", "[]"),
        ("for one in ():\n    assert one", "()"),
        ("for one in range(3, 3):\n    assert one", "range(3, 3)"),
        ("for one in range(count):\n    assert one", "range(count)"),
        ("for one in things[1:]:\n    assert one", "things[1:]"),
        ("things = [1, 2]\nthings = []\nfor one in things:\n    assert one", "things"),
        ("for one in [*found()]:\n    assert one", "[*found()]"),
        ("for one in [a for a in (1, 2) if a > 2]:\n    assert one", "[a for a in (1, 2) if a > 2]"),
        ("for a, b in zip((1,), found()):\n    assert a == b", "zip((1,), found())"),
        ("for one in sorted(found()):\n    assert one", "sorted(found())"),
        ("for one in found().items():\n    assert one", "found().items()"),
        ("for one in NOTHING:\n    assert one", "NOTHING"),
    ],
)
def test_a_loop_that_may_look_at_nothing_is_found(lines: str, what: str) -> None:
    found = vacuous(in_a_test(lines, "NOTHING = ()"))
    assert [one.partition(" ")[2] for one in found] == [f"test_x: {what}"]


@pytest.mark.parametrize(
    "lines",
    [
        "for one in (1, 2):\n    assert one",
        "for key, one in {1: 2}.items():\n    assert one",
        "for one in range(1 << 3):\n    assert one",
        "for one in THINGS:\n    assert one",
        "for number, one in enumerate(sorted(THINGS), 1):\n    assert one",
        "for one in range(len(THINGS)):\n    assert one",
        "for one in [*found(), 1]:\n    assert one",
        "for one in [2 * a for a in THINGS]:\n    assert one",
        "for a, b in zip(THINGS, found(), strict=True):\n    assert a == b",
        "for one in Verdict:\n    assert one",
        "assert all(one for one in THINGS)",
        "things = found()\nassert things\nfor one in things:\n    assert one",
        "things = found()\nassert len(things) == 3\nfor one in things:\n    assert one",
        "assert done.found\nfor one in done.found:\n    assert one",
        "for a in (1, 2):\n    one = found(a)\n    assert one\n    for b in one:\n        assert b",
        "for one in found():\n    print(one)\nassert done",
        "def inner():\n    for one in THINGS:\n        assert one\ninner()",
    ],
)
def test_a_loop_that_looks_at_something_is_let_be(lines: str) -> None:
    before = "from hvolab.judge.verdict import Verdict\nTHINGS = (1, 2)"
    assert vacuous(in_a_test(lines, before)) == []


def test_a_helper_that_returns_what_it_found_may_find_nothing() -> None:
    source = "def check(things):\n    for one in things:\n        assert one\n"
    assert len(vacuous(source)) == 1
    assert vacuous(f"{source}    return len(things)\n") == []


def test_what_hypothesis_draws_is_something() -> None:
    source = "def test_x(things):\n    for one in things:\n        assert one\n"
    assert len(vacuous(source)) == 1
    assert vacuous(f"@given(THINGS)\n{source}") == []
