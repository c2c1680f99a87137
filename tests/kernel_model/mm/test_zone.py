"""What the allocator knows, transaction by transaction: equal ones do the same to equal ledgers."""

from __future__ import annotations

from emu.addr import Pfn
from emu.ledger import Ledger
from kernel_model.mm.free_area import FreeArea, Relisted, free_blocks
from kernel_model.mm.zone import (
    PCP_BATCH,
    GenerationOf,
    GiveBlock,
    GiveSingle,
    IsFree,
    Refill,
    TakeBlock,
    TakenFrames,
    TakeRange,
    TakeSingle,
    forget_generations,
    pcp_count,
)


def with_blocks(*blocks: tuple[int, int]) -> Ledger:
    """(first frame, order) of each that is free."""
    ledger = Ledger()
    area = FreeArea(ledger)
    for pfn, order in blocks:
        area.give(pfn, order)
    area.enter()
    ledger.forget()
    return ledger


def test_from_time_zero_on_nothing_was_ever_freed() -> None:
    ledger = with_blocks((0x800, 6))
    GiveSingle(0, Pfn(0x900), 3)(ledger)
    assert GenerationOf(Pfn(0x900))(ledger) == 3
    forget_generations(ledger)
    assert GenerationOf(Pfn(0x900))(ledger) == 0
    assert IsFree(Pfn(0x900))(ledger)


def test_a_cpus_list_is_filled_a_batch_at_a_time_and_taken_from_its_front() -> None:
    ledger = with_blocks((0x800, 6))
    assert TakeSingle(1)(ledger) is None
    relisted = Refill(1)(ledger)
    assert ledger.get(pcp_count(1), 0) == PCP_BATCH
    assert relisted.gone == (0x800,)
    assert [(pfn, order) for pfn, order, _, _ in relisted.there] == [(0x810, 4), (0x820, 5)]
    assert TakeSingle(1)(ledger) == 0x800
    assert TakeSingle(0)(ledger) is None
    assert not IsFree(0x800)(ledger)
    assert IsFree(0x801)(ledger), "on a list"
    assert IsFree(0x83F)(ledger), "in a block"
    GiveSingle(1, 0x800, 1)(ledger)
    assert TakeSingle(1)(ledger) == 0x800
    assert (GenerationOf(0x800)(ledger), GenerationOf(0x801)(ledger)) == (1, 0)
    assert [TakeSingle(1)(ledger) for _ in range(PCP_BATCH)] == [*range(0x801, 0x800 + PCP_BATCH), None]


def test_a_change_of_a_cpus_list_costs_the_same_however_long_it_is() -> None:
    """65,520 pages are on it where 16 huge pages of 1 GiB are optimized."""
    ledger = Ledger()
    for pfn in range(1000):
        GiveSingle(0, Pfn(pfn), 1)(ledger)
    changes = ledger.now
    GiveSingle(0, Pfn(1000), 1)(ledger)
    assert ledger.now - changes == changes // 1000
    assert {type(value) for value in ledger.values.values()} == {int, bool}, "no list that is copied"


def test_a_block_given_back_is_merged_and_what_memory_is_told_is_the_difference() -> None:
    ledger = with_blocks((0x800, 3))
    taken = TakeBlock(2)(ledger)
    assert (taken.pfn, taken.relisted.gone) == (0x800, (0x800,))
    assert ledger.get(free_blocks(2), ()) == (0x804,)
    relisted = GiveBlock(0x800, 2, 1)(ledger)
    assert ledger.get(free_blocks(2), ()) == ()
    assert ledger.get(free_blocks(3), ()) == (0x800,)
    assert (relisted.gone, [row[:2] for row in relisted.there]) == ((0x804,), [(0x800, 3)])


def test_what_cannot_be_taken_changes_nothing() -> None:
    ledger = with_blocks((0x800, 3))
    nothing = TakenFrames(None, Relisted((), (), b""))
    assert [TakeBlock(4)(ledger), TakeRange(0x808, 3)(ledger)] == [nothing, nothing]
    assert ledger.now == 0
    assert TakeRange(0x802, 1)(ledger).pfn == 0x802


def test_transactions_are_values() -> None:
    assert TakeBlock(9) == TakeBlock(9) != TakeBlock(8)
    assert len({GiveSingle(0, 0x800, 1), GiveSingle(0, 0x800, 1), GiveSingle(1, 0x800, 1)}) == 2
    one, other = with_blocks((0x800, 6)), with_blocks((0x800, 6))
    assert Refill(0)(one) == Refill(0)(other)
    assert one.values == other.values
