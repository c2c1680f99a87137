"""LRU sets, hit for hit, against a model of a few lines."""

from __future__ import annotations

from geometry_probe import Probe, array
from hypothesis import given, settings
from hypothesis import strategies as st
from property_settings import PROPERTY


class NaiveSet:
    """Pages, least recently used first."""

    def __init__(self, ways: int) -> None:
        self.ways = ways
        self.pages: list[int] = []

    def has(self, page: int) -> bool:
        if page not in self.pages:
            return False
        self.pages = [one for one in self.pages if one != page] + [page]
        return True

    def put(self, page: int) -> None:
        self.pages = ([one for one in self.pages if one != page] + [page])[-self.ways :]

    def drop(self, page: int) -> None:
        self.pages = [one for one in self.pages if one != page]


class NaiveTlb:
    """Two levels of sets, written out as directly as possible."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        self.levels = [[NaiveSet(ways) for _ in range(sets)] for sets, ways in shapes]

    def look(self, page: int) -> bool:
        for depth, level in enumerate(self.levels):
            if level[page % len(level)].has(page):
                for above in self.levels[:depth]:
                    above[page % len(above)].put(page)
                return True
        for level in self.levels:
            level[page % len(level)].put(page)
        return False

    def drop(self, page: int) -> None:
        for level in self.levels:
            level[page % len(level)].drop(page)

    def held(self) -> set[int]:
        return {page for level in self.levels for one in level for page in one.pages}


STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(("look", "look", "look", "drop"))), max_size=60
)
SHAPES = st.lists(st.tuples(st.sampled_from((1, 2, 3, 4)), st.integers(1, 4)), min_size=1, max_size=2)


@settings(PROPERTY, max_examples=300)
@given(SHAPES, STEPS)
def test_lru_sets_hit_and_hold_as_in_the_naive_model(
    shapes: list[tuple[int, int]], steps: list[tuple[int, str]]
) -> None:
    probe = Probe(*(array(level + 1, sets, ways) for level, (sets, ways) in enumerate(shapes)))
    naive = NaiveTlb(shapes)
    for page, verb in steps:
        if verb == "drop":
            probe.drop(page)
            naive.drop(page)
        else:
            assert probe.look(page) == naive.look(page)
        assert probe.held() == naive.held()
