"""The address ranges in which stale uses can be judged, by name."""

from __future__ import annotations

from hvolab.judge.sight.mappings import AddressRange
from hvolab.judge.sight.sight import VMEMMAP
from hvolab.subject.names import Table
from kernel_model.layout import PAGE_OFFSET, START_KERNEL_MAP, VMEMMAP_START

RANGES = Table(
    "range",
    {
        "vmemmap": VMEMMAP,
        "direct-map": AddressRange(PAGE_OFFSET, VMEMMAP_START),
        "kernel-text": AddressRange(START_KERNEL_MAP, START_KERNEL_MAP + (1 << 30)),
    },
)
