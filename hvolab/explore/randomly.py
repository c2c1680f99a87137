"""Random searches: PCT, and uniform choice as a baseline to compare with."""

from __future__ import annotations

from random import Random

from emu.choice import Choice
from hvolab.explore.guide import PointSearch
from hvolab.explore.search import AnswerPoint, Point, size


class Uniform(PointSearch):
    """Every option equally likely, `runs` times. A baseline: a CPU with few steps is always done first."""

    def __init__(self, seed: int, runs: int) -> None:
        self._random = Random(seed)
        self._left = self._runs = runs

    def begin(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def choose(self, point: Point) -> int:
        return self._random.randrange(size(point))

    def extent(self) -> str:
        return f"{self._runs} uniformly random runs"


class Pct(PointSearch):
    """Random priorities with `depth - 1` change points (Burckhardt et al., ASPLOS 2010).

    The run's length, from which the change points are drawn, is that of the longest run so far: the paper
    takes it as known. An interrupt has a priority of its own. Answers are uniform.
    """

    def __init__(self, seed: int, runs: int, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"PCT depth {depth}: want 1 or more")
        self._random = Random(seed)
        self._left = self._runs = runs
        self._depth = depth
        self._longest = 1
        self._step = 0
        self._priority: dict[Choice, float] = {}
        self._change_at: dict[int, int] = {}

    def begin(self) -> bool:
        self._longest = max(self._longest, self._step)
        self._left -= 1
        self._step = 0
        self._priority = {}
        points = (self._random.randint(1, self._longest) for _ in range(self._depth - 1))
        self._change_at = {step: number for number, step in enumerate(points)}
        return self._left >= 0

    def choose(self, point: Point) -> int:
        if isinstance(point, AnswerPoint):
            return self._random.randrange(point.options)
        self._step += 1
        for choice in point.options:
            if choice not in self._priority:
                self._priority[choice] = 1 + self._random.random()
        best = max(range(len(point.options)), key=lambda n: self._priority[point.options[n]])
        if self._step in self._change_at:
            # Below every initial priority; later change points lower than earlier ones need not be.
            self._priority[point.options[best]] = self._change_at[self._step] / self._depth
        return best

    def extent(self) -> str:
        return f"{self._runs} runs of PCT with depth {self._depth}"
