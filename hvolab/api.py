"""All that an experiment of one's own is made of, from one place: `hvolab run|explore ... --load FILE.py`.

    from hvolab.api import HugetlbVmemmap, WalkFlag, replace

    class Patch(HugetlbVmemmap):                        # a variant: the port, with one function changed
        async def vmemmap_remap_range(self, start, end, walk):
            walk = replace(walk, flags=walk.flags | WalkFlag.REMAP_NO_TLB_FLUSH)
            return await super().vmemmap_remap_range(start, end, walk)

- a variant is a class over `HugetlbVmemmap` or `Hugetlb`, its functions named as the kernel's;
- a flush policy is a class over `FlushPolicy` or `UpstreamFlush`, or a `NamedPolicy` of a `table`;
- a scenario is made with `scenario`, of actors made with `kernel` (an async function over ops) and `guest`
  (assembly text);
- a judge is a function decorated with `judge`: (state, event, sight) -> (state, problems);
- a CPU model is a `CpuModel`, a cost table a `CostTable`.

State lives in the machine (memory, named words) and in local variables. docs/your-own.md has one of each.
"""

from dataclasses import replace

from emu.addr import VirtAddr
from emu.cpu.condition import AllOf, Word, WordIs
from emu.cpu.ops import (
    AddWords,
    Annotate,
    Await,
    CmpXchg,
    Copy,
    Count,
    Decide,
    FetchAdd,
    FetchAndNot,
    FetchOr,
    Fill,
    FlushTlb,
    FlushTlbPages,
    Invlpgb,
    InvlpgbAll,
    Load,
    LoadBytes,
    NeedTick,
    SendIpi,
    SetInterrupts,
    Store,
    ThisCpu,
    TlbSync,
)
from emu.events import BroadcastCompleted, BroadcastSent, Faulted, Invalidated, IpiTaken, Loaded, Stored
from emu.paging.lazy import DirectoryCache, LazySpec, Memory
from emu.paging.models import LAZY, LAZY_SINGLE, SKYLAKE, CpuModel, with_invlpgb
from emu.paging.pte import Pte, PteBit
from hvolab.catalog.common import HUGE_PAGE
from hvolab.judge.own import Problem
from hvolab.judge.verdict import Verdict
from hvolab.load.making import guest, judge, kernel, scenario
from hvolab.subject.costs import CostTable
from hvolab.subject.scenario import vmemmap_page
from kernel_model.core.events import (
    FlushBegun,
    FlushCompleted,
    FlushesSettled,
    GracePeriodBegun,
    OperationBegun,
    OperationReturned,
    PageAllocated,
    PageFreed,
)
from kernel_model.core.sites import FlushSite
from kernel_model.core.smp import (
    CALL_FUNCTION_VECTOR,
    FlushEverything,
    FlushPages,
    csd_lock_wait,
    on_each_cpu,
    run_here,
)
from kernel_model.flush.broadcast import BroadcastFlush
from kernel_model.flush.policy import (
    Deed,
    EntryChange,
    FlushPolicy,
    NamedPolicy,
    Pages,
    PolicySetup,
    StaleRange,
    Ticket,
    announce,
    complete,
    settle,
)
from kernel_model.flush.table import What, table
from kernel_model.flush.upstream import UpstreamFlush, call_for
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.layout import TLB_GEN, PerCpu
from kernel_model.mm.page import Offset, field
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.variants.named import NamedVariant

__all__ = [
    "CALL_FUNCTION_VECTOR",
    "HUGE_PAGE",
    "LAZY",
    "LAZY_SINGLE",
    "SKYLAKE",
    "TLB_GEN",
    "AddWords",
    "AllOf",
    "Annotate",
    "Await",
    "BroadcastCompleted",
    "BroadcastFlush",
    "BroadcastSent",
    "CmpXchg",
    "Copy",
    "CostTable",
    "Count",
    "CpuModel",
    "Decide",
    "Deed",
    "DirectoryCache",
    "EntryChange",
    "Faulted",
    "FetchAdd",
    "FetchAndNot",
    "FetchOr",
    "Fill",
    "FlushBegun",
    "FlushCompleted",
    "FlushEverything",
    "FlushPages",
    "FlushPolicy",
    "FlushSite",
    "FlushTlb",
    "FlushTlbPages",
    "FlushesSettled",
    "GracePeriodBegun",
    "Hugetlb",
    "HugetlbVmemmap",
    "Invalidated",
    "Invlpgb",
    "InvlpgbAll",
    "IpiTaken",
    "LazySpec",
    "Load",
    "LoadBytes",
    "Loaded",
    "Memory",
    "NamedPolicy",
    "NamedVariant",
    "NeedTick",
    "Offset",
    "OperationBegun",
    "OperationReturned",
    "PageAllocated",
    "PageFreed",
    "Pages",
    "PerCpu",
    "PolicySetup",
    "Problem",
    "Pte",
    "PteBit",
    "SendIpi",
    "SetInterrupts",
    "StaleRange",
    "Store",
    "Stored",
    "ThisCpu",
    "Ticket",
    "TlbSync",
    "UpstreamFlush",
    "Verdict",
    "VirtAddr",
    "VmemmapRemapWalk",
    "WalkFlag",
    "What",
    "Word",
    "WordIs",
    "announce",
    "call_for",
    "complete",
    "csd_lock_wait",
    "field",
    "guest",
    "judge",
    "kernel",
    "on_each_cpu",
    "replace",
    "run_here",
    "scenario",
    "settle",
    "table",
    "vmemmap_page",
    "with_invlpgb",
]
