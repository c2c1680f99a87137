"""The pytest plugin: fixtures, and replay from pytest's own command line.

    def test_my_patch(hvolab_safe):
        hvolab_safe("flush-reader", load_file="mine.py:Patch")

    def test_what_it_finds(hvolab_subject, hvolab_explore):
        done = hvolab_explore(hvolab_subject("flush-reader", load_file="mine.py:Patch"))
        assert done.coverage.complete

`--hvolab-seconds N` bounds each exploration; `--hvolab-schedule TEXT` follows that one schedule, as a replay
line has it, instead of exploring. The marker `hvolab(strategy, runs)` explores under a strategy of `hvolab
explore`. Nothing of hvolab is imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hvolab.explore.explorer import Exploration
    from hvolab.explore.search.interface import Strategy
    from hvolab.subject.outcome import Run
    from hvolab.testing import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hvolab", "explorations of hvolab")
    group.addoption(
        "--hvolab-seconds", type=_seconds, default=60.0, help="Budget of each exploration, in seconds."
    )
    group.addoption("--hvolab-schedule", default="", help="Follow this schedule instead of exploring.")


def _seconds(text: str) -> float:
    """Raises ValueError, which is told as a slip in the option."""
    seconds = float(text)
    if not seconds > 0:
        raise ValueError(text)
    return seconds


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "hvolab(strategy, runs=1000, seed=0): explore with pct, walk or uniform instead of all orders",
    )


@pytest.fixture
def hvolab_safe(request: pytest.FixtureRequest) -> Callable[..., Exploration | Run]:
    """`hvolab.testing.assert_safe`, with what pytest's command line and the test's marker say."""
    from hvolab.explore.budget import Budget
    from hvolab.testing import assert_replayed, assert_safe

    seconds: float = request.config.getoption("--hvolab-seconds")
    schedule: str = request.config.getoption("--hvolab-schedule")
    marker = request.node.get_closest_marker("hvolab")

    def safe(scenario: Any, **how: Any) -> Exploration | Run:
        __tracebackhide__ = True
        if schedule:
            return assert_replayed(scenario, schedule, **how)
        if marker is not None:
            try:
                how.setdefault("strategy", _strategy(*marker.args, **marker.kwargs))
            except TypeError:
                raise pytest.UsageError("the marker is hvolab(strategy, runs=1000, seed=0)") from None
        how.setdefault("budget", Budget(seconds=seconds))
        return assert_safe(scenario, **how)

    return safe


@pytest.fixture
def hvolab_subject() -> Callable[..., Subject]:
    """`hvolab.testing.subject_of`: what a scenario's name, a file of one's own and choices make."""
    from hvolab.testing import subject_of

    return subject_of


@pytest.fixture
def hvolab_explore(request: pytest.FixtureRequest) -> Callable[[Subject], Exploration]:
    """Explores a subject in every order that can matter, within `--hvolab-seconds`; asserts nothing."""
    from hvolab.explore.budget import Budget
    from hvolab.explore.explorer import explore
    from hvolab.explore.reduce.dpor import Reduced
    from hvolab.testing import FREEDOMS

    seconds: float = request.config.getoption("--hvolab-seconds")
    return lambda subject: explore(subject.setup, Reduced(), FREEDOMS, Budget(seconds=seconds))


def _strategy(strategy: str, runs: int = 1000, seed: int = 0) -> Strategy:
    """Raises UsageError for a strategy that there is not, or that makes no run."""
    from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk

    made: dict[str, Callable[[], Strategy]] = {
        "pct": lambda: Pct(seed, runs, 3),
        "walk": lambda: UniformWalk(seed, runs),
        "uniform": lambda: Uniform(seed, runs),
    }
    if runs < 1:
        raise pytest.UsageError(f"the marker hvolab asks for {runs} runs: want 1 or more")
    if strategy not in made:
        raise pytest.UsageError(f"the marker hvolab names {strategy!r}: want pct, walk or uniform")
    return made[strategy]()
