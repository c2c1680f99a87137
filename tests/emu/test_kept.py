"""What changes is put to what it was, in the containers that others hold too."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

from emu.kept import Kept


class _Part(Kept):
    kept = ("rows", "count")

    def __init__(self) -> None:
        self.rows = [1]
        self.count = 0


class _Whole(Kept):
    kept = ("words", "queue", "nested", "names", "ordered", "value")
    parts = ("part",)

    def __init__(self) -> None:
        self.words: Counter[str] = Counter(a=1)
        self.queue = deque((1, 2))
        self.nested: dict[str, list[set[int]]] = {"a": [{1}]}
        self.names = {"x"}
        self.ordered: OrderedDict[str, int] = OrderedDict(a=1, b=2)
        self.value: object = ("any", 1)
        self.part = _Part()

    def all(self) -> tuple[object, ...]:
        nested = {name: [set(one) for one in rows] for name, rows in self.nested.items()}
        held = (dict(self.words), list(self.queue), nested, set(self.names), list(self.ordered), self.value)
        return (*held, list(self.part.rows), self.part.count)


def change(whole: _Whole) -> None:
    whole.words["a"] += 4
    whole.words["b"] = 1
    whole.queue.popleft()
    whole.nested["a"][0].add(2)
    whole.nested["a"].append({3})
    whole.nested["b"] = []
    whole.names.clear()
    whole.ordered.move_to_end("a")
    whole.value = "another"
    whole.part.rows.append(2)
    whole.part.count = 5


def test_any_number_of_times_it_comes_back_to_the_same() -> None:
    whole = _Whole()
    mark, before = whole.mark(), whole.all()
    for _ in range(3):
        change(whole)
        assert whole.all() != before
        whole.back(mark)
        assert whole.all() == before


def test_who_holds_a_container_sees_it_put_back() -> None:
    whole = _Whole()
    words, rows = whole.words, whole.part.rows
    mark = whole.mark()
    change(whole)
    whole.back(mark)
    assert (whole.words is words, whole.part.rows is rows) == (True, True)
    assert (dict(words), rows) == ({"a": 1}, [1])


def test_a_container_that_took_the_place_of_a_value_or_of_none_is_put_back_too() -> None:
    whole = _Whole()
    mark = whole.mark()
    whole.value = [1, 2]
    whole.back(mark)
    assert whole.value == ("any", 1)
    whole.value = [1]
    mark = whole.mark()
    whole.value = None
    whole.back(mark)
    assert whole.value == [1]
