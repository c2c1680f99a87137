"""The interrupt fabric: requests, queues and acknowledgements."""

from __future__ import annotations

import pytest

from emu.cpu.apic import Apic, Ipi


def test_the_apic_numbers_requests_and_queues_them_for_each_target() -> None:
    apic = Apic(3)
    first = apic.send(0, frozenset({1, 2}), 5, "a")
    second = apic.send(2, frozenset({1}), 6, "b")
    assert (first, second) == (0, 1)
    assert apic.interrupted == {1, 2}
    assert [apic.take(1), apic.take(1)] == [Ipi(0, 0, 5, "a"), Ipi(1, 2, 6, "b")]
    assert apic.interrupted == {2}
    assert apic.owing(0) == {1, 2}
    apic.acknowledge(1, 0)
    assert not apic.acknowledged(0)
    apic.acknowledge(2, 0)
    assert apic.acknowledged(0)
    assert not apic.acknowledged(1)


@pytest.mark.parametrize("targets", [{0}, {3}, {-1}, {1, 7}])
def test_the_apic_refuses_targets_that_are_not_there_or_the_sender(targets: set[int]) -> None:
    apic = Apic(3)
    wrong = sorted(targets - {1})
    with pytest.raises(ValueError, match=rf"^cpu0 cannot send an IPI to \[{wrong[0]}\]$"):
        apic.send(0, frozenset(targets), 5, None)
    assert apic.interrupted == set()


@pytest.mark.parametrize(("cpu", "request_number"), [(1, 5), (1, -1), (0, 0), (2, 0)])
def test_the_apic_refuses_an_acknowledgement_that_is_not_owed(cpu: int, request_number: int) -> None:
    apic = Apic(3)
    apic.send(0, frozenset({1}), 5, None)
    with pytest.raises(ValueError, match=f"^cpu{cpu} owes request {request_number} no acknowledgement$"):
        apic.acknowledge(cpu, request_number)


def test_the_apic_refuses_to_be_acknowledged_twice() -> None:
    apic = Apic(2)
    apic.send(0, frozenset({1}), 5, None)
    apic.acknowledge(1, 0)
    with pytest.raises(ValueError, match="owes request 0 no acknowledgement"):
        apic.acknowledge(1, 0)


def test_an_ipi_to_nobody_is_acknowledged_at_once() -> None:
    apic = Apic(1)
    assert apic.acknowledged(apic.send(0, frozenset(), 5, None))
