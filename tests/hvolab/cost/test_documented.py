"""The documented numbers: what is published can be found in them again."""

from __future__ import annotations

from hvolab.cost.documented import CYCLES_A_MICROSECOND, DOCUMENTED


def microseconds(cycles: int) -> float:
    return cycles / CYCLES_A_MICROSECOND


def test_an_invlpg_is_a_hundred_nanoseconds_and_a_whole_tlb_376() -> None:
    assert (microseconds(DOCUMENTED.invlpg), microseconds(DOCUMENTED.full_flush)) == (0.1, 0.376)


def test_a_round_trip_between_two_cpus_is_one_to_three_microseconds() -> None:
    round_trip = DOCUMENTED.ipi_target + DOCUMENTED.ipi_delivery + DOCUMENTED.interrupt + DOCUMENTED.invlpg
    assert 1 <= microseconds(round_trip) <= 3


def test_what_interrupts_and_broadcasts_take_is_the_published_share_of_a_loop() -> None:
    """40 % of 36 / 731 k loops, and 4 % of 36 / 1,157 k."""
    each = DOCUMENTED.ipi_target + DOCUMENTED.interrupt + DOCUMENTED.invlpg
    assert 0.9 < 35 * microseconds(each) / (0.40 * 36 / 0.731) < 1.1
    assert 0.9 < microseconds(DOCUMENTED.broadcast + DOCUMENTED.tlbsync) / (0.04 * 36 / 1.157) < 1.1
