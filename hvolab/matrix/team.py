"""Cells by several processes: one is forked for each, so many at a time, and sends back what it came to."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import TypeAlias

from hvolab.explore.interrupts import CtrlC
from hvolab.explore.parallel import WorkerDied
from hvolab.matrix.cell import CellDone
from hvolab.matrix.results import ResultsError

Explores: TypeAlias = Callable[[], CellDone | None]
"""Explores one cell; None where an interrupt came. Raises ResultsError."""

_LOOK = 0.2  # seconds between two looks whether an interrupt has come


def by_one(cells: Sequence[Explores], interrupts: CtrlC) -> Iterator[tuple[int, CellDone]]:
    """In order, in this process, with their numbers, until an interrupt comes."""
    for number, explores in enumerate(cells):
        done = explores()
        if done is not None:
            yield number, done
        if done is None or interrupts.asked:
            return


def by_several(cells: Sequence[Explores], jobs: int, interrupts: CtrlC) -> Iterator[tuple[int, CellDone]]:
    """As they come. Raises ResultsError, and WorkerDied where a process was killed."""
    processes = _Processes()
    left = iter(enumerate(cells))
    try:
        while True:
            while (
                len(processes.busy) < jobs and not interrupts.asked and (one := next(left, None)) is not None
            ):
                processes.begin(*one)
            if not processes.busy:
                return
            if interrupts.asked:
                processes.interrupt()
            yield from processes.results()
    finally:
        processes.end()


class _Processes:
    def __init__(self) -> None:
        self.busy: dict[Connection, tuple[int, ForkProcess]] = {}
        self._told: set[int] = set()

    def begin(self, number: int, explores: Explores) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, explores), daemon=True)
        # Until it is ready for an interrupt one that comes is held back: not lost, and kills nobody.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        self.busy[ours] = (number, process)

    def interrupt(self) -> None:
        """Once each: a second one would end it at once."""
        for _, process in self.busy.values():
            if process.pid is not None and process.pid not in self._told:
                self._told.add(process.pid)
                os.kill(process.pid, signal.SIGINT)

    def results(self) -> Iterator[tuple[int, CellDone]]:
        """What has come in."""
        for ready in wait(list(self.busy), _LOOK):
            assert isinstance(ready, Connection)
            number, process = self.busy.pop(ready)
            try:
                found = ready.recv()
            except EOFError:
                raise WorkerDied("a process that explored a cell was killed") from None
            process.join()
            ready.close()
            if isinstance(found, ResultsError):
                raise found
            if found is not None:
                yield number, found

    def end(self) -> None:
        for _, process in self.busy.values():
            process.terminate()
            process.join()


def _work(connection: Connection, explores: Explores) -> None:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        connection.send(explores())
    except ResultsError as error:
        connection.send(error)
    except KeyboardInterrupt:
        connection.send(None)
