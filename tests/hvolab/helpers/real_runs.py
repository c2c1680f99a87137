"""Runs of the model over dumps of a real kernel."""

from __future__ import annotations

from functools import cache

from dumps import real

from hvolab.dump import Dump
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.operations import PoolOperation, operations_from
from hvolab.dump.real.system_dump import dump_system
from hvolab.subject.outcome import Run
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run


def do(*texts: str) -> tuple[PoolOperation, ...]:
    """The operations, files being names of fixtures."""
    return operations_from(texts, real)


@cache
def ran(layout: str, *texts: str, cpus: int = 2) -> tuple[Run, Dump]:
    """Boot that fixture, do the operations, and dump what has become of it."""
    done = run(setup_from(real(layout), do(*texts), cpus), lambda _system: InOrder())
    return done, dump_system(done.system, "end")
