"""What a user's file has: variants, flush policies, CPU models, scenarios, judges, cost tables.

`load` takes FILE.py or FILE.py:NAME. What is meant by a name is told from what it is: a class over the port
or the pool is a variant, one with both flush routines a policy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import assert_never, cast

from emu.paging.models import CpuModel
from hvolab.judge.own import OwnJudge
from hvolab.load.source import FileRun, read_source
from hvolab.subject.axes import BUILT_IN, Axes, Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.costs import CostTable
from hvolab.subject.scenario import Scenario, Setup
from kernel_model.flush.policy import FlushPolicy, FlushSite, NamedPolicy
from kernel_model.flush.upstream import UpstreamFlush
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.variants.named import NamedVariant

Thing = NamedVariant | NamedPolicy | CpuModel | Scenario | OwnJudge | CostTable


@dataclass(frozen=True, slots=True)
class UserFile:
    """Of one file, `option` as it was asked for. `digest`: of the file's contents; empty where none is."""

    option: str = ""
    digest: str = ""
    things: tuple[Thing, ...] = ()

    def of(self, kind: type) -> tuple[Thing, ...]:
        return tuple(thing for thing in self.things if isinstance(thing, kind))

    @property
    def scenarios(self) -> tuple[Scenario, ...]:
        return tuple(thing for thing in self.things if isinstance(thing, Scenario))

    @property
    def variants(self) -> tuple[NamedVariant, ...]:
        return tuple(thing for thing in self.things if isinstance(thing, NamedVariant))

    @property
    def cost_tables(self) -> tuple[CostTable, ...]:
        return tuple(thing for thing in self.things if isinstance(thing, CostTable))

    @property
    def changes_nothing(self) -> bool:
        """Whether a scenario runs with it as without it: there are scenarios and cost tables alone."""
        return all(isinstance(thing, Scenario | CostTable) for thing in self.things)

    def told(self) -> tuple[tuple[str, str, str], ...]:
        """(kind, name, summary) of each."""
        return tuple((_KINDS[type(thing)], thing.name, _summary(thing)) for thing in self.things)

    @property
    def axes(self) -> Axes:
        """What there is by name, with what the file has. Raises LoadError where a name is taken."""
        policies = [thing for thing in self.things if isinstance(thing, NamedPolicy)]
        models = [thing for thing in self.things if isinstance(thing, CpuModel)]
        try:
            return Axes(
                BUILT_IN.variants.and_also(self.variants, lambda one: one.name),
                BUILT_IN.policies.and_also(policies, lambda one: one.name),
                BUILT_IN.cpu_models.and_also(models, lambda one: one.name),
            )
        except ValueError as error:
            raise LoadError(f"{self.option}: {error}") from None

    def completed(self, chosen: Chosen) -> Chosen:
        """What is asked for, and on each axis of which the file has one thing and nothing is asked, that.

        Raises LoadError where the file has several, or another than is asked for: nothing is left out.
        """

        return replace(
            chosen,
            variant=self._only(NamedVariant, "--variant", chosen.variant),
            policy=self._only(NamedPolicy, "--policy", chosen.policy),
            cpu_model=self._only(CpuModel, "--cpu-model", chosen.cpu_model),
        )

    def _only(self, kind: type, option: str, asked: str | None) -> str | None:
        names = [thing.name for thing in self.of(kind)]
        if asked is None and len(names) > 1:
            which = f"say {option} NAME, or --load FILE.py:NAME"
            raise LoadError(f"{self.option} has more than one {_KINDS[kind]}, {', '.join(names)}: {which}")
        if asked is not None and len(names) == 1 and asked not in names:
            raise LoadError(
                f"{self.option} brings the {_KINDS[kind]} {names[0]}, and {option} asks for {asked}"
            )
        return names[0] if asked is None and names else asked

    def judged(self, setup: Setup) -> Setup:
        """The setup with the file's judges, known by its contents; as it is where nothing was loaded."""
        if not self.digest:
            return setup
        judges = tuple(thing for thing in self.things if isinstance(thing, OwnJudge))
        return replace(setup, judges=(*setup.judges, *judges), loaded=self.digest)


NOTHING_LOADED = UserFile()

_KINDS: dict[type, str] = {
    NamedVariant: "variant",
    NamedPolicy: "policy",
    CpuModel: "CPU model",
    Scenario: "scenario",
    OwnJudge: "judge",
    CostTable: "cost table",
}


def _summary(thing: Thing) -> str:
    match thing:
        case Scenario(question=question):
            return question
        case CostTable():
            return "cycles of what a run costs"
        case NamedVariant() | NamedPolicy() | CpuModel() | OwnJudge():
            return thing.summary
        case _:
            assert_never(thing)


def load(option: str) -> UserFile:
    """What FILE.py or FILE.py:NAME brings. Raises LoadError."""
    path, _, name = option.partition(":") if ".py:" in option else (option, "", "")
    if not path.endswith(".py"):
        raise LoadError(f"{option!r} is no FILE.py or FILE.py:NAME")
    source = read_source(Path(path))
    found = dict(_things(source))
    if not found:
        raise LoadError(
            f"{source.path.name} has nothing to run: "
            "no variant, policy, CPU model, scenario, judge, cost table"
        )
    if not name:
        return UserFile(option, source.digest, tuple(found.values()))
    if name not in found:
        near = get_close_matches(name, found)
        said = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(found)}"
        raise LoadError(f"{source.path.name} has nothing to run called {name!r}; {said}")
    return UserFile(option, source.digest, (found[name],))


def _things(source: FileRun) -> Iterator[tuple[str, Thing]]:
    """By the name that they have in the file. Raises LoadError."""
    known = {
        id(thing)
        for things in (BUILT_IN.variants.things, BUILT_IN.policies.things, BUILT_IN.cpu_models.things)
        for thing in things
    }
    values: dict[str, object] = {}
    for name, value in vars(source.module).items():
        if not name.startswith("_") and all(value is not other for other in values.values()):
            values[name] = value
    made_from = {id(part) for value in values.values() for part in _parts(value)}
    for name, value in values.items():
        if id(value) in known or id(value) in made_from:
            continue
        if isinstance(value, Thing):
            yield name, value
        elif inspect.isclass(value) and value.__module__ == source.module.__name__:
            thing = _thing_of(source, value)
            if thing is not None:
                yield name, thing


def _parts(value: object) -> tuple[object, ...]:
    """The classes that a thing with a name of its own is made from."""
    match value:
        case NamedVariant(build=build, build_pool=build_pool):
            return build, build_pool
        case NamedPolicy(build=build):
            return (build,)
        case _:
            return ()


def _thing_of(source: FileRun, found: type) -> Thing | None:
    """What a class is, by what it is made from."""
    summary = (inspect.cleandoc(found.__doc__ or "") or f"from {source.path.name}").splitlines()[0]
    if issubclass(found, HugetlbVmemmap):
        _check_overrides(source, found, HugetlbVmemmap)
        return NamedVariant(found.__name__, summary, found)
    if issubclass(found, Hugetlb):
        _check_overrides(source, found, Hugetlb)
        return NamedVariant(found.__name__, summary, build_pool=found)
    if issubclass(found, UpstreamFlush) or {"flush_tlb_all", "flush_tlb_kernel_range"} & set(vars(found)):
        _check_overrides(source, found, UpstreamFlush if issubclass(found, UpstreamFlush) else FlushPolicy)
        return NamedPolicy(found.__name__, summary, cast(Callable[[FlushSite], FlushPolicy], found))
    return None


def _check_overrides(source: FileRun, found: type, base: type) -> None:
    """Something is overridden, and is called as the original is. Raises LoadError."""
    originals = vars_of(base)
    for name in vars_of(found):
        near = get_close_matches(name, originals, cutoff=0.8)
        if name not in originals and near and near[0] not in vars_of(found, source.module.__name__):
            line = _line(getattr(found, name))
            said = f"{found.__name__}.{name} is no function of {base.__name__}; did you mean {near[0]}?"
            raise LoadError(f"{source.path.name}:{line}: {said}")
    changed = [name for name, original in originals.items() if getattr(found, name, None) is not original]
    if not changed and "__init__" not in vars(found):
        raise LoadError(f"{source.path.name}: {found.__name__} overrides nothing of {base.__name__}")
    for name in changed:
        _check_call(source, found, name, originals[name])


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


def functions_changed(loaded: UserFile) -> frozenset[str] | None:
    """The functions of the port that its variants override; None where it changes more than those."""
    if len(loaded.variants) != len(loaded.things):
        return None
    changed: set[str] = set()
    for one in loaded.variants:
        for made, base in ((one.build, HugetlbVmemmap), (one.build_pool, Hugetlb)):
            if inspect.isclass(made):
                changed |= {
                    name for name, original in vars_of(base).items() if getattr(made, name) is not original
                }
    return frozenset(changed)


def vars_of(base: type, module: str = "") -> dict[str, Callable[..., object]]:
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
