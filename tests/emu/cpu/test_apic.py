"""The interrupt fabric: requests, queues and acknowledgements."""

from __future__ import annotations

import pytest

from emu.cpu.apic import Apic, Ipi, TicksWithoutEnd


class NoNames:
    """Nothing has been sent."""

    def of_event(self, number: int) -> int:
        raise AssertionError(number)

    def of_request(self, number: int) -> int:
        raise AssertionError(number)


NO_NAMES = NoNames()


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


def test_what_is_to_be_done_at_the_next_tick_is_pending_once() -> None:
    apic = Apic(2)
    apic.need_tick(frozenset({0, 1}))
    apic.need_tick(frozenset({1}))
    assert apic.interrupted == {0, 1}
    assert [apic.pending(cpu) for cpu in (0, 1)] == [(0, True), (0, True)]
    apic.tick(1)
    assert apic.interrupted == {0}
    assert apic.pending(1) == (0, False)


def test_a_tick_and_an_interrupt_are_pending_beside_each_other() -> None:
    apic = Apic(2)
    apic.send(0, frozenset({1}), 5, None)
    apic.need_tick(frozenset({1}))
    apic.tick(1)
    assert (apic.interrupted, apic.pending(1)) == ({1}, (1, False))
    apic.need_tick(frozenset({1}))
    apic.take(1)
    assert (apic.interrupted, apic.pending(1)) == ({1}, (0, True))


def test_the_apic_refuses_ticks_of_cpus_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"^there is no tick on CPUs \[2\]$"):
        Apic(2).need_tick(frozenset({1, 2}))


def test_a_tick_is_part_of_the_state_and_is_put_back() -> None:
    apic = Apic(2)
    before, mark = apic.state(NO_NAMES), apic.mark()
    apic.need_tick(frozenset({1}))
    assert apic.state(NO_NAMES) != before
    apic.back(mark)
    assert apic.state(NO_NAMES) == before
    assert apic.interrupted == set()


def test_ticks_that_always_have_more_to_do_are_an_error() -> None:
    apic = Apic(1)
    for _ in range(1001):
        apic.need_tick(frozenset({0}))
        apic.tick(0)
    with pytest.raises(TicksWithoutEnd, match=r"^1000 ticks for each CPU, and more to do at the next one$"):
        apic.need_tick(frozenset({0}))


def test_an_ipi_to_nobody_is_acknowledged_at_once() -> None:
    apic = Apic(1)
    assert apic.acknowledged(apic.send(0, frozenset(), 5, None))
