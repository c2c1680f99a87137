"""Checkpoints and several processes: an exploration that is cut in pieces finds what it finds in one go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from exploring import ALL, keys, setup_of

from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import Checkpoint, CheckpointError
from hvolab.explore.coverage import Coverage
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.search.depth_first import Deepening, DepthFirst
from hvolab.explore.search.portfolio import Portfolio
from hvolab.explore.search.randomly import Pct, Uniform, UniformWalk
from hvolab.explore.states.visits import NO_STATES

IDENTITY = {"setup": "1a2b3c4d", "search": "exhaustive"}
SEARCHES = {
    "reduced": lambda: Reduced(remembers=NO_STATES),
    "unreduced": lambda: DepthFirst(Preemptions(0)),
    "bounded": lambda: Deepening(Delays(1)),
    "pct": lambda: Pct(1, 12, 3),
    "walk": lambda: UniformWalk(1, 12),
    "portfolio": lambda: Portfolio((Reduced(remembers=NO_STATES), Pct(1, 5, 2), Uniform(1, 100))),
    "uniform": lambda: Uniform(1, 12),
}


def counted(coverage: Coverage) -> Coverage:
    """All but the time taken, what was gone back over, and how far runs came that were given up.

    After a pause a run begins at time zero, and what steps are private is learned anew.
    """
    return replace(coverage, seconds=0.0, saved=0, steps=0, redundant=0, stopped_by=None)


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_an_exploration_stopped_after_every_third_run_ends_as_one_in_one_go(
    name: str, tmp_path: Path
) -> None:
    setup = setup_of("tail-write")
    whole = explore(setup, SEARCHES[name](), ALL, Budget())
    for runs in range(3, 100, 3):
        checkpoint = Checkpoint(tmp_path / "state", IDENTITY)
        part = explore(setup, SEARCHES[name](), ALL, Budget(runs=runs), checkpoint=checkpoint)
        if part.coverage.stopped_by is None:
            break
    assert part.coverage.stopped_by is None
    if name != "portfolio":  # of its parts that take turns the reduced one needs more
        assert counted(part.coverage) == counted(whole.coverage)
    assert part.found == whole.found


def test_states_are_met_anew_after_a_checkpoint(tmp_path: Path) -> None:
    """What lay behind those of the path is not known any more, and is explored again."""
    setup = setup_of("tail-write")
    whole = explore(setup, Reduced(), ALL, Budget())
    explore(setup, Reduced(), ALL, Budget(runs=3), checkpoint=Checkpoint(tmp_path / "state", IDENTITY))
    rest = explore(setup, Reduced(), ALL, Budget(), checkpoint=Checkpoint(tmp_path / "state", IDENTITY))
    assert rest.coverage.complete
    assert keys(rest) == keys(whole)
    assert rest.coverage.distinct_states == whole.coverage.distinct_states


def test_a_finding_of_a_run_that_was_cut_off_is_no_damage(tmp_path: Path) -> None:
    """It is kept as a schedule, and that ends where the run was."""
    setup, budget = setup_of("tail-write"), Budget(steps=300)
    first = explore(setup, Reduced(), ALL, budget, checkpoint=Checkpoint(tmp_path / "state", IDENTITY))
    assert [one.schedule.cut for one in first.found] == [True]
    again = explore(setup, Reduced(), ALL, budget, checkpoint=Checkpoint(tmp_path / "state", IDENTITY))
    assert again.found == first.found


def test_a_run_that_the_time_cut_off_is_made_again(tmp_path: Path) -> None:
    """Otherwise no checkpoint that was ever stopped by the time comes to its end."""
    setup, path = setup_of("tail-write"), tmp_path / "state"
    search = SEARCHES["reduced"]
    whole = explore(setup, search(), ALL, Budget())
    explore(setup, search(), ALL, Budget(runs=2), checkpoint=Checkpoint(path, IDENTITY))
    stopped = explore(setup, search(), ALL, Budget(seconds=0.0), checkpoint=Checkpoint(path, IDENTITY))
    assert stopped.coverage.cut_off == 1
    again = explore(setup, search(), ALL, Budget(), checkpoint=Checkpoint(path, IDENTITY))
    assert counted(again.coverage) == counted(whole.coverage)
    assert again.found == whole.found


def test_a_finished_exploration_is_not_made_again(tmp_path: Path) -> None:
    setup = setup_of("tail-write")
    checkpoint = Checkpoint(tmp_path / "state", IDENTITY)
    first = explore(setup, Reduced(), ALL, Budget(), checkpoint=checkpoint)

    def never(runs: int, found: int) -> None:
        raise AssertionError("a run was made")

    again = explore(setup, Reduced(), ALL, Budget(), never, Checkpoint(tmp_path / "state", IDENTITY))
    assert again.found == first.found
    assert counted(again.coverage) == counted(first.coverage)


def damage(text: str, how: str) -> str:
    state = json.loads(text)
    match how:
        case "cut short":
            return text[: len(text) // 2]
        case "no schema":
            del state["schema"]
        case "another schema":
            state["schema"] = 99
        case "a node is missing its process":
            del state["state"]["search"]["nodes"][0]["current"]
        case "a process that is not enabled":
            state["state"]["search"]["nodes"][0]["to_try"] = [77]
        case "a schedule that shows nothing":
            state["state"]["found"][0]["schedule"] = "v2 0"
        case "a number is a text":
            state["state"]["tally"]["runs"] = "many"
        case "an unknown kind of resource":
            state["state"]["search"]["nodes"][0]["footprint"] = [[[99, 0, 0]], [], []]
        case "not an object":
            return "[]"
    return json.dumps(state)


@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "no schema",
        "another schema",
        "a node is missing its process",
        "a process that is not enabled",
        "a schedule that shows nothing",
        "a number is a text",
        "an unknown kind of resource",
        "not an object",
    ],
)
def test_a_damaged_checkpoint_is_one_clear_line(how: str, tmp_path: Path) -> None:
    setup = setup_of("tail-write")
    path = tmp_path / "state"
    explore(setup, Reduced(), ALL, Budget(runs=4), checkpoint=Checkpoint(path, IDENTITY))
    path.write_text(damage(path.read_text(), how))
    with pytest.raises(CheckpointError) as raised:
        explore(setup, Reduced(), ALL, Budget(), checkpoint=Checkpoint(path, IDENTITY))
    assert str(raised.value).startswith("damaged checkpoint: ")
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 500


def test_a_checkpoint_of_another_exploration_is_refused(tmp_path: Path) -> None:
    setup = setup_of("tail-write")
    path = tmp_path / "state"
    explore(setup, Reduced(), ALL, Budget(runs=2), checkpoint=Checkpoint(path, IDENTITY))
    with pytest.raises(CheckpointError, match="is the checkpoint of another exploration: search is"):
        Checkpoint(path, {**IDENTITY, "search": "pct"}).load()


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^cannot write .*: No such file or directory$"):
        Checkpoint(tmp_path / "nowhere" / "state", IDENTITY).save({})


PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent / "helpers")]
from test_checkpoint import ALL, IDENTITY, setup_of
from hvolab.explore.search.bounds import Delays, Preemptions
from hvolab.explore.audience import Silent
from hvolab.explore.budget import Budget
from hvolab.explore.checkpoint import Checkpoint
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.explorer import explore

class Telling(Silent):
    def ran(self, runs, found):
        print(runs, found, flush=True)

checkpoint = Checkpoint(Path(sys.argv[1]), IDENTITY)
done = explore(setup_of("use-after-free"), Reduced(), ALL, Budget(), Telling(), checkpoint)
print("stopped by", done.coverage.stopped_by, flush=True)
"""


def killed(path: Path, after_runs: int, number: int) -> tuple[int, str]:
    """Explore in a process of its own and send it a signal after so many runs: findings told, last line."""
    words = [sys.executable, "-c", PROGRAM, str(path), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stdout is not None
        told, last = 0, ""
        for line in process.stdout:
            last = line
            if line.startswith("stopped"):
                break
            runs, told = map(int, line.split())
            if runs == after_runs:
                process.send_signal(number)
                after_runs = -1
                if number == signal.SIGKILL:
                    break
        process.wait(timeout=60)
    return told, last


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_signal_loses_no_finding_that_was_told_and_the_checkpoint_resumes(
    number: signal.Signals, tmp_path: Path
) -> None:
    whole = explore(setup_of("use-after-free"), Reduced(), ALL, Budget())
    path = tmp_path / "state"
    for after_runs in (3, 7, 12):
        told, last = killed(path, after_runs, number)
        if number == signal.SIGINT:
            assert last == "stopped by an interrupt\n"
        saved = json.loads(path.read_text())["state"]["found"]
        assert len(saved) >= told
    done = explore(
        setup_of("use-after-free"), Reduced(), ALL, Budget(), checkpoint=Checkpoint(path, IDENTITY)
    )
    assert done.coverage.stopped_by is None
    assert keys(done) == keys(whole)
