"""A guard against code that never comes back: a step that goes on and on, without an op, is ended.

Only the main thread of a process can be guarded, and only where signals are: elsewhere nothing happens.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SECONDS = 1.0  # of processor time, without any progress
_TICK = 0.25
_MOST_CAUGHT = 3


class Stuck(BaseException):
    """No progress was made. No Exception, so that no `except Exception` of the code that hangs catches it.

    `places`: the frames and their lines, outermost first, as they were.
    """

    def __init__(self, frame: FrameType | None) -> None:
        super().__init__("it never comes back")
        found = []
        while frame is not None:
            found.append((frame, frame.f_lineno))
            frame = frame.f_back
        self.places = tuple(reversed(found))


@contextmanager
def ended_when_stuck(progress: Callable[[], object]) -> Iterator[None]:
    """While the block runs, raise Stuck in it when `progress()` has given the same for SECONDS."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last, same = progress(), 0

    def tick(_number: int, frame: FrameType | None) -> None:
        nonlocal last, same
        now = progress()
        same = same + 1 if now == last else 0
        last = now
        if same * _TICK >= _MOST_CAUGHT * SECONDS:
            # Whoever hangs catches everything: no exception ends this.
            sys.stderr.write("hvolab: a file named by --load goes on and on, and catches what would end it\n")
            sys.stderr.flush()
            os._exit(2)
        if same * _TICK >= SECONDS:
            raise Stuck(frame)

    before = signal.signal(signal.SIGVTALRM, tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, _TICK, _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
