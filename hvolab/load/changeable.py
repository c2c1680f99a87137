"""What of a user's file could remember something from step to step: looked for in what the file has made.

Syntax alone does not tell: an iterator, a cache, an object of one's own may stand behind any name.
"""

from __future__ import annotations
import __future__

import enum
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, GenericAlias, ModuleType, NoneType, UnionType

_PLAIN = (
    int, float, complex, str, bytes, NoneType, type(Ellipsis), type(NotImplemented), range, slice, enum.Enum,
    ModuleType, BuiltinFunctionType, CodeType, GenericAlias, UnionType,
)  # fmt: skip
_FEATURE = type(__future__.annotations)  # what `from __future__ import annotations` leaves in a module
_WRITTEN = frozenset({"__init__", "__call__", "__new__"})  # the others, and a dataclass's, are made for one
_OURS = frozenset({"emu", "firmware", "kernel_model", "hvolab", "builtins", "typing", "enum"})


def changeable_in(module: ModuleType) -> Iterator[tuple[str, str]]:
    """(name, what) of each thing in the module that can change."""
    for name, value in vars(module).items():
        if not (name.startswith("__") and name.endswith("__")) and not isinstance(value, _FEATURE):
            yield from _changeable(name, value, module.__name__, frozenset())


def changeable_of(owner: object, module: str) -> Iterator[tuple[str, str]]:
    """The same of what an object of the file's holds, beside what its classes outside of the file hold."""
    for name, value in getattr(owner, "__dict__", {}).items():
        yield from _changeable(f"self.{name}", value, module, frozenset())


def _changeable(name: str, value: object, module: str, seen: frozenset[int]) -> Iterator[tuple[str, str]]:
    if id(value) in seen or isinstance(value, _PLAIN):
        return
    seen |= {id(value)}
    kind = type(value)
    if isinstance(value, tuple | frozenset):
        for part in value:
            yield from _changeable(name, part, module, seen)
    elif isinstance(value, FunctionType):
        yield from _of_function(name, value, module, seen)
    elif isinstance(value, staticmethod | classmethod):
        yield from _changeable(name, value.__func__, module, seen)
    elif isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from _changeable(name, part, module, seen)
    elif isinstance(value, type):
        if value.__module__ == module and not issubclass(value, enum.Enum):
            for attribute, held in vars(value).items():
                if not attribute.startswith("__") or (attribute in _WRITTEN and not is_dataclass(value)):
                    yield from _changeable(f"{value.__name__}.{attribute}", held, module, seen)
    elif is_dataclass(kind) and getattr(kind, "__dataclass_params__").frozen:  # noqa: B009
        for one in fields(kind):
            yield from _changeable(f"{name}.{one.name}", getattr(value, one.name), module, seen)
    elif (
        kind.__module__.partition(".")[0] not in _OURS
        or kind in (list, dict, set, bytearray)
        or _iterates(kind)
    ):
        yield name, f"a {kind.__name__}"


def _iterates(kind: type) -> bool:
    return hasattr(kind, "__next__")


def _of_function(
    name: str, function: FunctionType, module: str, seen: frozenset[int]
) -> Iterator[tuple[str, str]]:
    """What a function of the file's carries from call to call: defaults, and what it closes over."""
    if function.__module__ != module:
        return
    held = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    for value in held:
        yield from _changeable(f"a default of {name}", value, module, seen)
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not filled yet
        yield from _changeable(f"what {name} closes over", value, module, seen)
