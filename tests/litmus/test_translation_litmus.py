"""Stated verdicts for small translation programs, each over all interleavings and all versions.

The shapes come from the literature on memory transistency (COATCheck, TransForm). `Wpte x` stores another
entry for x, `I x` is an INVLPG, `||` separates CPUs, `=>I x` is the INVLPG a CPU performs in its handler of
the other's interrupt. A permitted outcome must be among those found, a forbidden one must not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from litmus_enumerator import (
    NEW,
    OLD,
    PAGE,
    PS,
    RO,
    ROOT,
    RW,
    TABLE,
    A,
    D,
    G,
    Litmus,
    P,
    U,
    W,
    X,
    Y,
    entry,
    outcomes,
    values,
)

from emu.addr import PageSize, Pfn, VirtAddr
from emu.cpu.condition import Acknowledged, Word, WordIs
from emu.cpu.ops import Acknowledge, AddWords, Await, FlushTlbPages, Load, SendIpi, Store
from emu.cpu.software import Grain, InterruptHandler, TrapOutcome
from emu.paging.models import LAZY, LAZY_NO_PSC, LAZY_SINGLE, CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import Port
from emu.paging.walk import Access, Control, Privilege

FLUSH = 0xFD
MODELS = [LAZY, LAZY_SINGLE, LAZY_NO_PSC]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def on(
    model: CpuModel, *, on_trap: TrapOutcome = TrapOutcome.RETRY, control: Control | None = None
) -> Callable[[], Litmus]:
    """Makes machines of that model."""
    return lambda: Litmus(model=model, on_trap=on_trap, control=control or Control())


def marked(litmus: Litmus) -> None:
    """The first word of the old frame says 1, of the new one 2."""
    litmus.preset(OLD * PAGE, 1)
    litmus.preset(NEW * PAGE, 2)


# --- the first table ------------------------------------------------------------------------------------


def test_rftest_w_x_and_r_x_elsewhere_r_sees_w_is_permitted() -> None:
    def program(litmus: Litmus) -> None:
        async def writer() -> None:
            await Store(X, 1)

        async def reader() -> None:
            litmus.seen["x"] = await Load(X)

        litmus.run(0, writer)
        litmus.run(1, reader)

    assert values(program, "x") == {(0,), (1,)}


@every_model
def test_invlpgtest_i_x_then_r_x_is_permitted(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        marked(litmus)

        async def thread() -> None:
            await FlushTlbPages(X)
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x", make=on(model)) == {(1,)}


@every_model
def test_ptwalk2_wpte_x_i_x_r_x_by_the_old_entry_is_forbidden(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        marked(litmus)

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X)), entry(NEW))
            await FlushTlbPages(X)
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x", make=on(model)) == {(2,)}


@every_model
def test_ptwalk2_without_the_invlpg_either_entry_may_be_used(model: CpuModel) -> None:
    """What the verdict above rests on."""

    def program(litmus: Litmus) -> None:
        marked(litmus)

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X)), entry(NEW))
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x", make=on(model)) == {(1,), (2,)}


@pytest.mark.parametrize("level", [4, 3, 2])
def test_ptwalk2_for_a_directory_entry_is_forbidden_too(level: int) -> None:
    """The INVLPG ends what the paging-structure caches had, at whatever level the store was."""

    def program(litmus: Litmus) -> None:
        marked(litmus)
        other = other_path(litmus, level)

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X, level)), other)
            await FlushTlbPages(X)
            litmus.seen["x"] = await Load(X)

        litmus.run(0, thread)

    assert values(program, "x") == {(2,)}


def other_path(litmus: Litmus, level: int) -> Pte:
    """An entry of that level that leads, by tables of its own, to the new frame for X."""
    table = 0x180
    below = entry(NEW)
    for number in range(1, level):
        index = X >> (12 + 9 * (number - 1)) & 511
        litmus.preset((table + number) * PAGE + 8 * index, below)
        below = entry(table + number, TABLE)
    return below


def test_ptwalk3_a_second_walk_with_no_invalidation_between_is_permitted() -> None:
    """The entry was lost by itself: the second read comes by what was stored in the meantime."""

    def program(litmus: Litmus) -> None:
        marked(litmus)

        async def reader() -> None:
            litmus.seen["first"] = await Load(X)
            litmus.seen["second"] = await Load(X)

        async def writer() -> None:
            await Store(litmus.alias(litmus.slot(X)), entry(NEW))

        litmus.run(0, reader)
        litmus.run(1, writer)

    found = values(program, "first", "second")
    assert (1, 2) in found
    # Set semantics: also the new one first and the old one after it.
    assert found == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert values(program, "first", "second", make=on(LAZY_SINGLE)) == {(1, 1), (1, 2), (2, 2)}


@every_model
def test_ptwalktest_a_write_after_wpte_and_i_goes_to_the_new_frame_and_is_read_back(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        marked(litmus)

        async def thread() -> None:
            await Store(litmus.alias(litmus.slot(X)), entry(NEW))
            await FlushTlbPages(X)
            await Store(X, 7)
            litmus.seen["x"] = await Load(X)
            litmus.seen["old"], litmus.seen["new"] = litmus.value(OLD), litmus.value(NEW)

        litmus.run(0, thread)

    assert values(program, "x", "old", "new", make=on(model)) == {(7, 1, 7)}


@every_model
def test_dirtybit2_the_write_sets_dirty_in_the_new_entry(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        slot = litmus.slot(X)

        async def thread() -> None:
            await Store(litmus.alias(slot), entry(NEW, P | W))
            await FlushTlbPages(X)
            await Store(X, 7)
            litmus.seen["x"] = await Load(X)
            litmus.seen["entry"] = litmus.memory.read_word(slot)

        litmus.run(0, thread)

    assert values(program, "x", "entry", make=on(model)) == {(7, entry(NEW, P | W | A | D))}


@every_model
def test_dirtybit3_a_read_sets_accessed_and_the_write_after_it_dirty(model: CpuModel) -> None:
    def program(litmus: Litmus) -> None:
        slot = litmus.slot(X)

        async def thread() -> None:
            await Store(litmus.alias(slot), entry(NEW, P | W))
            await FlushTlbPages(X)
            await Load(X)
            litmus.seen["read"] = litmus.memory.read_word(slot)
            await Store(X, 7)
            litmus.seen["written"] = litmus.memory.read_word(slot)

        litmus.run(0, thread)

    found = values(program, "read", "written", make=on(model))
    assert found == {(entry(NEW, P | W | A), entry(NEW, P | W | A | D))}


def test_mp_new_y_then_old_x_is_forbidden() -> None:
    def program(litmus: Litmus) -> None:
        async def writer() -> None:
            await Store(X, 1)
            await Store(Y, 1)

        async def reader() -> None:
            litmus.seen["y"] = await Load(Y)
            litmus.seen["x"] = await Load(X)

        litmus.run(0, writer)
        litmus.run(1, reader)

    assert values(program, "y", "x") == {(0, 0), (0, 1), (1, 1)}


def test_sb_both_read_old_needs_a_store_buffer_and_is_not_shown_here() -> None:
    """Permitted on x86 (TSO). The machine is sequentially consistent at the grain of a step, and says so."""

    def program(litmus: Litmus) -> None:
        def side(mine: VirtAddr, other: VirtAddr, key: str):
            async def thread() -> None:
                await Store(mine, 1)
                litmus.seen[key] = await Load(other)

            return thread

        litmus.run(0, side(X, Y, "y"))
        litmus.run(1, side(Y, X, "x"))

    assert values(program, "x", "y") == {(0, 1), (1, 0), (1, 1)}


def shooting(grain: Grain, model: CpuModel = LAZY) -> Callable[[], Litmus]:
    """A machine whose flush handler does INVLPG x, notes that it has, and acknowledges."""

    def make() -> Litmus:
        async def handler(request: int, payload: object) -> None:
            await FlushTlbPages(X)
            litmus.notes.append("invalidated")
            await Acknowledge(request)

        litmus = Litmus(model=model, interrupts={FLUSH: InterruptHandler(handler, grain)})
        return litmus

    return make


def ipi_program(litmus: Litmus) -> None:
    """CPU 0: Wpte x; I x; interrupt CPU 1 and wait; W y. CPU 1: R y; W x; where did it go, and after what?"""
    marked(litmus)

    async def initiator() -> None:
        await Store(litmus.alias(litmus.slot(X)), entry(NEW))
        await FlushTlbPages(X)
        await Await(Acknowledged(await SendIpi(frozenset({1}), FLUSH)))
        await Store(Y, 1)

    async def other() -> None:
        litmus.seen["y"] = await Load(Y)
        await Store(X, 7)
        # Still the step of that store: nothing has happened in between.
        litmus.seen["invalidated"] = litmus.notes == ["invalidated"]
        litmus.seen["went"] = "old" if litmus.value(OLD) == 7 else "new"

    litmus.run(0, initiator)
    litmus.run(1, other)


every_grain = pytest.mark.parametrize("grain", Grain, ids=lambda grain: grain.name.lower())


@every_grain
@every_model
def test_ipi4_the_far_write_after_its_invlpg_to_the_old_frame_is_forbidden(
    grain: Grain, model: CpuModel
) -> None:
    found = values(ipi_program, "invalidated", "went", make=shooting(grain, model))
    assert (True, "old") not in found
    assert (True, "new") in found


@every_grain
@every_model
def test_ipi4_who_has_read_y_after_the_wait_writes_to_the_new_frame(grain: Grain, model: CpuModel) -> None:
    found = values(ipi_program, "y", "went", make=shooting(grain, model))
    assert (1, "old") not in found
    assert (1, "new") in found


@every_grain
@every_model
def test_ipi5_stale_use_before_the_far_invlpg_is_permitted(grain: Grain, model: CpuModel) -> None:
    found = values(ipi_program, "invalidated", "went", make=shooting(grain, model))
    assert found == {(False, "old"), (False, "new"), (True, "new")}
    assert (0, "old") in values(ipi_program, "y", "went", make=shooting(grain, model))


# --- the second table -----------------------------------------------------------------------------------

READY = Word("ready")


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


# --- the enumerator itself ------------------------------------------------------------------------------


def test_the_enumerator_finds_every_interleaving_of_two_times_two_steps() -> None:
    orders = ("aabb", "abab", "abba", "baab", "baba", "bbaa")

    def program(litmus: Litmus) -> None:
        order: list[str] = []

        def side(name: str):
            async def thread() -> None:
                for _ in range(2):
                    await Load(Y)
                    order.append(name)
                    litmus.seen["order"] = "".join(order)

            return thread

        litmus.run(0, side("a"))
        litmus.run(1, side("b"))

    assert values(program, "order") == {(order,) for order in orders}


def test_the_enumerator_reports_a_deadlock() -> None:
    def program(litmus: Litmus) -> None:
        async def thread() -> None:
            await Await(WordIs(READY, 5))

        litmus.run(0, thread)

    assert outcomes(program) == {(("deadlock", "{0: 'ready = 5'}"),)}


def test_the_user_bit_of_directories_is_set_in_these_tables() -> None:
    """So that rights come from the leaves alone."""
    litmus = Litmus()
    for level in (4, 3, 2):
        assert Pte(litmus.memory.read_word(litmus.slot(X, level))) & (P | W | U) == P | W | U
