"""The same schedule gives the same run: event by event, byte by byte, process after process.

Nothing but the schedule may matter: not the hash seed of the interpreter, not who listens, not whether the
system was booted or put back to time zero.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from large_runs import LARGE_RUNS

from emu.addr import VirtAddr
from emu.choice import Question, Step, TakeInterrupt, VersionQuestion
from emu.events import MachineEvent
from emu.paging.models import LAZY, MODELS, CpuModel
from hvolab.catalog import SCENARIOS, scenario
from hvolab.explore.search.guide import Guide
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Uniform
from hvolab.subject.outcome import Run
from hvolab.subject.pattern import BeginsFlush, Loads
from hvolab.subject.picker import InOrder, Replay
from hvolab.subject.run import collect, run, run_on
from hvolab.subject.scenario import GuestActor, Scenario, Setup, start_actors
from hvolab.subject.script import ScriptPicker, ToEnd, Until
from kernel_model.boot import PoolAtBoot, System, boot

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-c", "from hvolab.command.main import main; main()")
QUICK = tuple(chosen.name for chosen in SCENARIOS if chosen.name not in LARGE_RUNS)


def own_run(setup: Setup, events: list[tuple[int, MachineEvent]]) -> Run:
    return run(setup, lambda system: ScriptPicker(setup.script, system.machine), (collect(events),))


def at_random(seed: int) -> Guide:
    """Any order, any interrupt, any version of a translation."""
    return Guide(Uniform(seed, 1), frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB}))


def in_a_process(hash_seed: int, *arguments: str) -> int:
    """The exit status of the command, run in a process with that hash seed."""
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.stderr == b""
    return done.returncode


# --- across processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cpus", "status"),
    [("missed-cpu", 5, 1), pytest.param("spurious-write", 3, 0, marks=pytest.mark.slow)],
)
def test_two_processes_write_the_same_trace(name: str, cpus: int, status: int, tmp_path: Path) -> None:
    setup = scenario(name).build(cpus)
    schedule = str(own_run(setup, []).schedule)
    traces = [tmp_path / f"{hash_seed}.jsonl" for hash_seed in (1, 4242)]
    for hash_seed, trace in zip((1, 4242), traces, strict=True):
        arguments = (
            "run",
            name,
            "--cpus",
            str(cpus),
            "--schedule",
            schedule,
            "--trace",
            str(trace),
            "--json",
        )
        assert in_a_process(hash_seed, *arguments) == status
    first, second = (trace.read_bytes() for trace in traces)
    assert first.count(b"\n") > 300
    assert first == second


def test_a_scenarios_own_order_is_the_same_in_every_process(tmp_path: Path) -> None:
    traces = [tmp_path / f"{hash_seed}.jsonl" for hash_seed in (7, 8)]
    for hash_seed, trace in zip((7, 8), traces, strict=True):
        assert in_a_process(hash_seed, "run", "flush-begun-before", "--cpus", "5", "--trace", str(trace)) == 0
    assert traces[0].read_bytes() == traces[1].read_bytes()


@pytest.mark.slow
def test_a_seed_is_the_same_run_in_every_process(tmp_path: Path) -> None:
    traces = [tmp_path / f"{hash_seed}.jsonl" for hash_seed in (0, 99)]
    for hash_seed, trace in zip((0, 99), traces, strict=True):
        in_a_process(hash_seed, "run", "stale-read", "--cpus", "3", "--seed", "3", "--trace", str(trace))
    assert traces[0].read_bytes() == traces[1].read_bytes() != b""


# --- event by event -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_a_replay_gives_the_events_of_the_script(name: str) -> None:
    setup = scenario(name).build(3)
    events: list[tuple[int, MachineEvent]] = []
    replayed: list[tuple[int, MachineEvent]] = []
    first = own_run(setup, events)
    run(setup, lambda _system: Replay(first.schedule), (collect(replayed),))
    assert replayed == events


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_replay_on_every_cpu_model(model: CpuModel) -> None:
    """At random, which also draws which version of a translation a lazy TLB uses."""
    setup = scenario("stale-read").build(3)
    setup = replace(setup, boot=replace(setup.boot, model=model))
    for seed in range(3):
        events: list[tuple[int, MachineEvent]] = []
        replayed: list[tuple[int, MachineEvent]] = []
        first = run(setup, lambda _system, seed=seed: at_random(seed), (collect(events),))
        run(setup, lambda _system, first=first: Replay(first.schedule), (collect(replayed),))
        assert replayed == events


# --- with and without listeners -------------------------------------------------------------------------


def numbers_after_each_step(setup: Setup, first: Run, listen: bool) -> list[int]:
    """The next event's number after every step of a schedule, on a machine of its own."""
    system = boot(setup.boot)
    machine = system.machine
    heard: list[int] = []
    if listen:
        machine.trace.listen(lambda number, _event: heard.append(number))
    start_actors(setup, system)
    replay = Replay(first.schedule)
    numbers = [machine.trace.next_number]
    while enabled := machine.enabled():
        machine.perform(replay.pick(enabled), replay)
        numbers.append(machine.trace.next_number)
    replay.finish()
    assert heard == (list(range(numbers[-1])) if listen else [])
    return numbers


@pytest.mark.parametrize("name", QUICK)
def test_events_have_the_same_numbers_whoever_listens(name: str) -> None:
    setup = scenario(name).build(3)
    first = own_run(setup, [])
    unheard = numbers_after_each_step(setup, first, listen=False)
    assert unheard == numbers_after_each_step(setup, first, listen=True)
    assert unheard[-1] == first.events
    steps = [pick for pick in first.schedule.picks if isinstance(pick, Step | TakeInterrupt)]
    assert len(unheard) == len(steps) + 1


# --- back at time zero ----------------------------------------------------------------------------------


def follow(system: System, setup: Setup, seed: int) -> list[tuple[int, MachineEvent]]:
    """The events of a seed's run on a system at time zero."""
    events: list[tuple[int, MachineEvent]] = []
    machine = system.machine
    machine.trace.listen(lambda number, event: events.append((number, event)))
    start_actors(setup, system)
    picker = at_random(seed)
    while enabled := machine.enabled():
        machine.perform(picker.pick(enabled), picker)
    return events


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("name", ["stale-read", "spurious-write"])
def test_a_system_put_back_to_time_zero_is_one_just_booted(name: str, model: CpuModel) -> None:
    setup = scenario(name).build(2)
    setup = replace(setup, boot=replace(setup.boot, model=model))
    system = boot(setup.boot)
    for seed in (5, 6):
        booted = follow(boot(setup.boot), setup, seed)
        assert follow(system, setup, seed) == booted
        system.reset()


def test_the_window_of_a_lazy_tlb_begins_at_time_zero() -> None:
    """After a split and before its flush a CPU may still use the 2 MiB entry it could have cached at boot."""
    base = scenario("stale-read").build(2)
    reader = base.actors[1]
    assert isinstance(reader, GuestActor)
    word = VirtAddr(reader.arguments[0][1])
    script = (Until(1, Loads(word)), Until(0, BeginsFlush()), ToEnd(1), ToEnd(0))
    setup = replace(base, script=script, boot=replace(base.boot, model=LAZY))
    asked: list[list[str]] = []

    class Asked(ScriptPicker):
        def answer(self, question: Question) -> int:
            if isinstance(question, VersionQuestion) and question.cpu == 1:
                asked.append([str(entry.size) for entry in question.entries])
            return super().answer(question)

    run(setup, lambda system: Asked(script, system.machine))
    assert asked == [["2M"]]


# --- runs do not touch each other -----------------------------------------------------------------------


def test_runs_of_different_scenarios_leave_no_trace_in_each_other() -> None:
    def numbered(name: str) -> list[tuple[int, MachineEvent]]:
        events: list[tuple[int, MachineEvent]] = []
        own_run(scenario(name).build(2), events)
        return events

    first = numbered("stale-read")
    for other in ("missed-cpu", "remap", "use-after-free"):
        numbered(other)
    assert numbered("stale-read") == first


def test_a_setup_is_a_value_that_a_run_does_not_change() -> None:
    setup = scenario("spurious-write").build(2)
    first: list[tuple[int, MachineEvent]] = []
    second: list[tuple[int, MachineEvent]] = []
    builds: Callable[[int], Setup] = scenario("spurious-write").build
    own_run(setup, first)
    own_run(setup, second)
    assert first == second
    assert (setup.boot, setup.script, setup.watched) == (builds(2).boot, builds(2).script, builds(2).watched)


POOLED = [
    chosen for chosen in SCENARIOS if chosen.build(max(2, chosen.cpus_min)).boot.pool is PoolAtBoot.POOLED
]


@pytest.mark.parametrize("chosen", POOLED, ids=lambda chosen: chosen.name)
def test_what_happened_before_time_zero_makes_the_first_run_no_other_than_the_second(
    chosen: Scenario,
) -> None:
    """Interrupts sent while the pool was filled once counted in the first run, and not after a reset."""
    setup = chosen.build(max(2, chosen.cpus_min))
    system = boot(setup.boot)
    runs: list[list[tuple[int, MachineEvent]]] = []
    for _ in range(2):
        events: list[tuple[int, MachineEvent]] = []
        run_on(system, setup, lambda _system: InOrder(), (collect(events),))
        runs.append(events)
        system.reset()
    assert runs[0] == runs[1] != []
