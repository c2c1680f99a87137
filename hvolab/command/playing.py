"""One run, made and shown: what `run` and `demo` share."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from emu.trace import Listener
from hvolab.command.options import Asked, order_of
from hvolab.show.pages_view import PagesView
from hvolab.show.report import (
    Invocation,
    Order,
    show_end,
    show_finding,
    show_phases,
    show_question,
    show_timeline,
    show_uses,
)
from hvolab.show.timeline import Timeline
from hvolab.subject.outcome import NO_LIMITS, Limits, Run
from hvolab.subject.run import PickerFor, run
from hvolab.subject.scenario import Group, Scenario, Setup
from hvolab.subject.script import AsFarAsItGoes, Script, ScriptPicker
from kernel_model.boot import System


def following(script: Script) -> PickerFor:
    """The picker that resolves that script."""
    return lambda system: ScriptPicker(script, system.machine)


def as_far_as_it_goes(script: Script) -> PickerFor:
    """The same for other programs than the script was made for: it orders what there is to be ordered."""
    return lambda system: AsFarAsItGoes(script, system.machine)


def own_order(chosen: Scenario, setup: Setup, wanted: Asked) -> PickerFor:
    """The order in which that scenario is run when no other is asked for.

    A script was not made for a user's own program, variant or policy, nor for any but those that the scenario
    has an order for: it orders what there is to be ordered.
    """
    order = order_of(chosen, setup)
    own = chosen.build(setup.boot.cpus)
    has_none = order == own.script and _kernel_of(own) != _kernel_of(setup)
    made_for_others = has_none or wanted.program is not None or not wanted.loaded.changes_nothing
    return as_far_as_it_goes(order) if made_for_others else following(order)


def _kernel_of(setup: Setup) -> tuple[str, str]:
    return setup.boot.policy.name, setup.boot.variant.name


def run_and_show(
    console: Console,
    invocation: Invocation,
    setup: Setup,
    picker_for: PickerFor,
    listeners: tuple[Callable[[System], Listener], ...],
    order: Order,
    limits: Limits = NO_LIMITS,
) -> Run:
    """Run the setup, and say what was asked, seen, found, and what it means."""
    chosen, cpus = invocation.scenario, invocation.cpus
    show_question(console, chosen, cpus)
    timelines: list[Timeline] = []
    pages: list[PagesView] = []

    def watch(system: System) -> Listener:
        if chosen.group is Group.REMAP:
            pages.append(PagesView(system, setup.watched, setup.tour))
            return pages[-1]
        timelines.append(Timeline(system))
        return timelines[-1]

    done = run(setup, picker_for, (*listeners, watch), limits)
    for timeline in timelines:
        show_timeline(console, timeline.lines, timeline.actors)
    for view in pages:
        show_phases(console, view.phases)
    show_uses(console, done.uses)
    for finding in done.findings:
        show_finding(console, finding, invocation.replay(done.schedule))
    show_end(console, invocation, done, order)
    return done
