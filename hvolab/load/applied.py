"""What is asked for, and what a user's file brings, made one setup; and tried before it is used."""

from __future__ import annotations

from dataclasses import replace

from emu.paging.models import LAZY
from hvolab.load.twice import check_twice
from hvolab.load.user_file import UserFile
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError
from hvolab.subject.names import Table
from hvolab.subject.scenario import Scenario, Setup


def scenarios_with(catalogue: Table[Scenario], loaded: UserFile) -> Table[Scenario]:
    """The catalogue and the file's own. Raises LoadError where a name is taken."""
    try:
        return catalogue.and_also(loaded.scenarios, lambda one: one.name)
    except ValueError as error:
        raise LoadError(f"{loaded.option}: {error}") from None


def on_lazy_cpus(setup: Setup, chosen: Chosen, loaded: UserFile) -> Chosen:
    """What is asked for, on CPUs that may use all that the architecture allows unless others are.

    Those of the scenario or of the file stay where they are such. Raises UnknownName, LoadError.
    """
    completed = loaded.completed(chosen)
    if completed.cpu_model is not None or setup.boot.model.is_lazy:
        return chosen
    return replace(chosen, cpu_model=LAZY.name)


def applied(setup: Setup, chosen: Chosen, loaded: UserFile) -> Setup:
    """The setup as it is asked for, with the file's judges. Raises UnknownName, LoadError."""
    boot = loaded.completed(chosen).apply(setup.boot, loaded.axes)
    return loaded.judged(replace(setup, boot=boot))


def tried(setup: Setup, loaded: UserFile) -> Setup:
    """The setup. Raises LoadError where a file had a hand in it and does not do the same every time."""
    if setup.loaded:
        check_twice(setup, loaded.option)
    return setup
