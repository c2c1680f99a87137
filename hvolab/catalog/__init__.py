"""The scenarios, by name."""

from __future__ import annotations

from hvolab.catalog.bugs.all import BUGS
from hvolab.catalog.faults import SPURIOUS_WRITE, TAIL_WRITE
from hvolab.catalog.interrupted import IRQS_OFF_WALKER, NMI_WALKER
from hvolab.catalog.pool import POOL
from hvolab.catalog.races import (
    COMPOUND_HEAD,
    FREEZE_GET_PAGE,
    GET_PAGE,
    NEIGHBOURS,
    READER,
    RESTORE_NEIGHBOUR,
    RESTORE_READER,
    UNFREEZE_GET_PAGE,
)
from hvolab.catalog.remap import REMAP, REMAP_1G, REMAP_BATCH
from hvolab.catalog.stale import (
    FLUSH_BEGUN_BEFORE,
    LOST_UPDATE,
    MISSED_CPU,
    STALE_READ,
    USE_AFTER_FREE,
)
from hvolab.catalog.walkers import (
    COMPACTION,
    FREEZE_GET_PAGE_V6_9,
    GUP_FAST,
    KPAGEFLAGS,
    UNFREEZE_GET_PAGE_2025,
)
from hvolab.subject.names import Table
from hvolab.subject.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    REMAP,
    REMAP_1G,
    REMAP_BATCH,
    STALE_READ,
    FLUSH_BEGUN_BEFORE,
    USE_AFTER_FREE,
    MISSED_CPU,
    LOST_UPDATE,
    TAIL_WRITE,
    SPURIOUS_WRITE,
    READER,
    COMPOUND_HEAD,
    GET_PAGE,
    FREEZE_GET_PAGE,
    UNFREEZE_GET_PAGE,
    RESTORE_READER,
    NEIGHBOURS,
    RESTORE_NEIGHBOUR,
    UNFREEZE_GET_PAGE_2025,
    FREEZE_GET_PAGE_V6_9,
    KPAGEFLAGS,
    COMPACTION,
    GUP_FAST,
    NMI_WALKER,
    IRQS_OFF_WALKER,
    *POOL,
    *BUGS,
)


CATALOGUE = Table.of("scenario", SCENARIOS, lambda one: one.name)


def scenario(name: str) -> Scenario:
    """Raises UnknownName, which says what is like it."""
    return CATALOGUE.find(name)
