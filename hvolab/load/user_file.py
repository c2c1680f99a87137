"""What a user's file has: variants, flush policies, CPU models, scenarios, judges, cost tables.

`load` takes FILE.py or FILE.py:NAME. What is meant by a name is told from what it is: a class over the port
or the pool is a variant, one over FlushPolicy a policy.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import assert_never

from emu.paging.models import CpuModel
from hvolab.judge.own import OwnJudge
from hvolab.load.overrides import check_overrides, overridden
from hvolab.load.source import FileRun, read_source
from hvolab.subject.axes import BUILT_IN, Axes, Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.costs import CostTable
from hvolab.subject.scenario import Scenario, Setup
from kernel_model.flush.policy import FlushPolicy, NamedPolicy
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
        check_overrides(source, found, HugetlbVmemmap)
        return NamedVariant(found.__name__, summary, found)
    if issubclass(found, Hugetlb):
        check_overrides(source, found, Hugetlb)
        return NamedVariant(found.__name__, summary, build_pool=found)
    if issubclass(found, FlushPolicy):
        check_overrides(source, found, UpstreamFlush if issubclass(found, UpstreamFlush) else FlushPolicy)
        own = overridden(found, FlushPolicy)
        # Who says himself what a flush and a release are relies on nothing in between.
        needed = ("dispatch",) if {"flush", "release"} <= own else ("dispatch", "rely")
        if missing := [name for name in needed if name not in own]:
            raise LoadError(f"{source.path.name}: {found.__name__} has no {' and no '.join(missing)}")
        return NamedPolicy(found.__name__, summary, found)
    if {"flush_tlb_all", "flush_tlb_kernel_range", "dispatch"} & set(vars(found)):
        wanted = "it has to be a class over FlushPolicy or UpstreamFlush"
        raise LoadError(f"{source.path.name}: {found.__name__} is no flush policy: {wanted}")
    return None


def functions_changed(loaded: UserFile) -> frozenset[str] | None:
    """The functions of the port that its variants override; None where it changes more than those."""
    if len(loaded.variants) != len(loaded.things):
        return None
    changed: set[str] = set()
    for one in loaded.variants:
        for made, base in ((one.build, HugetlbVmemmap), (one.build_pool, Hugetlb)):
            if inspect.isclass(made):
                changed |= overridden(made, base)
    return frozenset(changed)
