"""The view of the remap scenarios: whose buffers are read, and what the state is called."""

from __future__ import annotations

import pytest

from emu.events import Finished
from hvolab.catalog import scenario
from hvolab.show.pages_view import PagesView
from hvolab.subject.scenario import NO_TOUR, with_program
from kernel_model.boot import boot


def seen(*ended: tuple[int, str]) -> list[str]:
    """The names of the phases after these have ended, on two CPUs whose readers are the scenario's."""
    setup = scenario("remap").build(2)
    view = PagesView(boot(setup.boot), setup.watched, setup.tour)
    for cpu, name in ended:
        view(0, Finished(cpu, name, killed=False))
    return [phase.name for phase in view.phases]


@pytest.mark.parametrize(
    ("ended", "phases"),
    [
        ([(0, "read_tails"), (1, "read_tails")], ["before"]),
        ([(0, "read_tails"), (0, "optimize"), (1, "read_tails")], ["optimized"]),
        ([(0, "read_tails"), (1, "optimize"), (1, "read_tails")], ["before"]),
        ([(0, "read_tails"), (0, "read_tails")], []),
        ([(0, "read_tails"), (1, "write_tail")], []),
        ([(0, "restore"), (1, "read_tails"), (0, "read_tails"), (0, "optimize")], ["restored"]),
    ],
)
def test_only_the_actors_of_the_tour_make_phases(ended: list[tuple[int, str]], phases: list[str]) -> None:
    assert seen(*ended) == phases


def test_the_buffer_of_a_program_of_ones_own_is_not_taken_for_pages_by_its_name() -> None:
    """Nobody knows what it leaves there, whatever it is called."""
    setup = with_program(scenario("remap").build(2), "read_tails", "hlt")
    assert setup.tour == NO_TOUR
