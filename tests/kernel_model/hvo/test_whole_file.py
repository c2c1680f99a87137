"""The parts of the C file that no folio passes through: its switch, its init, its allocation flags."""

from __future__ import annotations

import pytest
from hvo_lab import lab_2m

from emu.addr import PhysAddr
from kernel_model.core.events import PageAllocated
from kernel_model.core.kconfig import KernelConfig
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, Primitives
from kernel_model.layout import VMEMMAP_OPTIMIZE_ENABLED
from kernel_model.mm.hstate import Hstate


@pytest.mark.parametrize(
    ("purpose", "gfp"),
    [
        ("vmemmap head page", 0x12CC0),  # GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY, as a page dump prints it
        ("vmemmap tail page", 0x4CC0),  # GFP_KERNEL|__GFP_RETRY_MAYFAIL
        ("page table", 0xDC0),  # GFP_KERNEL|__GFP_ZERO
    ],
)
def test_each_allocation_is_asked_for_with_the_flags_of_the_c_file(purpose: str, gfp: int) -> None:
    lab = lab_2m()
    lab.optimize(lab.config.huge_pages[0])
    lab.restore(lab.config.huge_pages[0])
    asked = {(one.gfp, one.nid) for one in lab.heard(PageAllocated) if one.purpose == purpose}
    assert asked == {(gfp, 0)}


def test_there_is_no_sysctl_where_no_size_can_be_optimized() -> None:
    """The struct pages of an order-6 page fill one vmemmap page, which must stay."""
    lab = lab_2m()
    own = lab.kernel
    parts = (own.pages, own.lists, own.flush, own.rcu, own.key)
    for order, expected in ((6, -2), (7, 0)):
        hvo = HugetlbVmemmap(
            Primitives(lab.config.kernel, *parts, (Hstate(f"order {order}", order),), PhysAddr(0x1000))
        )
        assert lab.call(lambda hvo=hvo: hvo.write_sysctl(0)) == -2, "late_initcall is still to come"
        hvo.hugetlb_vmemmap_init()
        assert lab.call(lambda hvo=hvo: hvo.write_sysctl(0)) == expected


def test_what_is_written_to_the_sysctl_is_taken_for_a_truth_value() -> None:
    lab = lab_2m()
    seen = []
    for value in (0, 2, 1):
        assert lab.call(lambda value=value: lab.kernel.hvo.write_sysctl(value)) == 0
        seen.append(lab.word_at(VMEMMAP_OPTIMIZE_ENABLED))
    assert seen == [0, 1, 1]


@pytest.mark.parametrize("enabled", [False, True])
def test_the_boot_parameter_is_what_the_sysctl_begins_with(enabled: bool) -> None:
    lab = lab_2m(kernel=KernelConfig(vmemmap_optimize_enabled=enabled))
    assert lab.word_at(VMEMMAP_OPTIMIZE_ENABLED) == enabled
