"""Whose an exception is: one that came out of a user's file is told as one line that names file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import CoroutineType, FrameType

from emu.cpu.recall import Recalled
from hvolab.subject.stuck import Stuck

MARK = "__hvolab_loaded__"
"""The global that modules made of a user's file have."""

LONGEST = 300  # characters of what an exception says
_PACKAGES = frozenset({"emu", "firmware", "kernel_model", "hvolab"})


class LoadError(ValueError):
    """A user's file cannot be used, or has failed. One line that names the file."""


NOT_FOUND_AGAIN = (
    "what was found is not found again under its schedule: what your file does depends on something outside "
    "the machine"
)


def blamed(error: BaseException, routine: object = None) -> LoadError | None:
    """What to tell of an exception that a user's file is to blame for; None of any other.

    It is where one of its functions was being run, or had asked for the op that failed: `routine` is the
    kernel routine whose step it was.
    """
    frames = [found for found in _frames(error, routine) if MARK in found[0].f_globals]
    if not frames:
        return None
    frame, line = frames[-1]
    place = f"{Path(frame.f_code.co_filename).name}:{line}, in {frame.f_code.co_name}"
    if isinstance(error, Stuck):
        return LoadError(f"{place}: it goes on and on without making a step")
    return LoadError(f"{place}: {in_a_line(error)}")


def in_a_line(error: BaseException) -> str:
    """Its kind and what it says, as far as that can be had and shown."""
    try:
        said = str(error)
    except Exception:
        said = "(what it says cannot be had)"
    said = "".join(one if one.isprintable() else "?" for one in " ".join(said.split()))
    return f"{type(error).__name__}: {said if len(said) <= LONGEST else said[:LONGEST] + '…'}"


def _frames(error: BaseException, routine: object) -> Iterator[tuple[FrameType, int]]:
    """Outermost first; where the code was when it last awaited comes before what was under way."""
    asked = [*_coroutines(routine)]
    while asked and not _is_ours(asked[-1]) and MARK not in asked[-1].f_globals:
        asked.pop()  # what the user's code calls in turn
    yield from ((frame, frame.f_lineno) for frame in asked[-1:])
    if isinstance(error, Stuck):
        yield from error.places
        return
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame, traceback.tb_lineno
        traceback = traceback.tb_next


def _coroutines(routine: object) -> Iterator[FrameType]:
    """The frames of a suspended routine, outermost first."""
    if isinstance(routine, Recalled):
        routine = routine.caught_up()
    while isinstance(routine, CoroutineType):
        if routine.cr_frame is not None:
            yield routine.cr_frame
        routine = routine.cr_await


def place_in_us(error: BaseException) -> str:
    """Where in this project it was raised, or where the project stood when something else raised it."""
    traceback, found = error.__traceback__, ""
    while traceback is not None:
        if _is_ours(traceback.tb_frame):
            module = traceback.tb_frame.f_globals.get("__name__")
            found = f"{module}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _PACKAGES
