"""The random searches: which schedules each can make, how often, and PCT's promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import exp, lgamma, log, log1p

import pytest
from small_setups import Body, X, Y, loads, note, noted, setup_of

from emu.choice import Step
from emu.cpu.ops import Load, Store
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.search.interface import Freedom
from hvolab.explore.search.randomly import Pct, RandomStrategy, Uniform, UniformWalk
from hvolab.subject.run import run_on
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel, boot

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def steps_of(*counts: int) -> Setup:
    """CPU n makes counts[n] steps that touch one word."""
    return setup_of(*(loads(cpu, *[X] * count) for cpu, count in enumerate(counts)))


def runs_of(setup: Setup, search: RandomStrategy) -> list[tuple[str, tuple[object, ...]]]:
    """Of each run: its picks as letters, and what the CPUs noted."""
    system = boot(setup.boot)
    runs = []
    while search.begin():
        done = run_on(system, setup, lambda _started: search.guide(ALL))
        seen = noted(system.machine)
        search.end(system)
        system.reset()
        letters = "".join("abc"[pick.cpu] for pick in done.schedule.picks if isinstance(pick, Step))
        runs.append((letters, seen))
    return runs


@pytest.mark.parametrize(
    ("counts", "schedules"),
    [
        # 4! / (2! 2!): aabb abab abba baab baba bbaa
        ((2, 2), 6),
        ((3, 2), 10),
        ((4, 1), 5),
        ((2, 1, 1), 12),
        ((1, 1, 1), 6),
    ],
)
@pytest.mark.parametrize("search", [Uniform, UniformWalk])
def test_every_interleaving_counted_by_hand_is_made_and_no_other(
    search: Callable[[int, int], RandomStrategy], counts: tuple[int, ...], schedules: int
) -> None:
    made = Counter(letters for letters, _ in runs_of(steps_of(*counts), search(5, 400)))
    assert len(made) == schedules
    assert all(len(letters) == sum(counts) for letters in made)


@pytest.mark.parametrize(
    ("depth", "made"),
    [
        # d - 1 change points: so many preemptions at most.
        (1, {"aabb", "bbaa"}),
        (2, {"aabb", "bbaa", "abba", "baab"}),
        (3, {"aabb", "bbaa", "abba", "baab", "abab", "baba"}),
    ],
)
def test_pct_makes_the_interleavings_with_fewer_preemptions_than_its_depth(
    depth: int, made: set[str]
) -> None:
    runs = runs_of(steps_of(2, 2), Pct(1, 400, depth, length=4))
    assert {letters for letters, _ in runs} == made


def _log_comb(count: int, chosen: int) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)


def interval(runs: int, probability: float) -> range:
    """The counts that 99 % of all experiments of so many runs have, half a percent left out on each side."""
    low = high = None
    below = 0.0
    for count in range(runs + 1):
        below += exp(_log_comb(runs, count) + count * log(probability) + (runs - count) * log1p(-probability))
        if low is None and below > 0.005:
            low = count
        if high is None and below >= 0.995:
            high = count
    assert low is not None
    assert high is not None
    return range(low, high + 1)


def test_the_interval_is_the_one_of_the_tables() -> None:
    """10 throws of a fair coin: P(0) = 1/1024 and P(1) = 10/1024 are below 0.5 % together, not alone."""
    assert interval(10, 0.5) == range(1, 10)


def test_the_uniform_walk_makes_each_schedule_as_often_as_any_other() -> None:
    """Of 2 + 1 steps: aab aba baa, a third each. Choosing uniformly makes baa in half of the runs."""
    setup = steps_of(2, 1)
    runs = 600
    walked = Counter(letters for letters, _ in runs_of(setup, UniformWalk(3, runs)))
    assert set(walked) == {"aab", "aba", "baa"}
    assert all(count in interval(runs, 1 / 3) for count in walked.values())
    chosen = Counter(letters for letters, _ in runs_of(setup, Uniform(3, runs)))
    assert chosen["baa"] in interval(runs, 1 / 2)
    assert chosen["aab"] in interval(runs, 1 / 4)
    assert chosen["baa"] not in interval(runs, 1 / 3)


# -- PCT's promise: a bug of depth d is met with a probability of at least 1 / (n k^(d-1)) ------------------


def _padded(before: int, body: Body, after: int) -> Body:
    async def padded(kernel: Kernel) -> None:
        for _ in range(before):
            await Load(Y)
        await body(kernel)
        for _ in range(after):
            await Load(Y)

    return padded


async def _nothing(_kernel: Kernel) -> None:
    pass


async def _store(_kernel: Kernel) -> None:
    await Store(X, 1)


async def _store_twice(_kernel: Kernel) -> None:
    await Store(X, 1)
    await Store(X, 2)


async def _load(_kernel: Kernel) -> None:
    await note(0, await Load(X))


async def _load_twice(_kernel: Kernel) -> None:
    await note(0, await Load(X))
    await note(0, await Load(X))


def late(noted: tuple[object, ...]) -> bool:
    """Depth 1: the store comes before the load."""
    return noted == (1,)


def torn(noted: tuple[object, ...]) -> bool:
    """Depth 2: load, store, load. With a second store, which must come after all that, depth 3."""
    return noted == (0, 1)


PROMISES = [
    # name, setup, the bug, n, k, depth, runs
    ("order, 2 threads", (_padded(3, _load, 4), _padded(6, _store, 5)), late, 1, 400),
    ("order, 3 threads", (_padded(0, _load, 5), _padded(7, _store, 2), _padded(9, _store, 0)), late, 1, 400),
    ("atomicity, 2 threads", (_padded(4, _load_twice, 4), _padded(4, _store, 5)), torn, 2, 800),
    (
        "atomicity, 3 threads, 40 steps",
        (_padded(8, _load_twice, 3), _padded(9, _store, 3), _padded(14, _nothing, 0)),
        torn,
        2,
        1000,
    ),
    ("between two, 2 threads", (_padded(1, _load_twice, 1), _padded(1, _store_twice, 1)), torn, 3, 2500),
]


def bodies_length(setup: Setup) -> int:
    """k: the steps of a run."""
    done = explore(setup, Uniform(0, 1), ALL, Budget())
    return done.coverage.longest


@pytest.mark.parametrize(
    ("bodies", "bug", "depth", "runs"), [row[1:] for row in PROMISES], ids=[row[0] for row in PROMISES]
)
def test_pct_meets_a_bug_as_often_as_it_promises(
    bodies: tuple[Body, ...], bug: Callable[[tuple[object, ...]], bool], depth: int, runs: int
) -> None:
    setup = setup_of(*bodies)
    length = bodies_length(setup)
    assert len(bodies) <= 3
    assert length <= 40
    met = sum(bug(noted[0]) for _, noted in runs_of(setup, Pct(7, runs, depth, length)))
    promised = 1 / (len(bodies) * length ** (depth - 1))
    assert met >= interval(runs, promised).start > 0


@pytest.mark.parametrize(
    ("bodies", "bug", "depth"),
    [row[1:4] for row in PROMISES if row[3] > 1],
    ids=[row[0] for row in PROMISES if row[3] > 1],
)
def test_a_bug_is_never_met_with_less_than_its_depth(
    bodies: tuple[Body, ...], bug: Callable[[tuple[object, ...]], bool], depth: int
) -> None:
    """The depths above are what they are said to be."""
    setup = setup_of(*bodies)
    runs = runs_of(setup, Pct(7, 200, depth - 1, bodies_length(setup)))
    assert not any(bug(noted[0]) for _, noted in runs)
