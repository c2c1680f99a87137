"""Changes that an operating system makes to entries, and what other CPUs may see of them meanwhile.

The second table: upgrade, downgrade, make valid, reuse of a table, split. Stated verdicts, as in the first.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from litmus_enumerator import NEW, OLD, PAGE, PS, RO, ROOT, RW, TABLE, A, D, G, Litmus, P, X, Y, entry, values
from litmus_programs import READY, every_model, marked, on

from emu.addr import PageSize, Pfn, VirtAddr
from emu.cpu.condition import WordIs
from emu.cpu.ops import AddWords, Await, FlushTlbPages, Load, Store
from emu.cpu.software import TrapOutcome
from emu.paging.models import LAZY, LAZY_NO_PSC, CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import Port
from emu.paging.walk import Access, Control, Privilege


def stores_entry(litmus: Litmus, value: int) -> None:
    """CPU 0 stores the entry of x and says that it has."""

    async def thread() -> None:
        await Store(litmus.alias(litmus.slot(X)), value)
        await AddWords(((READY, 1),))

    litmus.run(0, thread)


@every_model
def test_upgrade_costs_at_most_one_spurious_fault(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        litmus.map(X, OLD, RO)
        stores_entry(litmus, entry(OLD, RW))

        async def writer() -> None:
            await Load(X)
            await Await(WordIs(READY, 1))
            await Store(X, 7)
            litmus.seen["faults"] = litmus.faults[1]
            litmus.seen["x"] = litmus.value(OLD)

        litmus.run(1, writer)

    assert values(program, "faults", "x", make=on(model)) == {(0, 7), (1, 7)}


@every_model
def test_downgrade_a_write_elsewhere_may_succeed_silently(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        stores_entry(litmus, entry(OLD, RO))

        async def writer() -> None:
            await Await(WordIs(READY, 1))
            litmus.seen["x"] = 0
            await Store(X, 7)
            litmus.seen["x"] = litmus.value(OLD)

        litmus.run(1, writer)

    assert values(program, "x", make=on(model, on_trap=TrapOutcome.KILL)) == {(7,), (0,)}


@every_model
def test_downgrade_after_an_invlpg_there_it_may_not(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        stores_entry(litmus, entry(OLD, RO))

        async def writer() -> None:
            await Await(WordIs(READY, 1))
            await FlushTlbPages(X)
            litmus.seen["x"] = 0
            await Store(X, 7)
            litmus.seen["x"] = litmus.value(OLD)

        litmus.run(1, writer)

    assert values(program, "x", make=on(model, on_trap=TrapOutcome.KILL)) == {(0,)}


@every_model
def test_make_valid_never_needs_an_invalidation(model: CpuModel) -> None:
    """Not even on a CPU that found it absent before."""

    def program(litmus: Litmus) -> None:
        litmus.map(X, NEW, P & ~P)
        litmus.preset(NEW * PAGE, 2)
        stores_entry(litmus, entry(NEW))

        async def reader() -> None:
            await Await(WordIs(READY, 1))
            before = litmus.faults[1]
            litmus.seen["x"] = await Load(X)
            litmus.seen["faults"] = litmus.faults[1] - before

        litmus.run(1, reader)

    assert values(program, "x", "faults", make=on(model)) == {(2, 0)}


def test_make_valid_after_a_fault_there_too() -> None:
    def program(litmus: Litmus) -> None:
        litmus.map(X, NEW, P & ~P)
        stores_entry(litmus, entry(NEW))

        async def reader() -> None:
            await Load(Y)
            litmus.machine.cpus[1].mmu.translate(X, Access.READ, Privilege.SUPERVISOR)  # faults, or not
            await Await(WordIs(READY, 1))
            before = litmus.faults[1]
            await Load(X)
            litmus.seen["faults"] = litmus.faults[1] - before

        litmus.run(1, reader)

    assert values(program, "faults") == {(0,)}


def psc_program(litmus: Litmus, *, invalidates: bool) -> None:
    """CPU 0 clears the PDE of x and uses the page-table page for something else; CPU 1 reads x."""
    marked(litmus)
    table = Pte(litmus.memory.read_word(litmus.slot(X, 2))).pfn

    async def reuser() -> None:
        await Store(litmus.alias(litmus.slot(X, 2)), 0)
        await Store(litmus.alias(table * PAGE), entry(NEW))
        await AddWords(((READY, 1),))

    async def reader() -> None:
        await Await(WordIs(READY, 1))
        if invalidates:
            await FlushTlbPages(VirtAddr(Y))  # another address: it empties these caches all the same
        litmus.seen["x"] = None
        litmus.seen["x"] = await Load(X)

    litmus.run(0, reuser)
    litmus.run(1, reader)


def test_psc_a_read_may_go_through_the_reused_page_table_page() -> None:
    kill = on(LAZY, on_trap=TrapOutcome.KILL)
    found = values(lambda litmus: psc_program(litmus, invalidates=False), "x", make=kill)
    assert found == {(1,), (2,), (None,)}


def test_psc_not_on_a_cpu_that_reads_all_levels_at_each_walk() -> None:
    kill = on(LAZY_NO_PSC, on_trap=TrapOutcome.KILL)
    found = values(lambda litmus: psc_program(litmus, invalidates=False), "x", make=kill)
    assert found == {(1,), (None,)}


def test_psc_after_the_reuse_and_an_invlpg_anywhere_only_what_was_cached_before_it() -> None:
    """The INVLPG drops directory entries; a TLB entry for x made before it may stay."""
    kill = on(LAZY, on_trap=TrapOutcome.KILL)

    def program(litmus: Litmus) -> None:
        marked(litmus)
        table = Pte(litmus.memory.read_word(litmus.slot(X, 2))).pfn

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X, 2)), 0)
            await FlushTlbPages(VirtAddr(Y))
            await Store(litmus.alias(table * PAGE), entry(NEW))
            litmus.seen["x"] = None
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x", make=kill) == {(1,), (None,)}


@pytest.mark.parametrize(
    ("bits", "seen"), [(RW | G, {(1,), (2,)}), (RW, {(2,)})], ids=["global", "not global"]
)
def test_global_cr3_the_old_frame_may_still_be_read_after_mov_cr3(bits: object, seen: set[object]) -> None:
    def program(litmus: Litmus) -> None:
        marked(litmus)
        litmus.map(X, OLD, bits)

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X)), entry(NEW, bits))
            litmus.machine.cpus[0].mmu.load_root(ROOT, 0)
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x") == seen


@every_model
def test_toggle_wp_the_second_write_faults_without_an_invalidation(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        litmus.map(X, OLD, RO | D)
        mmu = litmus.machine.cpus[0].mmu

        async def thread() -> None:
            await Store(X, 1)
            mmu.control = replace(mmu.control, write_protect=True)
            litmus.seen["x"] = 1
            await Store(X, 2)
            litmus.seen["x"] = 2

        litmus.run(0, thread)

    off = Control(write_protect=False)
    assert values(program, "x", make=on(model, on_trap=TrapOutcome.KILL, control=off)) == {(1,)}


@every_model
def test_two_paths_to_one_table_keep_their_own_rights(model: CpuModel) -> None:
    second = VirtAddr(X + (1 << 30))

    def program(litmus: Litmus) -> None:
        litmus.slot(second, 2)
        table = Pte(litmus.memory.read_word(litmus.slot(X, 2))).pfn
        litmus.preset(litmus.slot(second, 2), Pte.make(table, P | A))

        async def by_the_writable_path() -> None:
            await Load(second)
            await Store(X, 7)
            litmus.seen["writable"] = litmus.faults[0]

        async def by_the_other() -> None:
            await Load(X)
            litmus.seen["read-only"] = "went through"
            try:
                await Store(second, 8)
            finally:
                litmus.seen["read-only"] = litmus.faults[1]

        litmus.run(0, by_the_writable_path)
        litmus.run(1, by_the_other)

    kill = on(model, on_trap=TrapOutcome.KILL)
    assert values(program, "writable", "read-only", make=kill) == {(0, 1)}


@every_model
def test_split_same_the_data_is_always_right_and_two_sizes_may_be_cached(model: CpuModel) -> None:
    """A 2M leaf becomes 512 entries with the same frames and rights; nothing is invalidated."""
    at = VirtAddr(X + 3 * PAGE)

    def program(litmus: Litmus) -> None:
        table = 0x180
        litmus.preset(litmus.slot(X, 2), entry(0xA00, RW | PS))
        for index in range(512):
            litmus.preset(table * PAGE + 8 * index, entry(0xA00 + index))
        litmus.preset((0xA00 + 3) * PAGE, 5)

        async def splitter() -> None:
            await Store(litmus.alias(litmus.slot(X, 2)), Pte.make(Pfn(table), TABLE))
            await Store(VirtAddr(at + 8), 6)

        async def reader() -> None:
            litmus.seen["first"] = await Load(at)
            litmus.seen["second"] = await Load(VirtAddr(at + 8))
            tlb = litmus.machine.cpus[1].mmu.tlb
            usable = tlb.usable(at, 0, Port.DATA)
            sizes = {one.size for one in usable.entries}
            litmus.seen["sizes"] = PageSize.MIB2 in sizes

        litmus.run(0, splitter)
        litmus.run(1, reader)

    found = values(program, "first", "second", make=on(model))
    assert found == {(5, 0), (5, 6)}
    assert (True,) in values(program, "sizes", make=on(model))
