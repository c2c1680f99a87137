"""What a dump of a running system has rows for."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from dumps import LARGE, PAGE, leaves_of, real
from real_runs import do, ran

from hvolab.catalog import scenario
from hvolab.checked.error import InputError
from hvolab.dump import read_dump, write_dump
from hvolab.dump.compare import compare
from hvolab.dump.real.layout import setup_from
from hvolab.dump.real.system_dump import KERNEL, dump_system
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from kernel_model.boot import boot

SCHEMA = Path(__file__).resolve().parents[4] / "hvolab" / "schema" / "dump.json"
LISTS = [(), ("optimize:main1_alloc64",), ("optimize:main1_alloc64", "restore")]


@pytest.mark.parametrize("operations", LISTS)
def test_every_page_of_vmemmap_is_there(operations: tuple[str, ...]) -> None:
    """Whatever backs it: 8 PMDs of 512 pages."""
    _, dump = ran("main0_before", *operations)
    pages = {
        va
        for leaf in leaves_of(dump)
        for va in range(leaf.va, leaf.va + (512 if leaf.level == 2 else 1) * PAGE, PAGE)
    }
    assert pages == set(range(dump.vmemmap_base, dump.vmemmap_base + 4096 * PAGE, PAGE))


def test_a_folio_that_is_to_come_has_no_row_but_its_struct_pages() -> None:
    system = boot(setup_from(real("main0_before"), do("optimize:main1_alloc64"), 1).boot)
    dump = dump_system(system, "before")
    assert dump.folios == ()
    assert len(dump.struct_blocks) == 64
    assert dump.leaves == real("main0_before").leaves
    assert dump.kernel == KERNEL


def test_a_folio_that_no_pool_has_has_a_row_where_a_scenario_begins_with_it() -> None:
    done = run(scenario("remap").build(1), lambda _system: InOrder())
    dump = dump_system(done.system, "end")
    assert [(row.pfn, row.optimized) for row in dump.folios] == [(0x4000, False)]


def test_folios_that_the_pool_allocated_by_itself_have_rows() -> None:
    done = run(scenario("pool-up-and-down").build(2), lambda _system: InOrder())
    dump = dump_system(done.system, "end")
    assert {row.pfn for row in dump.folios} <= {block.pfn for block in dump.struct_blocks}
    assert all(leaf.flags in (LARGE, "P W A D G NX", "P A G NX") for leaf in leaves_of(dump))


@pytest.mark.parametrize("operations", LISTS)
def test_a_dump_of_a_system_survives_a_file(operations: tuple[str, ...], tmp_path: Path) -> None:
    _, dump = ran("main0_before", *operations)
    write_dump(dump, tmp_path / "dump.json")
    assert read_dump(tmp_path / "dump.json") == dump
    document = json.loads((tmp_path / "dump.json").read_text(encoding="ascii"))
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(document)
    assert compare(dump, dump) == ()


def test_a_hole_is_said_to_be_one() -> None:
    system = boot(setup_from(real("main0_before"), (), 1).boot)
    walk = system.machine.cpus[0].mmu.peek(next(iter(system.vmemmap_blocks)))
    system.machine.memory.write_word(walk.steps[-1].pa, 0)  # type: ignore[union-attr]
    with pytest.raises(InputError) as caught:
        dump_system(system, "end")
    assert str(caught.value) == "nothing is mapped at 0xffffea0000000000"
