"""Which dumps can be booted and operated on, and what is said of those that cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dumps import LARGE, leaves_of, real, with_folio
from real_runs import ran

from hvolab.checked.error import InputError
from hvolab.dump import Dump, Leaf, read_dump, write_dump
from hvolab.dump.compare import compare
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.operations import Optimize
from hvolab.dump.real.system_dump import dump_system
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from kernel_model.boot import LayoutError

BEFORE, AFTER = real("main0_before"), real("main1_alloc64")


def test_a_dump_of_ours_can_be_booted_and_optimized_again(tmp_path: Path) -> None:
    """What was written is a layout like the real one."""
    write_dump(ran("main0_before")[1], tmp_path / "before.json")
    again = setup_from(read_dump(tmp_path / "before.json"), (Optimize("optimize:x", AFTER),), 2)
    done = run(again, lambda _system: InOrder())
    assert compare(replace(dump_system(done.system, "optimized"), struct_blocks=()), AFTER) == ()


# --- wrong input ----------------------------------------------------------------------------------------


def refused(layout: Dump, folios: Dump) -> str:
    with pytest.raises(InputError) as caught:
        setup_from(layout, (Optimize("optimize:it", folios),), 2)
    return str(caught.value)


def with_leaf(dump: Dump, number: int, change: Callable[[Leaf], Leaf]) -> Dump:
    leaves = leaves_of(dump)
    return replace(dump, leaves=(*leaves[:number], change(leaves[number]), *leaves[number + 1 :]))


def test_a_layout_of_counts_only() -> None:
    dump = real("exact_optimize0_entry")
    assert refused(dump, AFTER) == f"the dump '{dump.state}' has counts only, no leaves"


def test_a_layout_with_vmemmap_elsewhere() -> None:
    moved = replace(BEFORE, vmemmap_base=0xFFFF_EB00_0000_0000)
    assert refused(moved, AFTER) == (
        "vmemmap begins at 0xffffeb0000000000; the model has it at 0xffffea0000000000"
    )


def test_a_layout_with_other_flags() -> None:
    dump = with_leaf(BEFORE, 3, lambda leaf: replace(leaf, flags="P A G NX PSE"))
    va = leaves_of(dump)[3].va
    assert refused(dump, AFTER) == (
        f"leaf {va:#x} has flags 'P A G NX PSE'; the model boots 'P W A D G NX PSE'"
    )


def test_a_layout_in_which_nothing_is_mapped() -> None:
    """It is no layout: booting the default one in its place would be another machine."""
    message = refused(replace(BEFORE, leaves=()), AFTER)
    assert message in {f"the dump 'main0_before' {what}" for what in ("maps nothing", "has no leaves")}


@pytest.mark.parametrize("order", [0, 8, 10, 19])
def test_a_folio_of_an_order_that_the_model_has_not(order: int) -> None:
    dump = with_folio(AFTER, 1, lambda row: replace(row, order=order))
    assert refused(BEFORE, dump) == (
        f"folio {dump.folios[1].pfn:#x} has order {order}; the model has orders 9 and 18"
    )


def test_dumps_of_different_machines() -> None:
    dump = replace(AFTER, ram_mb=2048)
    assert refused(BEFORE, dump) == "the dumps are of machines with 1024 and 2048 MiB"


def unbootable(layout: Dump, folios: Dump) -> str:
    setup = setup_from(layout, (Optimize("optimize:it", folios),), 2)
    with pytest.raises(LayoutError) as caught:
        run(setup, lambda _system: InOrder())
    return str(caught.value)


def test_a_folio_that_is_not_aligned() -> None:
    dump = with_folio(AFTER, 0, lambda row: replace(row, pfn=row.pfn + 1))
    assert unbootable(BEFORE, dump) == f"huge page {dump.folios[0].pfn:#x} is not aligned to its 2M"


def test_folios_that_overlap() -> None:
    dump = with_folio(AFTER, 1, lambda row: replace(row, pfn=AFTER.folios[0].pfn))
    pfn = dump.folios[0].pfn
    assert unbootable(BEFORE, dump) == f"huge page {pfn:#x} overlaps huge page {pfn:#x}"


def test_a_folio_beyond_memory() -> None:
    dump = with_folio(AFTER, 0, lambda row: replace(row, pfn=0x40000))
    assert unbootable(BEFORE, dump) == "huge page 0x40000 ends at frame 0x40200, memory at 0x40000"


def test_a_folio_where_the_kernel_is() -> None:
    dump = with_folio(AFTER, 0, lambda row: replace(row, pfn=0x200))
    assert unbootable(BEFORE, dump) == "huge page 0x200 overlaps the kernel"


def test_a_folio_where_vmemmap_is_backed() -> None:
    block = leaves_of(BEFORE)[0]
    dump = with_folio(AFTER, 0, lambda row: replace(row, pfn=block.pfn))
    message = unbootable(BEFORE, dump)
    assert message in (
        f"huge page {block.pfn:#x} overlaps vmemmap block {block.va:#x}",
        f"vmemmap block {block.va:#x} overlaps huge page {block.pfn:#x}",
    )


def test_a_layout_with_a_hole() -> None:
    dump = replace(BEFORE, leaves=leaves_of(BEFORE)[:-1])
    assert unbootable(dump, AFTER) == "no block backs the vmemmap of section 7"


@pytest.mark.parametrize("va", [0xFFFF_EA00_0100_0000, 0xFFFF_FFFF_8100_0000], ids=["behind", "kernel text"])
def test_a_leaf_that_describes_no_memory(va: int) -> None:
    """1024 MiB have 8 sections; what is mapped behind them is not the vmemmap of this machine."""
    more = Leaf(va, 2, 0x3C000, LARGE)
    dump = replace(BEFORE, leaves=(*leaves_of(BEFORE), more))
    with pytest.raises((InputError, LayoutError)) as caught:
        run(setup_from(dump, (), 2), lambda _system: InOrder())
    assert f"{va:#x}" in str(caught.value)


def test_two_blocks_of_vmemmap_in_one_place() -> None:
    first = leaves_of(BEFORE)[0]
    dump = with_leaf(BEFORE, 1, lambda leaf: replace(leaf, pfn=first.pfn))
    second = leaves_of(dump)[1]
    assert unbootable(dump, AFTER) == f"vmemmap block {second.va:#x} overlaps vmemmap block {first.va:#x}"


@pytest.mark.parametrize("ram_mb", [8, 1025, 8192])
def test_a_machine_of_a_size_that_the_model_has_not(ram_mb: int) -> None:
    """A size that cannot be is a fault of the dump, and must be told as one."""
    layout = replace(BEFORE, ram_mb=ram_mb)
    with pytest.raises((InputError, LayoutError)):
        run(setup_from(layout, (), 2), lambda _system: InOrder())
