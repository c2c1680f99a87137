"""What a variant is: a way to build the kernel that differs in one thing, and where that comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from kernel_model.core.history import History
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, Primitives
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.pool.hugetlb_pool import PoolPrimitives


class Effect(Enum):
    """What a variant does to whoever runs on it."""

    VIOLATION = "violation"
    COST = "cost only: nothing wrong happens, it only takes longer"
    FREEDOM = "shows nothing here: needs a freedom that is not built yet"
    NONE = "shows nothing here: no verdict tells it from upstream"


@dataclass(frozen=True, slots=True)
class NamedVariant:
    """`history` is None for a step that no kernel ever left out."""

    name: str
    summary: str
    build: Callable[[Primitives], HugetlbVmemmap] = HugetlbVmemmap
    build_pool: Callable[[PoolPrimitives], Hugetlb] = Hugetlb
    effect: Effect = Effect.VIOLATION
    history: History | None = None


UPSTREAM_HVO = NamedVariant("upstream", "mm/hugetlb_vmemmap.c and mm/hugetlb.c of v6.12 as they are")
