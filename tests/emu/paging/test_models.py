"""The CPU models as data."""

from __future__ import annotations

import pytest
from geometry_probe import DATA

from emu.addr import PageSize
from emu.paging.geometry import Geometry, Replacement, SetHash
from emu.paging.models import KABY_LAKE, MODELS, SKYLAKE, ZEN_3, CpuModel
from emu.paging.tlb import Port


def capacity(model: CpuModel, level: int, port: Port, size: PageSize) -> int:
    assert isinstance(model.tlb, Geometry)
    return sum(
        one.sets * one.ways
        for one in model.tlb.arrays
        if one.level == level and port in one.ports and size in one.sizes
    )


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [(SKYLAKE, 64, 1536), (KABY_LAKE, 64, 1536), (ZEN_3, 64, 2048)],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_models_have_the_published_sizes(model: CpuModel, first: int, second: int) -> None:
    assert capacity(model, 1, DATA, PageSize.KIB4) == first
    assert capacity(model, 2, DATA, PageSize.KIB4) == second


def test_kaby_lake_has_the_measured_shape() -> None:
    assert isinstance(KABY_LAKE.tlb, Geometry)
    shapes = {one.name: (one.sets, one.ways, one.set_hash) for one in KABY_LAKE.tlb.arrays}
    assert shapes["dTLB 4K"] == (16, 4, SetHash.LOW_BITS)
    assert shapes["iTLB 4K"] == (16, 8, SetHash.LOW_BITS)
    assert shapes["L2 4K/2M"] == (128, 12, SetHash.XOR_7)


def test_tree_plru_arrays_have_a_power_of_two_of_ways() -> None:
    geometries = [model.tlb for model in MODELS if isinstance(model.tlb, Geometry)]
    trees = [one for tlb in geometries for one in tlb.arrays if one.replacement is Replacement.TREE_PLRU]
    assert trees
    assert [one.name for one in trees if one.ways & (one.ways - 1)] == []


def test_model_names_are_unique() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
