"""What the subcommands share: turning options into a setup, and saying what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from emu.paging.models import ERRATA, MODELS
from hvolab.subject.scenario import Scenario, Setup, with_program, with_variant
from hvolab.subject.script import Script
from kernel_model.mm.failures import EachMayFail
from kernel_model.variants.catalog import variant

VARIANT_OPTION = click.option(
    "--variant", metavar="NAME", help="A kernel that differs in one thing: see hvolab show SCENARIO."
)
MODEL_NAMES = tuple(model.name for model in (*MODELS, *ERRATA))


def cpu_count(chosen: Scenario, cpus: int | None) -> int:
    """The number of CPUs asked for, or the scenario's own, two at least."""
    if cpus is None:
        return max(2, chosen.cpus_min)
    if cpus < chosen.cpus_min:
        raise click.UsageError(f"{chosen.name} has actors on {chosen.cpus_min} CPUs, not {cpus}: --cpus")
    return cpus


def with_model(setup: Setup, name: str | None) -> Setup:
    """The setup on CPUs of the model of that name; None leaves it as it is."""
    for model in (*MODELS, *ERRATA):
        if model.name == name:
            return replace(setup, boot=replace(setup.boot, model=model))
    return setup


def bugged(chosen: Scenario, setup: Setup, name: str | None) -> tuple[Setup, Script]:
    """The setup with the variant of that name, and the order that shows what is wrong with it.

    That is the scenario's own order where it has none for the variant. Raises UnknownVariant.
    """
    if name is None:
        return setup, setup.script
    wanted = variant(name)
    scripts = (bug.script for bug in chosen.bugs if bug.variant is wanted)
    return with_variant(setup, wanted), next(scripts, setup.script)


def with_failures(setup: Setup, failures: str | None) -> Setup:
    """``any``: each allocation may fail, which is a choice of the schedule."""
    if failures is None:
        return setup
    return replace(setup, boot=replace(setup.boot, failures=EachMayFail()))


def read_text(path: Path, option: str) -> str:
    """What is in the file that the option names. Raises BadParameter."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path}: {error}", param_hint=option) from None


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
