"""Runs over dumps of a real kernel: boot its page tables, optimize what it optimized, compare with it.

The dumps are of Linux 6.12.95 before and after 64 huge pages were allocated (tests/fixtures/linux-6.12).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hvolab.checked.error import InputError
from hvolab.command.main import main
from hvolab.dump import Dump, FolioRow, Leaf, read_dump, write_dump
from hvolab.dump.compare import MISSING, compare
from hvolab.dump.real.real_input import StopAt, dump_system, setup_from
from hvolab.judge.verdict import Verdict
from hvolab.subject.run import Completed, Run, run
from hvolab.subject.schedule import parse
from hvolab.subject.strategy import InOrder, Replay
from kernel_model.boot import LayoutError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "linux-6.12"
BEFORE, AFTER = FIXTURES / "main0_before.json.gz", FIXTURES / "main1_alloc64.json.gz"
COUNTS_ONLY = FIXTURES / "exact_optimize0_entry.json.gz"
RW, RO, LARGE = "P W A D G NX", "P A G NX", "P W A D G NX PSE"
PAGE = 4096


@cache
def real(path: Path) -> Dump:
    return read_dump(path)


@cache
def ran(stop_at: StopAt, cpus: int = 2) -> tuple[Run, Dump]:
    setup = setup_from(real(BEFORE), real(AFTER), cpus, stop_at)
    done = run(setup, lambda _system: InOrder())
    return done, dump_system(done.system, stop_at.value)


def leaves_of(dump: Dump) -> tuple[Leaf, ...]:
    assert dump.leaves is not None
    return dump.leaves


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["hvolab", *map(str, arguments)])
    with pytest.raises(SystemExit) as exited:
        main()
    assert isinstance(exited.value.code, int)
    return exited.value.code


# --- the three stops ------------------------------------------------------------------------------------


def test_before_is_the_real_kernels_before_with_the_folios_to_come() -> None:
    done, dump = ran(StopAt.BEFORE)
    assert isinstance(done.outcome, Completed)
    assert done.events == 0
    differences = compare(dump, real(BEFORE))
    assert {(d.field, d.left, d.right) for d in differences} == {("folio", "order 9, not optimized", MISSING)}
    assert {d.where for d in differences} == {f"folio {folio.pfn:#x}" for folio in real(AFTER).folios}
    assert dump.leaves == real(BEFORE).leaves
    assert dump.counters == real(BEFORE).counters
    # With the same folios written into the real dump, nothing differs.
    assert compare(dump, replace(real(BEFORE), folios=dump.folios)) == ()


def test_optimized_is_the_real_kernels_after() -> None:
    done, dump = ran(StopAt.OPTIMIZED)
    assert isinstance(done.outcome, Completed)
    assert compare(dump, real(AFTER)) == ()
    # In numbers, counted here: the compared dumps really are of 64 optimized folios.
    assert Counter(leaf.flags for leaf in leaves_of(dump)) == Counter(
        leaf.flags for leaf in leaves_of(real(AFTER))
    )
    assert Counter(leaf.flags for leaf in leaves_of(dump))[RO] == 64 * 7
    assert dump.counters == {"nr_memmap_boot_pages": 4096 - 64 * 8, "nr_memmap_pages": 64}
    assert [folio.optimized for folio in dump.folios] == [True] * 64


def test_restored_shares_no_frame_and_is_writable() -> None:
    done, dump = ran(StopAt.RESTORED)
    assert isinstance(done.outcome, Completed)
    leaves = leaves_of(dump)
    frames = Counter(
        pfn for leaf in leaves for pfn in range(leaf.pfn, leaf.pfn + (512 if leaf.level == 2 else 1))
    )
    assert set(frames.values()) == {1}
    assert {leaf.flags for leaf in leaves} == {RW, LARGE}
    assert [folio.optimized for folio in dump.folios] == [False] * 64
    # Every vmemmap page has a frame again: some of boot's, the others allocated.
    assert dump.counters == {"nr_memmap_boot_pages": 4096 - 64 * 8, "nr_memmap_pages": 64 * 8}


@pytest.mark.parametrize("stop_at", list(StopAt))
def test_the_frames_of_vmemmap_are_all_there(stop_at: StopAt) -> None:
    """Page for page, whatever backs it: 8 PMDs of 512 pages."""
    _, dump = ran(stop_at)
    pages = {
        va
        for leaf in leaves_of(dump)
        for va in range(leaf.va, leaf.va + (512 if leaf.level == 2 else 1) * PAGE, PAGE)
    }
    assert pages == set(range(dump.vmemmap_base, dump.vmemmap_base + 4096 * PAGE, PAGE))


@pytest.mark.parametrize("stop_at", [StopAt.OPTIMIZED, StopAt.RESTORED])
def test_a_run_over_real_input_finds_nothing_wrong(stop_at: StopAt) -> None:
    done, _ = ran(stop_at)
    assert done.findings == ()
    assert {use.verdict for use in done.uses} <= {Verdict.LEGAL, Verdict.EQUIVALENT}


@pytest.mark.slow
def test_a_run_over_real_input_replays() -> None:
    done, dump = ran(StopAt.OPTIMIZED)
    setup = setup_from(real(BEFORE), real(AFTER), 2, StopAt.OPTIMIZED)
    again = run(setup, lambda _system: Replay(parse(str(done.schedule))))
    assert (again.events, again.findings) == (done.events, done.findings)
    assert dump_system(again.system, "optimized") == dump


@pytest.mark.slow
def test_the_number_of_cpus_makes_no_difference_to_the_page_tables() -> None:
    _, alone = ran(StopAt.OPTIMIZED, 1)
    assert compare(alone, ran(StopAt.OPTIMIZED)[1]) == ()


@pytest.mark.slow
def test_a_dump_of_ours_can_be_booted_and_optimized_again(tmp_path: Path) -> None:
    """What was written is a layout like the real one."""
    write_dump(ran(StopAt.BEFORE)[1], tmp_path / "before.json")
    again = setup_from(read_dump(tmp_path / "before.json"), real(AFTER), 2, StopAt.OPTIMIZED)
    done = run(again, lambda _system: InOrder())
    assert compare(dump_system(done.system, "optimized"), real(AFTER)) == ()


# --- as a command ---------------------------------------------------------------------------------------


def test_the_command_writes_what_compare_finds_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours.json.gz"
    inputs = ("--layout", BEFORE, "--folios", AFTER, "--until", "optimized")
    assert command(monkeypatch, "run", "remap", *inputs, "--dump", ours, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["findings"] == []
    assert compare(read_dump(ours), real(AFTER)) == ()
    assert read_dump(ours).state == "optimized"
    assert command(monkeypatch, "compare", ours, AFTER) == 0
    assert capsys.readouterr().out == "no differences\n"


@pytest.mark.slow
def test_without_until_the_folios_are_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "ours.json"
    assert (
        command(monkeypatch, "run", "remap", "--layout", BEFORE, "--folios", AFTER, "--dump", ours, "--json")
        == 0
    )
    assert compare(read_dump(ours), ran(StopAt.RESTORED)[1]) == ()
    capsys.readouterr()


# --- wrong input ----------------------------------------------------------------------------------------


def refused(layout: Dump, folios: Dump) -> str:
    with pytest.raises(InputError) as caught:
        setup_from(layout, folios, 2, StopAt.OPTIMIZED)
    return str(caught.value)


def with_leaf(dump: Dump, number: int, change: Callable[[Leaf], Leaf]) -> Dump:
    leaves = leaves_of(dump)
    return replace(dump, leaves=(*leaves[:number], change(leaves[number]), *leaves[number + 1 :]))


def with_folio(dump: Dump, number: int, change: Callable[[FolioRow], FolioRow]) -> Dump:
    rows = dump.folios
    return replace(dump, folios=(*rows[:number], change(rows[number]), *rows[number + 1 :]))


def test_a_layout_of_counts_only() -> None:
    dump = real(COUNTS_ONLY)
    assert refused(dump, real(AFTER)) == f"the dump '{dump.state}' has counts only, no leaves"


def test_a_layout_with_vmemmap_elsewhere() -> None:
    moved = replace(real(BEFORE), vmemmap_base=0xFFFF_EB00_0000_0000)
    assert refused(moved, real(AFTER)) == (
        "vmemmap begins at 0xffffeb0000000000; the model has it at 0xffffea0000000000"
    )


def test_a_layout_that_is_split_already() -> None:
    leaf = next(leaf for leaf in leaves_of(real(AFTER)) if leaf.level == 1)
    assert refused(real(AFTER), real(AFTER)) == (
        f"leaf {leaf.va:#x} is of level 1; a layout to boot has 2 MiB leaves"
    )


def test_a_layout_with_other_flags() -> None:
    dump = with_leaf(real(BEFORE), 3, lambda leaf: replace(leaf, flags="P A G NX PSE"))
    va = leaves_of(dump)[3].va
    assert refused(dump, real(AFTER)) == (
        f"leaf {va:#x} has flags 'P A G NX PSE'; the model boots 'P W A D G NX PSE'"
    )


def test_a_layout_in_which_nothing_is_mapped() -> None:
    """It is no layout: booting the default one in its place would be another machine."""
    message = refused(replace(real(BEFORE), leaves=()), real(AFTER))
    assert message in {f"the dump 'main0_before' {what}" for what in ("maps nothing", "has no leaves")}


def test_no_folios() -> None:
    assert refused(real(BEFORE), real(BEFORE)) == "the dump 'main0_before' lists no folios to optimize"


def test_a_label_with_control_characters_does_not_reach_the_terminal() -> None:
    dump = replace(real(BEFORE), state="a\x1b[31m\nb")
    message = refused(dump, dump)
    assert message.isprintable()
    assert message.endswith(" lists no folios to optimize")


@pytest.mark.parametrize("order", [0, 8, 10, 19])
def test_a_folio_of_an_order_that_the_model_has_not(order: int) -> None:
    dump = with_folio(real(AFTER), 1, lambda row: replace(row, order=order))
    assert refused(real(BEFORE), dump) == (
        f"folio {dump.folios[1].pfn:#x} has order {order}; the model has orders 9 and 18"
    )


def test_folios_of_two_orders() -> None:
    dump = with_folio(real(AFTER), 1, lambda row: replace(row, order=18))
    assert refused(real(BEFORE), dump) == "the dump 'main1_alloc64' lists folios of more than one order"


def test_dumps_of_different_machines() -> None:
    dump = replace(real(AFTER), ram_mb=2048)
    assert refused(real(BEFORE), dump) == "the dumps are of machines with 1024 and 2048 MiB"


def unbootable(layout: Dump, folios: Dump) -> str:
    setup = setup_from(layout, folios, 2, StopAt.OPTIMIZED)
    with pytest.raises(LayoutError) as caught:
        run(setup, lambda _system: InOrder())
    return str(caught.value)


def test_a_folio_that_is_not_aligned() -> None:
    dump = with_folio(real(AFTER), 0, lambda row: replace(row, pfn=row.pfn + 1))
    assert unbootable(real(BEFORE), dump) == f"huge page {dump.folios[0].pfn:#x} is not aligned to its 2M"


def test_folios_that_overlap() -> None:
    dump = with_folio(real(AFTER), 1, lambda row: replace(row, pfn=real(AFTER).folios[0].pfn))
    pfn = dump.folios[0].pfn
    assert unbootable(real(BEFORE), dump) == f"huge page {pfn:#x} overlaps huge page {pfn:#x}"


def test_a_folio_beyond_memory() -> None:
    dump = with_folio(real(AFTER), 0, lambda row: replace(row, pfn=0x40000))
    assert unbootable(real(BEFORE), dump) == "huge page 0x40000 ends at frame 0x40200, memory at 0x40000"


def test_a_folio_where_the_kernel_is() -> None:
    dump = with_folio(real(AFTER), 0, lambda row: replace(row, pfn=0x200))
    assert unbootable(real(BEFORE), dump) == "huge page 0x200 overlaps the kernel"


def test_a_folio_where_vmemmap_is_backed() -> None:
    block = leaves_of(real(BEFORE))[0]
    dump = with_folio(real(AFTER), 0, lambda row: replace(row, pfn=block.pfn))
    message = unbootable(real(BEFORE), dump)
    assert message in (
        f"huge page {block.pfn:#x} overlaps vmemmap block {block.va:#x}",
        f"vmemmap block {block.va:#x} overlaps huge page {block.pfn:#x}",
    )


def test_a_layout_with_a_hole() -> None:
    dump = replace(real(BEFORE), leaves=leaves_of(real(BEFORE))[:-1])
    assert unbootable(dump, real(AFTER)) == "no block backs the vmemmap of section 7"


@pytest.mark.parametrize("va", [0xFFFF_EA00_0100_0000, 0xFFFF_FFFF_8100_0000], ids=["behind", "kernel text"])
def test_a_leaf_that_describes_no_memory(va: int) -> None:
    """1024 MiB have 8 sections; what is mapped behind them is not the vmemmap of this machine."""
    more = Leaf(va, 2, 0x3C000, LARGE)
    dump = replace(real(BEFORE), leaves=(*leaves_of(real(BEFORE)), more))
    with pytest.raises((InputError, LayoutError)) as caught:
        run(setup_from(dump, real(AFTER), 2, StopAt.BEFORE), lambda _system: InOrder())
    assert f"{va:#x}" in str(caught.value)


def test_two_blocks_of_vmemmap_in_one_place() -> None:
    first = leaves_of(real(BEFORE))[0]
    dump = with_leaf(real(BEFORE), 1, lambda leaf: replace(leaf, pfn=first.pfn))
    second = leaves_of(dump)[1]
    assert (
        unbootable(dump, real(AFTER)) == f"vmemmap block {second.va:#x} overlaps vmemmap block {first.va:#x}"
    )


@pytest.mark.parametrize("ram_mb", [8, 1025, 8192])
def test_a_machine_of_a_size_that_the_model_has_not(ram_mb: int) -> None:
    """A size that cannot be is a fault of the dump, and must be told as one."""
    layout, folios = (replace(real(path), ram_mb=ram_mb) for path in (BEFORE, AFTER))
    with pytest.raises((InputError, LayoutError)):
        run(setup_from(layout, folios, 2, StopAt.BEFORE), lambda _system: InOrder())
