"""Scenarios on lazy CPUs, explored, and what is found in them."""

from __future__ import annotations

from dataclasses import replace

from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.explore.explorer import Exploration
from hvolab.explore.search.interface import Freedom
from hvolab.judge.verdict import Verdict, Where
from hvolab.subject.scenario import Setup

ALL = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})


def setup_of(name: str) -> Setup:
    setup = scenario(name).build(2)
    return replace(setup, boot=replace(setup.boot, model=LAZY))


def keys(done: Exploration) -> set[tuple[Verdict, Where]]:
    return {(one.finding.verdict, one.finding.where) for one in done.found}
