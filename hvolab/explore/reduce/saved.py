"""Footprints and choices as JSON values, for checkpoints, and back again.

What is read back is checked as it is read: `Place` raises an error of one line that says where it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from emu.choice import Choice, Step, TakeInterrupt
from emu.cpu.condition import Word
from emu.machine import MOST_CPUS
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place
from hvolab.explore.footprint.conflict import Footprint
from hvolab.judge.sight.resource import CellName, Kind, Resource, Touched

_LARGEST = 1 << 62
_KINDS = {int(kind): kind for kind in Kind}


def save_footprint(footprint: Footprint) -> Json:
    return [_save_touched(footprint.reads), _save_touched(footprint.writes), _save_touched(footprint.marks)]


def load_footprint(place: Place) -> Footprint:
    sets = place.items()
    if len(sets) != 3:
        raise place.wanted("three lists")
    reads, writes, marks = (frozenset(_load_touched(one) for one in some.items()) for some in sets)
    return Footprint(reads, writes, marks)


def save_by_process(footprints: Mapping[int, Footprint]) -> Json:
    return [[process, save_footprint(footprint)] for process, footprint in sorted(footprints.items())]


def load_by_process(place: Place) -> dict[int, Footprint]:
    found = {}
    for row in place.items():
        process, footprint = _pair(row)
        found[load_process(process)] = load_footprint(footprint)
    return found


def save_choices(choices: Mapping[int, Choice]) -> Json:
    return [
        [process, f"{'i' if isinstance(choice, TakeInterrupt) else 's'}{choice.cpu}"]
        for process, choice in sorted(choices.items())
    ]


def load_choices(place: Place) -> dict[int, Choice]:
    found: dict[int, Choice] = {}
    for row in place.items():
        process, choice = _pair(row)
        text = choice.text()
        if not text[1:].isdecimal() or text[0] not in "si" or int(text[1:]) >= MOST_CPUS:
            raise choice.wanted('a choice like "s0" or "i1"')
        cpu = int(text[1:])
        found[load_process(process)] = Step(cpu) if text[0] == "s" else TakeInterrupt(cpu)
    return found


def load_process(place: Place) -> int:
    return place.integer(0, 2 * MOST_CPUS)


def _pair(place: Place) -> tuple[Place, Place]:
    both = place.items()
    if len(both) != 2:
        raise place.wanted("a pair")
    return both[0], both[1]


def _save_touched(some: Iterable[Touched]) -> Json:
    return sorted((_save_one(touched) for touched in some), key=str)


def _save_one(touched: Touched) -> Json:
    match touched:
        case Resource(kind=kind, a=a, b=b):
            return [int(kind), a, b]
        case CellName(judge=judge, a=a, b=b):
            return [judge, a, b]
        case Word(name=name, index=index):
            return [name, index]
        case int():
            return touched
        case _:
            assert_never(touched)


def _load_touched(place: Place) -> Touched:
    if isinstance(place.value, int):
        return place.integer(0, _LARGEST)
    parts = place.items()
    if len(parts) == 2:
        return Word(parts[0].text(), parts[1].integer(0, _LARGEST))
    if len(parts) != 3:
        raise place.wanted("a resource")
    a, b = (part.integer(-_LARGEST, _LARGEST) for part in parts[1:])
    if isinstance(parts[0].value, str):
        return CellName(parts[0].text(), a, b)
    kind = _KINDS.get(parts[0].integer(0, _LARGEST))
    if kind is None:
        raise parts[0].wanted("a kind of resource")
    return Resource(kind, a, b)
