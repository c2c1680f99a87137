"""What a user's class overrides is there, and is called as the original is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches

from hvolab.load.source import FileRun
from hvolab.subject.blame import LoadError


def check_overrides(source: FileRun, found: type, base: type) -> None:
    """Something is overridden, and is called as the original is. Raises LoadError."""
    originals = functions_of(base)
    for name in functions_of(found):
        near = get_close_matches(name, originals, cutoff=0.8)
        if name not in originals and near and near[0] not in functions_of(found, source.module.__name__):
            line = _line(getattr(found, name))
            said = f"{found.__name__}.{name} is no function of {base.__name__}; did you mean {near[0]}?"
            raise LoadError(f"{source.path.name}:{line}: {said}")
    changed = overridden(found, base)
    if not changed and "__init__" not in vars(found):
        raise LoadError(f"{source.path.name}: {found.__name__} overrides nothing of {base.__name__}")
    for name, original in originals.items():
        if name in changed:
            _check_call(source, found, name, original)


def _check_call(source: FileRun, found: type, name: str, original: Callable[..., object]) -> None:
    own = getattr(found, name, None)
    if not callable(own):
        raise LoadError(f"{source.path.name}: {found.__name__} has no function {name}")
    place = f"{source.path.name}:{_line(own)}: {found.__name__}.{name}"
    if inspect.iscoroutinefunction(original) and not inspect.iscoroutinefunction(own):
        raise LoadError(f"{place} must be an async function, as the one it stands for")
    keywords = [
        one.name
        for one in inspect.signature(own).parameters.values()
        if one.kind is one.KEYWORD_ONLY and one.default is one.empty
    ]
    if keywords:
        raise LoadError(f"{place} needs {', '.join(keywords)} by name, which no caller gives")
    wanted, has = _positional(original), _positional(own)
    if wanted is not None and has is not None and not has[0] <= wanted[0] <= has[1]:
        raise LoadError(f"{place} takes {_arguments(has)}; it is called with {wanted[0]}")


def overridden(found: type, base: type) -> frozenset[str]:
    """The functions of `base` that are others in `found`."""
    functions = functions_of(base).items()
    return frozenset(name for name, original in functions if getattr(found, name, None) is not original)


def functions_of(base: type, module: str = "") -> dict[str, Callable[..., object]]:
    """The functions of a class, those that it inherits included, by name; or those of one module alone."""
    return {
        name: value
        for one in reversed(base.__mro__)
        for name, value in vars(one).items()
        if inspect.isfunction(value)
        and not name.startswith("__")
        and (not module or one.__module__ == module)
    }


def _line(function: object) -> int:
    code = getattr(function, "__code__", None)
    return 0 if code is None else code.co_firstlineno


def _positional(function: object) -> tuple[int, float] | None:
    """How many arguments a function takes beside self, (at least, at most)."""
    if not callable(function):
        return None
    parameters = [*inspect.signature(function).parameters.values()][1:]
    several = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    plain = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    least = sum(one.default is one.empty for one in plain)
    return least, float("inf") if several else len(plain)


def _arguments(has: tuple[int, float]) -> str:
    least, most = has
    return f"{least} arguments" if least == most else f"{least} to {most} arguments"
