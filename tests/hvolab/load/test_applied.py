"""One setup of what is asked for and what a file brings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from user_files import PATCH, overriding, written

from hvolab.catalog import CATALOGUE, scenario
from hvolab.load.applied import applied, on_lazy_cpus, scenarios_with, tried
from hvolab.load.user_file import NOTHING_LOADED, load
from hvolab.subject.axes import Chosen
from hvolab.subject.blame import LoadError

MODEL = "from hvolab.api import *\nMINE = {model}\n"
SCENE = """
from hvolab.api import *

async def nothing(kernel, huge): pass

S = scenario("{name}", [kernel(0, nothing)], huge_page=HUGE_PAGE)
"""


def test_a_files_scenario_stands_beside_the_catalogues_and_never_in_the_place_of_one(tmp_path: Path) -> None:
    mine = load(str(written(tmp_path, SCENE.format(name="mine"))))
    table = scenarios_with(CATALOGUE, mine)
    assert table.names == (*CATALOGUE.names, "mine")
    taken = load(str(written(tmp_path, SCENE.format(name="stale-read"))))
    with pytest.raises(LoadError, match=r"mine.py: there is a scenario 'stale-read' already$"):
        scenarios_with(CATALOGUE, taken)


@pytest.mark.parametrize("model", ["CpuModel('mine', LazySpec())", "replace(SKYLAKE, name='mine')"])
def test_the_one_cpu_model_of_a_file_is_not_in_the_way_of_itself(tmp_path: Path, model: str) -> None:
    """Exploring asks for lazy CPUs only where nobody asks for others; a file that brings one does."""
    mine = load(str(written(tmp_path, MODEL.format(model=model))))
    setup = scenario("stale-read").build(2)
    chosen = on_lazy_cpus(setup, Chosen(), mine)
    assert chosen == Chosen()
    assert applied(setup, chosen, mine).boot.model == mine.things[0]


def test_cpus_are_lazy_unless_others_are_asked_for() -> None:
    setup = scenario("stale-read").build(2)
    assert on_lazy_cpus(setup, Chosen(), NOTHING_LOADED) == Chosen(cpu_model="lazy")
    asked = Chosen(cpu_model="zen-3")
    assert on_lazy_cpus(setup, asked, NOTHING_LOADED) == asked
    lazy = applied(setup, Chosen(cpu_model="lazy-single"), NOTHING_LOADED)
    assert on_lazy_cpus(lazy, Chosen(), NOTHING_LOADED) == Chosen()


def test_what_is_loaded_is_tried_and_what_is_not_is_as_it_was(tmp_path: Path) -> None:
    setup = scenario("flush-reader").build(2)
    assert tried(applied(setup, Chosen(), NOTHING_LOADED), NOTHING_LOADED) == setup
    patch = load(str(written(tmp_path, PATCH)))
    patched = applied(setup, Chosen(), patch)
    assert patched.loaded == patch.digest
    assert replace(patched, loaded="", boot=setup.boot) == setup
    assert tried(patched, patch) is patched
    raises = load(str(written(tmp_path, overriding("raise ValueError('no')"))))
    with pytest.raises(LoadError, match="ValueError: no"):
        tried(applied(setup, Chosen(), raises), raises)
