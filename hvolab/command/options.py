"""What the subcommands share: options that shape what is run, and turning them into a setup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import click

from emu.machine import MOST_CPUS
from hvolab.catalog import CATALOGUE
from hvolab.load.applied import applied, on_lazy_cpus, scenarios_with, tried
from hvolab.load.user_file import NOTHING_LOADED, UserFile, load
from hvolab.subject.axes import (
    CONFIGURATIONS,
    CPU_MODELS,
    FORMS,
    ORIGINS,
    POLICIES,
    Chosen,
    deviations_of,
    is_in,
)
from hvolab.subject.ranges import RANGES
from hvolab.subject.scenario import Scenario, Setup, with_program
from hvolab.subject.script import Script, ordering

F = TypeVar("F", bound=Callable[..., object])

_KEPT = "hvolab.subject"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the shared options of this invocation say."""

    cpus: int | None
    chosen: Chosen
    judged: str | None
    program: Path | None
    loaded: UserFile = NOTHING_LOADED

    @property
    def nothing(self) -> bool:
        """Whether the scenario is left as it is, but for the number of CPUs."""
        return (
            self.chosen.nothing
            and self.judged is None
            and self.program is None
            and self.loaded.changes_nothing
        )

    def words(self) -> tuple[str, ...]:
        """The options as the words a replay must repeat."""
        loaded = self.loaded.option or None
        own = {"--load": loaded, "--judged": self.judged, "--program": self.program}
        return repeated({**self.chosen.options, **own})


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> object:
    context.meta.setdefault(_KEPT, {})[parameter.name] = value
    return value


def _keep_the_one(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> object:
    if len(value) > 1:
        said = f"{value[0]} and {value[1]}: one file is loaded, with all that is to go together in it"
        raise click.BadParameter(said, context, parameter)
    return _keep(context, parameter, value[0] if value else None)


def _option(name: str, metavar: str, text: str) -> Callable[[F], F]:
    return click.option(name, metavar=metavar, help=text, expose_value=False, callback=_keep)


def subject_options(command: F) -> F:
    """Options of every subcommand that runs something; `asked` has their values."""
    options = (
        click.option(
            "--cpus",
            type=click.IntRange(1, MOST_CPUS),
            help="Number of CPUs.",
            expose_value=False,
            callback=_keep,
        ),
        _option("--kernel", "FORM", f"Form of the code under test: {', '.join(FORMS.names)}."),
        _option("--variant", "NAME", "A kernel that differs in one thing: see hvolab show SCENARIO."),
        _option("--policy", "NAME", f"How TLBs are flushed: {', '.join(POLICIES.names)}."),
        _option("--cpu-model", "NAME", f"CPUs: {', '.join((*CPU_MODELS.names, *CPU_MODELS.aliases))}."),
        _option("--config", "NAME", f"Kernel configuration: {', '.join(CONFIGURATIONS.names)}."),
        _option("--failures", "WHICH", "Failing allocations: none, any, at:N[,N...], from:N, until-freed:N."),
        click.option(
            "--load",
            metavar="FILE.py[:NAME]",
            help="Your own variant, policy, scenario, judge: docs/your-own.md.",
            multiple=True,
            expose_value=False,
            callback=_keep_the_one,
        ),
        _option("--origin", "NAME", f"Where vmemmap's memory comes from: {', '.join(ORIGINS.names)}."),
        _option("--judged", "RANGES", f"Where stale uses are judged, of {', '.join(RANGES.names)}."),
        click.option(
            "--program",
            type=click.Path(path_type=Path),
            help="Assembly source to run as guest program.",
            expose_value=False,
            callback=_keep,
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def asked() -> Asked:
    """What the shared options of the command under way say."""
    kept: Mapping[str, object] = click.get_current_context().meta.get(_KEPT, {})

    def text(name: str) -> str | None:
        value = kept.get(name)
        return value if isinstance(value, str) else None

    cpus, program = kept.get("cpus"), kept.get("program")
    return Asked(
        cpus if isinstance(cpus, int) else None,
        Chosen(
            text("kernel"),
            text("variant"),
            text("policy"),
            text("cpu_model"),
            text("config"),
            text("failures"),
            text("origin"),
        ),
        text("judged"),
        program if isinstance(program, Path) else None,
        NOTHING_LOADED if (option := text("load")) is None else load(option),
    )


def scenario_called(name: str, loaded: UserFile) -> Scenario:
    """Of the catalogue, or of the user's file. Raises UnknownName, LoadError."""
    return scenarios_with(CATALOGUE, loaded).find(name)


def cpu_count(chosen: Scenario, cpus: int | None) -> int:
    """The number of CPUs asked for, or the scenario's own, two at least."""
    if cpus is None:
        return max(2, chosen.cpus_min)
    if cpus < chosen.cpus_min:
        raise click.UsageError(f"{chosen.name} has actors on {chosen.cpus_min} CPUs, not {cpus}: --cpus")
    return cpus


def shaped(setup: Setup, wanted: Asked) -> Setup:
    """The setup as the options want it. Raises UnknownName, AssemblyError, BadParameter, LoadError."""
    setup = with_guest(applied(setup, wanted.chosen, wanted.loaded), wanted.program)
    if wanted.judged is not None:
        ranges = tuple(RANGES.find(name.strip()) for name in wanted.judged.split(","))
        setup = replace(setup, judged=ranges)
    return tried(setup, wanted.loaded)


def shaped_on_lazy_cpus(chosen: Scenario, cpus: int, wanted: Asked) -> tuple[Setup, Asked]:
    """What the options want, on CPUs that may use all that the architecture allows; and saying so.

    Raises what `shaped` raises.
    """
    setup = chosen.build(cpus)
    wanted = replace(wanted, chosen=on_lazy_cpus(setup, wanted.chosen, wanted.loaded))
    return shaped(setup, wanted), wanted


def order_of(chosen: Scenario, setup: Setup) -> Script:
    """The order that shows what is wrong with that system; the scenario's own where it has none.

    What deviates in several things at once has no order that was made for it: each CPU runs to its end. A TLB
    with a geometry has the translations it has, and is asked for no others.
    """
    if deviations_of(setup.boot) > 1:
        return ()
    scripts = (bug.script for bug in chosen.bugs if is_in(bug.deviation, setup.boot))
    script = next(scripts, setup.script)
    return script if setup.boot.model.is_lazy else ordering(script)


def read_text(path: Path, option: str) -> str:
    """What is in the file that the option names. Raises BadParameter."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot read {path}: {error.strerror}", param_hint=option) from None
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"cannot read {path}: byte {error.start} is no UTF-8", param_hint=option
        ) from None


def with_guest(setup: Setup, program: Path | None) -> Setup:
    """The setup with its guest programs replaced by the source in that file, if one is named."""
    if program is None:
        return setup
    source = read_text(program, "--program")
    name = program.name if program.name.isprintable() else repr(program.name)
    return with_program(setup, name, source)


def repeated(options: Mapping[str, object]) -> tuple[str, ...]:
    """Options by name as the words a replay must repeat; those that are None are left out."""
    return tuple(word for name, value in options.items() if value is not None for word in (name, str(value)))
