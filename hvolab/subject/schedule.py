"""A schedule: the list of everything that was picked in a run, as a value with a text form.

    v2 @1a2b3c4d 0*12 i1 1*3 t0/2 d1/2

`v2` names the format. `@` and 8 hexadecimal digits: the fingerprint of the setup it was made from
(`hvolab.subject.fingerprint`), if it is known. `N*k`: CPU N steps k times. `iN`: CPU N takes an interrupt.
`tP/O`: of O ways to translate (older versions, dead ends, the walk), number P is used.
`dP/O`: a decision comes out as P of O. `cut`, at the end: there the run was cut off, by a budget of steps or
of time.
`parse(str(s)) == s`, always. `v1`, which had no fingerprints, is still read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias, assert_never

from emu.choice import Choice, DecideQuestion, Question, Step, TakeInterrupt, VersionQuestion
from emu.machine import MOST_CPUS

FORMAT = "v2"
FORMAT_WITHOUT_FINGERPRINT = "v1"
CUT = "cut"
FINGERPRINT_DIGITS = 8
LONGEST_TEXT = 1 << 22
MOST_PICKS = 1 << 24


class ScheduleError(ValueError):
    """A schedule's text is not one, or a run cannot follow it."""


@dataclass(frozen=True, slots=True)
class VersionPick:
    """Of `options` versions of a translation, `pick` was used."""

    pick: int
    options: int

    def __str__(self) -> str:
        return f"t{self.pick}/{self.options}"


@dataclass(frozen=True, slots=True)
class DecidePick:
    """Of `options` outcomes, `pick` came out."""

    pick: int
    options: int

    def __str__(self) -> str:
        return f"d{self.pick}/{self.options}"


Answer: TypeAlias = VersionPick | DecidePick
Pick: TypeAlias = Choice | Answer


def answer_to(question: Question, pick: int) -> Answer:
    """The pick that records an answer."""
    match question:
        case VersionQuestion(options=options):
            return VersionPick(pick, options)
        case DecideQuestion(options=options):
            return DecidePick(pick, options)
        case _:
            assert_never(question)


_DIGITS = re.compile(rf"[0-9a-f]{{{FINGERPRINT_DIGITS}}}")
_WHAT_A_FINGERPRINT_IS = f"{FINGERPRINT_DIGITS} digits, 0-9 or a-f"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Picks in the order they were made. `fingerprint`: of the setup they were made on, None if not known.

    `cut`: the run went on no further than this, though it could have.
    Raises ValueError for a fingerprint that is none.
    """

    picks: tuple[Pick, ...]
    fingerprint: str | None = None
    cut: bool = False

    def __post_init__(self) -> None:
        if self.fingerprint is not None and not _DIGITS.fullmatch(self.fingerprint):
            raise ValueError(f"{self.fingerprint!r} is no fingerprint: {_WHAT_A_FINGERPRINT_IS}")

    def __str__(self) -> str:
        words = [FORMAT] if self.fingerprint is None else [FORMAT, f"@{self.fingerprint}"]
        for pick, run in groupby(self.picks):
            count = sum(1 for _ in run)
            match pick:
                case Step(cpu=cpu):
                    words.append(f"{cpu}*{count}" if count > 1 else f"{cpu}")
                case TakeInterrupt(cpu=cpu):
                    words += [f"i{cpu}"] * count
                case VersionPick() | DecidePick():
                    words += [str(pick)] * count
                case _:
                    assert_never(pick)
        return " ".join([*words, CUT] if self.cut else words)


_STEPS = re.compile(r"([0-9]{1,3})(?:\*([0-9]{1,8}))?")
_INTERRUPT = re.compile(r"i([0-9]{1,3})")
_ANSWER = re.compile(r"([td])([0-9]{1,6})/([0-9]{1,6})")


def parse(text: str) -> Schedule:
    """The schedule of a text. Raises ScheduleError naming the word that is wrong and its place."""
    if len(text) > LONGEST_TEXT:
        raise ScheduleError(f"schedule text of {len(text)} characters; at most {LONGEST_TEXT} are read")
    words = text.split()
    if not words:
        raise ScheduleError("the schedule is empty")
    if words[0] not in (FORMAT, FORMAT_WITHOUT_FINGERPRINT):
        known = f"{FORMAT!r} (or {FORMAT_WITHOUT_FINGERPRINT!r})"
        raise ScheduleError(f"a schedule begins with {known}, this one with {_brief(words[0])}")
    fingerprint = _parse_fingerprint(words)
    first = 1 if fingerprint is None else 2
    picks: list[Pick] = []
    cut = words[-1] == CUT
    for number, word in enumerate(words[first : len(words) - cut], start=first + 1):
        found = _parse_word(word)
        if found is None:
            raise ScheduleError(f"word {number} of the schedule is not a pick: {_brief(word)}")
        picks += found
        if len(picks) > MOST_PICKS:
            raise ScheduleError(f"more than {MOST_PICKS} picks at word {number} of the schedule")
    return Schedule(tuple(picks), fingerprint, cut)


def _parse_fingerprint(words: list[str]) -> str | None:
    if words[0] != FORMAT or len(words) == 1 or not words[1].startswith("@"):
        return None
    digits = words[1][1:]
    if not _DIGITS.fullmatch(digits):
        is_not = f"is not a fingerprint, @ and {_WHAT_A_FINGERPRINT_IS}"
        raise ScheduleError(f"word 2 of the schedule {is_not}: {_brief(words[1])}")
    return digits


def _brief(word: str) -> str:
    """A word of a text that may be anything, fit for a message."""
    return repr(word if len(word) <= 40 else word[:40] + "...")


def _parse_word(word: str) -> list[Pick] | None:
    if steps := _STEPS.fullmatch(word):
        cpu, count = int(steps[1]), int(steps[2] or 1)
        return [Step(cpu)] * count if cpu < MOST_CPUS and 1 <= count <= MOST_PICKS else None
    if interrupt := _INTERRUPT.fullmatch(word):
        return [TakeInterrupt(int(interrupt[1]))] if int(interrupt[1]) < MOST_CPUS else None
    if answer := _ANSWER.fullmatch(word):
        pick, options = int(answer[2]), int(answer[3])
        if pick >= options:
            return None
        return [VersionPick(pick, options) if answer[1] == "t" else DecidePick(pick, options)]
    return None
