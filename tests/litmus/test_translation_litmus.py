"""Stated verdicts for small translation programs, each over all interleavings and all versions.

The shapes come from the literature on memory transistency (COATCheck, TransForm). `Wpte x` stores another
entry for x, `I x` is an INVLPG, `||` separates CPUs, `=>I x` is the INVLPG a CPU performs in its handler of
the other's interrupt. A permitted outcome must be among those found, a forbidden one must not.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from litmus_enumerator import NEW, OLD, PAGE, TABLE, A, D, Litmus, P, W, X, Y, entry, values
from litmus_programs import every_model, marked, on

from emu.addr import VirtAddr
from emu.cpu.condition import Acknowledged
from emu.cpu.ops import Acknowledge, Await, FlushTlbPages, Load, SendIpi, Store
from emu.cpu.software import Grain, InterruptHandler
from emu.paging.models import LAZY, LAZY_SINGLE, CpuModel
from emu.paging.pte import Pte

FLUSH = 0xFD


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
