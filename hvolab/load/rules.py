"""What a user's file may not do, read out of its syntax: keep state where no search can see it.

State that outlives a step lives in the machine (memory, named words) or in local variables of a routine.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

_CHANGEABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MAKERS = frozenset({"list", "dict", "set", "bytearray", "defaultdict", "Counter", "deque", "count", "cycle"})
INSTEAD = ": keep it in a local variable, or in the machine (memory, named words)"
_OUTSIDE = frozenset({
    "asyncio", "concurrent", "contextvars", "ctypes", "datetime", "gc", "multiprocessing", "os", "random",
    "secrets", "signal", "socket", "subprocess", "tempfile", "threading", "time", "uuid", "weakref",
})  # fmt: skip
_BEHIND_THE_SYNTAX = frozenset({"globals", "setattr", "delattr", "vars", "exec", "eval", "open", "input"})
_OF_ONE_PROCESS = frozenset({"hash", "id"})
_ENDED = "a routine that is killed or cut off makes no more steps"


def hidden_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, what) of each place that keeps, or changes, what outlives a run or a step."""
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, definitions)}
    for node in tree.body:
        yield from _module_level(node)
    for found in ast.walk(tree):
        match found:
            case ast.Import(names=names):
                for module in (alias.name for alias in names if _is_outside(alias.name)):
                    yield found.lineno, _another_thing(module)
            case ast.ImportFrom(module=str(module)) if _is_outside(module):
                yield found.lineno, _another_thing(module)
            case ast.Call(func=ast.Name(id=name)) if name in _BEHIND_THE_SYNTAX:
                yield found.lineno, f"{name}() reaches what would outlive the step{INSTEAD}"
            case ast.Call(func=ast.Name(id=name)) if name in _OF_ONE_PROCESS:
                yield found.lineno, f"{name}() is another number in each process"
            case ast.Set(elts=elements) if any(_is_text(one) for one in elements):
                yield found.lineno, "a set of strings has another order in each process: write a tuple"
            case ast.Try(finalbody=body) if (awaits := _first_await(body)) is not None:
                yield awaits, f"finally awaits: {_ENDED}"
            case ast.AsyncFunctionDef(name="__aexit__") if (awaits := _first_await(found.body)) is not None:
                yield awaits, f"__aexit__ awaits: {_ENDED}"
            case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del(), attr=attribute) if (
                name in defined
            ):
                yield found.lineno, f"{name}.{attribute} would outlive the step{INSTEAD}"
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield found.lineno, f"{' and '.join(names)} would outlive the step{INSTEAD}"
            case ast.ClassDef():
                yield from _in_class(found)
            case _:
                pass  # keeps nothing


def _is_text(element: ast.expr) -> bool:
    return isinstance(element, ast.Constant) and isinstance(element.value, str | bytes)


def _first_await(body: list[ast.stmt]) -> int | None:
    """The line of the first await among these statements."""
    lines = (found.lineno for part in body for found in ast.walk(part) if isinstance(found, ast.Await))
    return min(lines, default=None)


def _is_outside(module: str) -> bool:
    return module.partition(".")[0] in _OUTSIDE


def _another_thing(module: str) -> str:
    return f"what {module} gives is another thing in each run: let a Decide choose"


def _module_level(node: ast.stmt) -> Iterator[tuple[int, str]]:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name), *_], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ) if value is not None and _is_changeable(value) and not name.startswith("__"):
            yield node.lineno, f"{name} can be changed and would outlive a run{INSTEAD}"
        case _:
            pass  # keeps nothing


def _in_class(body: ast.ClassDef) -> Iterator[tuple[int, str]]:
    for statement in body.body:
        match statement:
            case ast.Assign(value=value) | ast.AnnAssign(value=value) if value and _is_changeable(value):
                yield (
                    statement.lineno,
                    f"what class {body.name} holds can be changed and would outlive a run{INSTEAD}",
                )
            case ast.FunctionDef() | ast.AsyncFunctionDef() if statement.args.args:
                yield from _on_self(statement, statement.args.args[0].arg)
            case _:
                pass  # keeps nothing


def _on_self(method: ast.FunctionDef | ast.AsyncFunctionDef, this: str) -> Iterator[tuple[int, str]]:
    """Stores to what an object holds; in __init__ only of what can be changed afterwards."""
    for node in ast.walk(method):
        for target, value in _stores(node):
            held = _held_by(target, this)
            if held is None:
                continue
            if method.name != "__init__" or (value is not None and _is_changeable(value)):
                yield target.lineno, f"{this}.{held} would outlive the step{INSTEAD}"


def _stores(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """(target, value) of what a statement stores, or takes away."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((target, value) for target in targets)
        case ast.AugAssign(target=target, value=value) | ast.AnnAssign(target=target, value=value):
            yield target, value
        case ast.Delete(targets=targets):
            yield from ((target, None) for target in targets)
        case _:
            pass  # keeps nothing


def _held_by(target: ast.expr, this: str) -> str | None:
    """The attribute of the object that a store to this changes."""
    while isinstance(target, ast.Subscript):
        target = target.value
    match target:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name == this:
            return attribute
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return next((held for part in parts if (held := _held_by(part, this))), None)
        case _:
            return None  # holds nothing


def _is_changeable(value: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in _MAKERS
        case _:
            return isinstance(value, _CHANGEABLE)
