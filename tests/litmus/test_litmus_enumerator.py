"""The enumerator that the litmus programs are run by."""

from __future__ import annotations

from litmus_enumerator import Litmus, P, U, W, X, Y, outcomes, values
from litmus_programs import READY

from emu.cpu.condition import WordIs
from emu.cpu.ops import Await, Load
from emu.paging.pte import Pte

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
