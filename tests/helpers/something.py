"""Which expressions are known, from source alone, to have something in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""Of the whole tree."""
WRAPPERS = frozenset({"enumerate", "sorted", "reversed", "list", "tuple", "set", "frozenset", "iter", "dict"})
"""Calls that give as many things as they are given."""
VIEWS = frozenset({"items", "values", "keys"})

Names = Mapping[str, ast.expr]


@dataclass(frozen=True)
class Scope:
    """What the names of a piece of source stand for: values given once, and what is imported."""

    names: Names
    imported: Mapping[str, tuple[str, str]]

    def inner(self, body: list[ast.stmt]) -> Scope:
        """With the names that a function's body gives values to."""
        return Scope({**self.names, **dict(values_given(body))}, self.imported)


def scope_of(tree: ast.Module) -> Scope:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    imported = {
        name.asname or name.name: (node.module or "", name.name) for node in imports for name in node.names
    }
    return Scope(dict(values_given(tree.body)), imported)


def values_given(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """The names that are given a value exactly once, and which."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    stored = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in nodes:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if stored.count(name) == 1:
                yield name, value


def is_something(expression: ast.expr, scope: Scope) -> bool:
    """Whether there is at least one thing in it, for certain."""
    match expression:
        case ast.List(elts=parts) | ast.Tuple(elts=parts) | ast.Set(elts=parts):
            return any(not isinstance(one, ast.Starred) or is_something(one.value, scope) for one in parts)
        case ast.Dict(keys=keys, values=values):
            return any(
                key is not None or is_something(value, scope) for key, value in zip(keys, values, strict=True)
            )
        case ast.Constant(value=str() | bytes() as text):
            return bool(text)
        case ast.Name(id=name):
            return _is_name_of_something(name, scope)
        case ast.BinOp(left=left, op=ast.Add() | ast.BitOr(), right=right):
            return is_something(left, scope) or is_something(right, scope)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return is_something(left, scope) and (number(right, scope) or 0) > 0
        case (
            ast.ListComp(generators=parts)
            | ast.GeneratorExp(generators=parts)
            | ast.SetComp(generators=parts)
            | ast.DictComp(generators=parts)
        ):
            return all(not part.ifs and is_something(part.iter, scope) for part in parts)
        case ast.Call(func=ast.Attribute(value=value, attr=attr), args=[]) if attr in VIEWS:
            return is_something(value, scope)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _is_call_for_something(name, args, keywords, scope)
        case _:
            return False


def number(expression: ast.expr, scope: Scope) -> int | None:
    """A whole number that is written there, or computed from such; None for anything else."""
    match expression:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name) if name in scope.names:
            return number(scope.names[name], _without(name, scope))
        case ast.BinOp(left=left, right=right, op=op):
            a, b = number(left, scope), number(right, scope)
            if a is None or b is None:
                return None
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.LShift():
                    return a << b
                case ast.FloorDiv():
                    return a // b
    return None


def _without(name: str, scope: Scope) -> Scope:
    """So that a name whose value names itself ends the question."""
    return Scope({one: value for one, value in scope.names.items() if one != name}, scope.imported)


def _is_call_for_something(
    name: str, args: list[ast.expr], keywords: list[ast.keyword], scope: Scope
) -> bool:
    found = [is_something(one, scope) for one in args]
    if name == "range":
        return _is_range_of_something(args, scope)
    if name == "zip":
        strict = any(one.arg == "strict" and ast.unparse(one.value) == "True" for one in keywords)
        return any(found) if strict else bool(found) and all(found)
    if name in ("product", "permutations"):
        return bool(found) and all(found[:1] if name == "permutations" else found)
    return name in WRAPPERS and found[:1] == [True]


def _is_range_of_something(args: list[ast.expr], scope: Scope) -> bool:
    match args:
        case [ast.Call(func=ast.Name(id="len"), args=[value])]:
            return is_something(value, scope)
        case [stop]:
            return (number(stop, scope) or 0) > 0
        case [start, stop, *step]:
            numbers = [number(one, scope) for one in (start, stop, *step)]
            return None not in numbers and len(range(*[one or 0 for one in numbers])) > 0
        case _:
            return False


def _is_name_of_something(name: str, scope: Scope) -> bool:
    if name in scope.names:
        return is_something(scope.names[name], _without(name, scope))
    if name in scope.imported:
        return _is_something_there(*scope.imported[name])
    return False


@cache
def _is_something_there(module: str, name: str) -> bool:
    """A constant of another module, or an enumeration with members."""
    places = [ROOT / (module.replace(".", "/") + ".py"), ROOT / module.replace(".", "/") / "__init__.py"]
    if "." not in module:
        places += (ROOT / "tests").glob(f"*/helpers/{module}.py")
    for place in places:
        if place.exists():
            tree = ast.parse(place.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and node.name == name:
                    return any(isinstance(one, ast.Assign) for one in node.body)
            return _is_name_of_something(name, scope_of(tree))
    return False
