"""Policies that are right: more flushes than upstream, or the same at another place."""

from __future__ import annotations

from emu.paging.models import coherent
from kernel_model.core.sites import FlushSite
from kernel_model.flush.breaking import BBM
from kernel_model.flush.broadcast import INVLPGB
from kernel_model.flush.policy import NamedPolicy
from kernel_model.flush.stopping import PAUSE_REMOTE, STOP_MACHINE
from kernel_model.flush.switching import SKIP_SWITCHING
from kernel_model.flush.table import What, table
from kernel_model.flush.tracking import ABIS, AF_BBM

FULL = NamedPolicy(
    "full",
    "as upstream, but everything is flushed where a range would do",
    table(dict.fromkeys((site for site in FlushSite if not site.defers), What.EVERYTHING)),
    source="tlb_single_page_flush_ceiling = 0",
    obligation="that of upstream",
)
PER_FOLIO = NamedPolicy(
    "per-folio",
    "batches are flushed change by change, as before v6.7",
    table(
        {
            FlushSite.SPLIT_OF_BATCH: What.AS_LINUX,
            FlushSite.REMAP_OF_BATCH: What.AS_LINUX,
            FlushSite.RESTORE_OF_BATCH: What.AS_LINUX,
            FlushSite.BATCH_SPLIT: What.SETTLED,
            FlushSite.BATCH_SHORT: What.SETTLED,
            FlushSite.BATCH_REMAPPED: What.SETTLED,
            FlushSite.BATCH_RESTORED: What.SETTLED,
        }
    ),
    source="mm/hugetlb_vmemmap.c before f4b7e3efaddb and f13b83fdd996 (v6.7)",
    obligation="that of upstream",
)

IDEAL = NamedPolicy(
    "ideal",
    "nobody flushes: CPUs whose TLBs hardware keeps coherent, the least that it can cost",
    table(dict.fromkeys(FlushSite, What.SETTLED)),
    source="Romanescu, Lebeck, Sorin, Bracy: UNified Instruction/Translation/Data coherence, HPCA 2010",
    obligation="a store to a page table is seen by every TLB before the next access",
    hardware=coherent,
)

SAFE: tuple[NamedPolicy, ...] = (
    FULL,
    PER_FOLIO,
    INVLPGB,
    SKIP_SWITCHING,
    STOP_MACHINE,
    PAUSE_REMOTE,
    BBM,
    AF_BBM,
    ABIS,
    IDEAL,
)
