"""What software knows beside memory is put back as memory is."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emu.ledger import Ledger, LedgerEntry

A, B, C = LedgerEntry("a"), LedgerEntry("b", 3), LedgerEntry("c")
Changes = list[tuple[LedgerEntry, int | None]]
changes = st.lists(st.tuples(st.sampled_from((A, B, C)), st.none() | st.integers(0, 3)), max_size=24)


def change(ledger: Ledger, entry: LedgerEntry, value: int | None) -> None:
    """None stands for its removal."""
    if value is None:
        ledger.remove(entry)
    else:
        ledger.set(entry, value)


def test_what_was_never_set_is_what_its_reader_takes_it_for() -> None:
    ledger = Ledger()
    assert (ledger.get(A, 7), ledger.get(A, ())) == (7, ())
    ledger.set(A, 1)
    assert ledger.get(A, 7) == 1
    assert dict(ledger.values) == {A: 1}
    ledger.remove(A)
    assert ledger.get(A, 7) == 7


@given(changes)
def test_undone_it_is_what_it_was(made: Changes) -> None:
    ledger = Ledger()
    kept: list[tuple[int, dict[LedgerEntry, Hashable]]] = []
    for entry, value in made:
        kept.append((ledger.now, dict(ledger.values)))
        change(ledger, entry, value)
    found = []
    for moment, _ in kept[::-1]:
        ledger.undo(moment)
        found.append((ledger.now, dict(ledger.values)))
    assert found[::-1] == kept


def test_what_is_forgotten_is_not_undone() -> None:
    ledger = Ledger()
    ledger.set(A, 1)
    ledger.forget()
    ledger.set(A, 2)
    ledger.set(B, 3)
    ledger.undo(0)
    assert dict(ledger.values) == {A: 1}


def test_values_are_changed_by_nobody_else() -> None:
    with pytest.raises(TypeError):
        Ledger().values[A] = 1  # type: ignore[index]


def test_entries_are_told_apart_by_name_and_index() -> None:
    assert [str(A), str(B)] == ["a", "b[3]"]
    assert len({A, B, LedgerEntry("a", 0), LedgerEntry("b")}) == 3
