"""CPU models as data: a TLB, paging-structure caches, and the flags in which CPUs differ.

Sizes are those published for the parts named; replacement is LRU where nothing better is known. The flags
are the rules' numbers in docs/hardware-rules.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from emu.addr import PageSize
from emu.paging.geometry import ArraySpec, Geometry, Replacement, SetHash
from emu.paging.lazy import DirectoryCache, LazySpec, Memory
from emu.paging.psc import NO_PSC, PscSpec
from emu.paging.tlb import ALL_RULES, Port, Rule


class PermissionMiss(Enum):
    """What a CPU does when the cached rights deny an access (R12)."""

    FAULT = "raises the page fault from what it has cached"
    WALK = "walks again first, and faults only if memory denies it too (AMD)"


class MultiHit(Enum):
    """What two sizes cached for one address do (R5)."""

    EITHER = "either is used, access by access"
    MACHINE_CHECK = "the CPU raises a machine check (AMD family 10h erratum 383)"


class LiveChange(Enum):
    """What becomes of an entry in use that is given another frame or size at one stroke."""

    ALLOWED = "either is used until the old one is flushed (x86)"
    FORBIDDEN = "it has to be made not present and flushed first (break-before-make: arm64)"


@dataclass(frozen=True, slots=True)
class CpuModel:
    """One row of the table below. `physical_bits` is MAXPHYADDR.

    `rules` are those it follows. One that is missing is a bug of the model, unless it is among the `errata`:
    then the CPU modelled is known to break it, and software is to blame that relies on it all the same.
    """

    name: str
    tlb: Geometry | LazySpec
    psc: PscSpec = NO_PSC
    permission_miss: PermissionMiss = PermissionMiss.FAULT
    multi_hit: MultiHit = MultiHit.EITHER
    physical_bits: int = 40
    rules: frozenset[Rule] = field(default=ALL_RULES)
    errata: frozenset[Rule] = frozenset()
    summary: str = ""
    live_change: LiveChange = LiveChange.ALLOWED
    invlpgb_count_max: int = 0  # pages that one INVLPGB takes (R14); 0: the CPU has none

    @property
    def is_lazy(self) -> bool:
        """Whether its TLB offers all that the architecture allows, and holds nothing."""
        return isinstance(self.tlb, LazySpec)

    @property
    def promised(self) -> frozenset[Rule]:
        """The rules that what runs on it may rely on."""
        return ALL_RULES - self.errata


_DATA = frozenset({Port.DATA})
_CODE = frozenset({Port.CODE})
_BOTH = frozenset(Port)
_4K = frozenset({PageSize.KIB4})
_2M = frozenset({PageSize.MIB2})
_1G = frozenset({PageSize.GIB1})

SKYLAKE = CpuModel(
    "skylake",
    Geometry(
        (
            ArraySpec("dTLB 4K", 1, _DATA, _4K, 16, 4),
            ArraySpec("dTLB 2M", 1, _DATA, _2M, 8, 4),
            ArraySpec("dTLB 1G", 1, _DATA, _1G, 1, 4),
            ArraySpec("iTLB 4K", 1, _CODE, _4K, 16, 8),
            ArraySpec("iTLB 2M", 1, _CODE, _2M, 1, 8),
            ArraySpec("L2 4K/2M", 2, _BOTH, _4K | _2M, 128, 12),
            ArraySpec("L2 1G", 2, _BOTH, _1G, 4, 4),
        )
    ),
    PscSpec(pml4e=1, pdpte=4, pde=32),
    summary="sets and ways of Skylake, LRU",
)

# Measured for this class with TLB desynchronisation (TLB;DR, USENIX Security 2022).
KABY_LAKE = CpuModel(
    "kaby-lake",
    Geometry(
        (
            ArraySpec("dTLB 4K", 1, _DATA, _4K, 16, 4, Replacement.TREE_PLRU),
            ArraySpec("dTLB 2M", 1, _DATA, _2M, 8, 4, Replacement.TREE_PLRU),
            ArraySpec("dTLB 1G", 1, _DATA, _1G, 1, 4, Replacement.TREE_PLRU),
            ArraySpec("iTLB 4K", 1, _CODE, _4K, 16, 8, Replacement.TREE_PLRU),
            ArraySpec("iTLB 2M", 1, _CODE, _2M, 1, 8, Replacement.TREE_PLRU),
            ArraySpec("L2 4K/2M", 2, _BOTH, _4K | _2M, 128, 12, Replacement.LRU, SetHash.XOR_7),
            ArraySpec("L2 1G", 2, _BOTH, _1G, 4, 4),
        )
    ),
    PscSpec(pml4e=1, pdpte=4, pde=32),
    summary="sets and ways of Kaby Lake, tree-PLRU in the first level",
)

ZEN_3 = CpuModel(
    "zen-3",
    Geometry(
        (
            ArraySpec("L1 dTLB", 1, _DATA, _4K | _2M | _1G, 1, 64),
            ArraySpec("L1 iTLB", 1, _CODE, _4K | _2M | _1G, 1, 64),
            ArraySpec("L2 dTLB", 2, _DATA, _4K | _2M, 256, 8),
            ArraySpec("L2 iTLB", 2, _CODE, _4K | _2M, 64, 8),
        )
    ),
    PscSpec(pml4e=0, pdpte=0, pde=64),
    permission_miss=PermissionMiss.WALK,
    summary="sets and ways of Zen 3; a denied access walks again first",
)

LAZY = CpuModel("lazy", LazySpec(), summary="may use all that the architecture allows: what explore uses")
LAZY_AMD = CpuModel(
    "lazy-amd",
    LazySpec(),
    permission_miss=PermissionMiss.WALK,
    summary="lazy, and a denied access walks again before it faults",
)
LAZY_SINGLE = CpuModel(
    "lazy-single", LazySpec(Memory.SINGLE), summary="lazy, with one entry a page: using one forgets the older"
)
LAZY_NO_PSC = CpuModel(
    "lazy-no-psc", LazySpec(directories=DirectoryCache.NONE), summary="lazy, without paging-structure caches"
)
COHERENT = CpuModel(
    "coherent",
    LazySpec(Memory.NONE, DirectoryCache.NONE),
    summary="TLBs that see each store to a page table, as no x86 CPU has them (UNITD, HPCA 2010)",
)


def coherent(model: CpuModel) -> CpuModel:
    """The same CPU with TLBs that are kept coherent by hardware: no software has to flush them."""
    return replace(model, tlb=COHERENT.tlb, psc=COHERENT.psc)


# CPUID Fn8000_0008_EDX[15:0] + 1. The number is the model's own.
_INVLPGB_COUNT_MAX = 8
LAZY_INVLPGB = CpuModel(
    "lazy-invlpgb",
    LazySpec(),
    permission_miss=PermissionMiss.WALK,
    summary="lazy, with INVLPGB and TLBSYNC, and a denied access walks again first: AMD since Zen 3",
    invlpgb_count_max=_INVLPGB_COUNT_MAX,
)


def with_invlpgb(model: CpuModel) -> CpuModel:
    """The same CPU with INVLPGB and TLBSYNC, if it has none."""
    return model if model.invlpgb_count_max else replace(model, invlpgb_count_max=_INVLPGB_COUNT_MAX)


# Alder and Raptor Lake with PCIDs: INVLPG leaves global entries (worked around in Linux by ce0b15d11ad8).
_SPARES_GLOBALS = frozenset({Rule.INVLPG_REMOVES_GLOBALS})
LAZY_ALDER_LAKE = CpuModel(
    "lazy-alder-lake",
    LazySpec(),
    rules=ALL_RULES - _SPARES_GLOBALS,
    errata=_SPARES_GLOBALS,
    summary="INVLPG leaves global entries, as Alder Lake does with PCIDs",
)
# AMD family 10h erratum 383: entries of two sizes for one address are a machine check.
LAZY_ERRATUM_383 = CpuModel(
    "lazy-erratum-383",
    LazySpec(),
    multi_hit=MultiHit.MACHINE_CHECK,
    summary="entries of two sizes for one address are a machine check, as on AMD family 10h",
)

MODELS: tuple[CpuModel, ...] = (
    SKYLAKE,
    KABY_LAKE,
    ZEN_3,
    LAZY,
    LAZY_AMD,
    LAZY_SINGLE,
    LAZY_NO_PSC,
    COHERENT,
    LAZY_INVLPGB,
)
# CPUs that do not do what the manual says, or make a machine check of what others allow.
LAZY_BBM_REQUIRED = CpuModel(
    "lazy-bbm-required",
    LazySpec(),
    live_change=LiveChange.FORBIDDEN,
    summary="entries in use may not change at one stroke: what arm64 forbids, on x86 page tables",
)
ERRATA: tuple[CpuModel, ...] = (LAZY_ALDER_LAKE, LAZY_ERRATUM_383, LAZY_BBM_REQUIRED)
