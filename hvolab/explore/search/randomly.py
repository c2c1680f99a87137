"""Random searches: PCT, and uniform choice as a baseline to compare with.

Every run draws from a generator of its own, made from the seed and the run's number.
"""

from __future__ import annotations

from abc import abstractmethod
from random import Random

from emu.choice import Choice, TakeInterrupt
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.search.guide import PointStrategy
from hvolab.explore.search.interface import AnswerPoint, Point, size

_MOST_RUNS = 1 << 40


class RandomStrategy(PointStrategy):
    """`runs` independent runs."""

    def __init__(self, seed: int, runs: int) -> None:
        self._seed = seed
        self._runs = runs
        self._done = 0
        self._random = Random(f"{seed}/0")

    def begin(self) -> bool:
        if self._done == self._runs:
            return False
        self._done += 1
        self._random = Random(f"{self._seed}/{self._done}")
        self.prepare()
        return True

    def prepare(self) -> None:
        """Draw what a run needs before it begins."""

    def extent(self) -> str:
        return f"sampled: {self._runs} runs of {self.kind()}"

    @abstractmethod
    def kind(self) -> str:
        """What kind of run, in words."""

    def save(self) -> Json:
        return {"done": self._done}

    def load(self, place: Place) -> None:
        self._done = place.field("done").integer(0, _MOST_RUNS)


class Uniform(RandomStrategy):
    """Every option equally likely. A baseline: a CPU with few steps is always done first."""

    def choose(self, point: Point) -> int:
        return self._random.randrange(size(point))

    def kind(self) -> str:
        return "uniformly random choice"


class Pct(RandomStrategy):
    """Random priorities with `depth - 1` change points (Burckhardt et al., ASPLOS 2010).

    The run's length, from which the change points are drawn, is that of the longest run so far, or `length`:
    the paper takes it as known. An interrupt has a priority of its own. Answers are uniform.
    """

    def __init__(self, seed: int, runs: int, depth: int, length: int = 1) -> None:
        if depth < 1:
            raise ValueError(f"PCT depth {depth}: want 1 or more")
        super().__init__(seed, runs)
        self._depth = depth
        self._longest = length
        self._step = 0
        self._priority: dict[Choice, float] = {}
        self._change_at: dict[int, int] = {}

    def prepare(self) -> None:
        self._longest = max(self._longest, self._step)
        self._step = 0
        self._priority = {}
        points = (self._random.randint(1, self._longest) for _ in range(self._depth - 1))
        self._change_at = {step: number for number, step in enumerate(points)}

    def choose(self, point: Point) -> int:
        if isinstance(point, AnswerPoint):
            return self._random.randrange(point.options)
        for choice in point.options:
            if choice not in self._priority:
                self._priority[choice] = 1 + self._random.random()
        return max(range(len(point.options)), key=lambda n: self._priority[point.options[n]])

    def stepped(self, choice: Choice) -> None:
        self._step += 1
        if self._step in self._change_at:
            # Below every initial priority; later change points lower than earlier ones need not be.
            self._priority[choice] = self._change_at[self._step] / self._depth

    def kind(self) -> str:
        return f"PCT with depth {self._depth}"

    def save(self) -> Json:
        return {"done": self._done, "longest": max(self._longest, self._step)}

    def load(self, place: Place) -> None:
        super().load(place)
        self._longest = place.field("longest").integer(1, _MOST_RUNS)


class UniformWalk(RandomStrategy):
    """Uniform over schedules rather than over choices: each CPU by the number of steps it still has to make.

    Of the interleavings of sequences of n and m steps, n/(n + m) begin with the first. How many steps each
    has is taken from the longest run so far ("Selectively Uniform Concurrency Testing", ASPLOS 2025, without
    the selection). Answers are uniform.
    """

    def __init__(self, seed: int, runs: int) -> None:
        super().__init__(seed, runs)
        self._expected: dict[str, int] = {}
        self._made: dict[str, int] = {}

    def prepare(self) -> None:
        for who, made in self._made.items():
            self._expected[who] = max(made, self._expected.get(who, 0))
        self._made = {}

    def choose(self, point: Point) -> int:
        if isinstance(point, AnswerPoint):
            return self._random.randrange(point.options)
        names = [_name(choice) for choice in point.options]
        weights = [max(1, self._expected.get(who, 1) - self._made.get(who, 0)) for who in names]
        return self._random.choices(range(len(names)), weights)[0]

    def stepped(self, choice: Choice) -> None:
        who = _name(choice)
        self._made[who] = self._made.get(who, 0) + 1

    def kind(self) -> str:
        return "uniform random walk over schedules"

    def save(self) -> Json:
        self.prepare()
        return {"done": self._done, "expected": dict[str, Json](self._expected)}

    def load(self, place: Place) -> None:
        super().load(place)
        expected = place.field("expected")
        if not isinstance(expected.value, dict):
            raise expected.wanted("an object")
        self._expected = {who: expected.field(who).count() for who in expected.value}


def _name(choice: Choice) -> str:
    return f"{'i' if isinstance(choice, TakeInterrupt) else 's'}{choice.cpu}"
