"""Kernel configuration as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """Build options and boot parameters that the modelled code asks about; named ones are in CONFIGS.

    `tlb_single_page_flush_ceiling` is in 4 KiB pages (arch/x86/mm/tlb.c; 33 unless changed in debugfs).
    `vmemmap_optimize_enabled` is the boot parameter hugetlb_free_vmemmap, later vm.hugetlb_optimize_vmemmap.
    """

    debug_vm: bool = True
    debug_list: bool = True
    memory_hotplug: bool = True
    page_poisoning: bool = True
    tlb_single_page_flush_ceiling: int = 33
    vmemmap_optimize_enabled: bool = True


CONFIGS: Mapping[str, KernelConfig] = MappingProxyType(
    {
        "debug": KernelConfig(),
        "production": KernelConfig(debug_vm=False, debug_list=False, page_poisoning=False),
        "no-hotplug": KernelConfig(memory_hotplug=False),
        "hvo-off": KernelConfig(vmemmap_optimize_enabled=False),
    }
)
