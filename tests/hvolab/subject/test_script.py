"""Scripts: each constraint is met in its order, and one that cannot be met says why."""

from __future__ import annotations

import pytest
from scripted import DOOR, NOWHERE, actor, go, word, writer

from emu.choice import Step, TakeInterrupt
from emu.cpu.condition import WordIs
from emu.cpu.ops import AddWords, Await, SetInterrupts, Store
from emu.events import Finished, IpiAcknowledged, IpiSent, IpiTaken
from hvolab.catalog import scenario
from hvolab.catalog.common import flush_all
from hvolab.subject.outcome import Completed
from hvolab.subject.pattern import Finishes, Loads, SendsIpi, Stores
from hvolab.subject.run import run
from hvolab.subject.scenario import KernelActor
from hvolab.subject.schedule import parse
from hvolab.subject.script import AsFarAsItGoes, Constraint, Interrupt, Script, ScriptError, ToEnd, Until
from kernel_model.boot import System


def refused(script: Script, *actors: KernelActor, cpus: int = 2) -> str:
    with pytest.raises(ScriptError) as caught:
        go(script, *actors, cpus=cpus)
    return str(caught.value)


# --- constraints are met --------------------------------------------------------------------------------


def test_without_constraints_the_lowest_cpu_runs_first() -> None:
    done = go((), writer(1), writer(0))
    assert done.stores() == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]


def test_until_includes_the_step_in_which_it_happens_and_no_other() -> None:
    done = go((Until(1, Stores(word(1, 1))),), writer(0), writer(1))
    assert done.stores() == [(1, 1), (1, 2), (0, 1), (0, 2), (0, 3), (1, 3)]


def test_constraints_are_met_one_after_the_other() -> None:
    script = (
        Until(1, Stores(word(1, 0))),
        Until(0, Stores(word(0, 1))),
        Until(1, Stores(word(1, 1))),
        ToEnd(0),
        ToEnd(1),
    )
    assert go(script, writer(0), writer(1)).stores() == [(1, 1), (0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]


def test_what_another_cpu_does_meets_no_constraint() -> None:
    # cpu0 stores to the word first; cpu1 must still do so itself.
    both = (actor(0, "a", Store(word(0, 0), 1)), actor(1, "b", Store(word(1, 1), 7), Store(word(0, 0), 8)))
    done = go((ToEnd(0), Until(1, Stores(word(0, 0)))), *both)
    assert done.stores() == [(0, 1), (1, 7), (1, 8)]


def test_what_happened_before_meets_no_later_constraint() -> None:
    again = actor(1, "b", Store(word(1, 0), 1), Store(word(1, 1), 2), Store(word(1, 0), 3))
    script = (Until(1, Stores(word(1, 0))), Until(1, Stores(word(1, 0))), ToEnd(0))
    assert go(script, writer(0, words=1), again).stores() == [(1, 1), (1, 2), (1, 3), (0, 1)]


def test_to_its_end_takes_in_every_actor_of_the_cpu() -> None:
    done = go((ToEnd(1), ToEnd(0)), writer(0), writer(1, "first", 1), writer(1, "second", 2))
    assert done.stores() == [(1, 1), (1, 1), (1, 2), (0, 1), (0, 2), (0, 3)]


def test_until_the_end_of_one_actor_leaves_the_next_alone() -> None:
    done = go(
        (Until(1, Finishes("first")),), writer(0, words=1), writer(1, "first", 1), writer(1, "second", 2)
    )
    assert done.stores() == [(1, 1), (0, 1), (1, 1), (1, 2)]


def test_a_cpu_without_actors_is_at_its_end() -> None:
    assert go((ToEnd(1), ToEnd(0)), writer(0, words=1)).stores() == [(0, 1)]


def test_the_rest_is_run_lowest_cpu_first_after_the_last_constraint() -> None:
    done = go((Until(2, Stores(word(2, 0))),), writer(0, words=1), writer(1, words=1), writer(2), cpus=3)
    assert done.stores() == [(2, 1), (0, 1), (1, 1), (2, 2), (2, 3)]


def test_a_scripts_run_has_a_schedule_of_picks() -> None:
    done = go((ToEnd(1), ToEnd(0)), writer(0), writer(1))
    assert done.run.schedule.picks == parse("v2 1*3 0*3").picks
    assert str(done.run.outcome) == "completed"


@pytest.mark.parametrize(
    ("constraint", "text"),
    [(ToEnd(3), "cpu3 to its end"), (Interrupt(255), "cpu255 takes an interrupt")],
)
def test_constraints_in_words(constraint: Constraint, text: str) -> None:
    assert str(constraint) == text


# --- interrupts -----------------------------------------------------------------------------------------


def test_the_others_take_interrupts_only_while_the_driven_cpu_waits() -> None:
    done = go((ToEnd(0), ToEnd(1), ToEnd(2)), flush_all(0), writer(1), writer(2), cpus=3)
    taken = [(choice, blocked) for choice, blocked in done.picked if isinstance(choice, TakeInterrupt)]
    assert [choice.cpu for choice, _ in taken] == [1, 2]
    assert all(blocked == {0: "request 0 is acknowledged by all"} for _, blocked in taken)
    # Nothing else of the others happened meanwhile.
    assert [choice for choice, _ in done.picked if isinstance(choice, Step)][-6:] == [Step(1)] * 3 + [
        Step(2)
    ] * 3
    assert done.of(Finished)[0].cpu == 0


def test_an_interrupt_stays_pending_while_the_driven_cpu_does_not_wait() -> None:
    done = go((Until(0, SendsIpi()), ToEnd(1), ToEnd(0)), flush_all(0), writer(1))
    order = [type(event) for event in done.of(IpiSent, IpiTaken, Finished)]
    # cpu1 ends before it takes the interrupt; cpu0, which waits for it, ends last.
    assert order == [IpiSent, Finished, IpiTaken, Finished]


def test_the_driven_cpu_takes_its_own_interrupts_while_it_waits_too() -> None:
    """Two flushes at once: each waits for the other's CPU."""
    done = go((Until(0, SendsIpi()), Until(1, SendsIpi()), ToEnd(0), ToEnd(1)), flush_all(0), flush_all(1))
    assert str(done.run.outcome) == "completed"
    assert [event.cpu for event in done.of(IpiAcknowledged)] == [0, 1]


def test_interrupt_makes_a_cpu_take_one_that_nobody_waits_for_yet() -> None:
    done = go((Until(0, SendsIpi()), Interrupt(1), ToEnd(1), ToEnd(0)), flush_all(0), writer(1, words=1))
    order = [(type(event), event.cpu) for event in done.of(IpiTaken, Finished)]
    assert order == [(IpiTaken, 1), (Finished, 1), (Finished, 0)]


def test_a_cpu_with_interrupts_off_is_waited_for_only_when_it_turns_them_on() -> None:
    closed = actor(1, "closed", SetInterrupts(False), Store(word(1, 0), 1), SetInterrupts(True))
    done = go((Until(1, Stores(word(1, 0))), Until(0, SendsIpi()), ToEnd(1), ToEnd(0)), flush_all(0), closed)
    assert [event.cpu for event in done.of(IpiTaken, Finished)] == [1, 1, 0]


# --- constraints that cannot be met ---------------------------------------------------------------------


NEVER = f"Load({NOWHERE:#x})"


def test_the_cpu_has_ended_while_others_still_run() -> None:
    assert refused((Until(0, Loads(NOWHERE)),), writer(0), writer(1)) == (
        f"cannot meet 'cpu0 until {NEVER}': the CPU has ended"
    )


def test_the_cpu_has_ended_and_so_has_everything_else() -> None:
    assert refused((ToEnd(1), Until(0, Loads(NOWHERE))), writer(0), writer(1)) == (
        f"cannot meet 'cpu0 until {NEVER}': the CPU has ended"
    )


def test_the_cpu_had_nothing_to_do() -> None:
    assert refused((Until(1, Loads(NOWHERE)),), writer(0)) == (
        f"cannot meet 'cpu1 until {NEVER}': the CPU has ended"
    )


@pytest.mark.parametrize("constraint", [ToEnd(0), Until(0, Finishes("waiter"))])
def test_the_cpu_waits_for_what_only_another_step_can_bring(constraint: Constraint) -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    opener = actor(1, "opener", AddWords(((DOOR, 1),)))
    assert refused((constraint,), waiter, opener) == f"cannot meet '{constraint}': the CPU waits for door = 1"


@pytest.mark.parametrize("constraint", [ToEnd(0), Until(0, Finishes("waiter"))])
def test_the_cpu_waits_for_what_nothing_brings(constraint: Constraint) -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    assert refused((constraint,), waiter) == f"cannot meet '{constraint}': the CPU waits for door = 1"


def test_opening_the_door_first_meets_the_same_script() -> None:
    waiter = actor(0, "waiter", Await(WordIs(DOOR, 1)))
    opener = actor(1, "opener", AddWords(((DOOR, 1),)))
    assert [event.cpu for event in go((ToEnd(1), ToEnd(0)), waiter, opener).of(Finished)] == [1, 0]


NONE_PENDING = "none is pending, or interrupts are off"


@pytest.mark.parametrize("script", [(Interrupt(1),), (ToEnd(0), ToEnd(1), Interrupt(1))])
def test_no_interrupt_is_pending(script: Script) -> None:
    assert refused(script, writer(0), writer(1)) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"


def test_the_interrupt_has_been_taken_already() -> None:
    script = (Until(0, SendsIpi()), Interrupt(1), Interrupt(1))
    assert (
        refused(script, flush_all(0), writer(1)) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"
    )


def test_an_interrupt_is_pending_but_interrupts_are_off() -> None:
    closed = actor(1, "closed", SetInterrupts(False), Store(word(1, 0), 1), SetInterrupts(True))
    script = (Until(1, Stores(word(1, 0))), Until(0, SendsIpi()), Interrupt(1))
    assert refused(script, flush_all(0), closed) == f"cannot meet 'cpu1 takes an interrupt': {NONE_PENDING}"


@pytest.mark.parametrize(
    ("left", "why"),
    [
        (Until(1, Stores(word(1, 0))), "the CPU has ended"),
        (Until(0, Finishes("nobody")), "the CPU has ended"),
        (Interrupt(0), NONE_PENDING),
    ],
)
def test_a_constraint_left_over_at_the_end(left: Constraint, why: str) -> None:
    script = (ToEnd(0), ToEnd(1), left)
    assert refused(script, writer(0), writer(1)) == f"cannot meet '{left}': {why}"


def test_the_first_constraint_that_cannot_be_met_is_the_one_named() -> None:
    script = (ToEnd(1), Until(1, Loads(NOWHERE)), Until(0, Loads(NOWHERE)))
    assert refused(script, writer(0), writer(1)).startswith("cannot meet 'cpu1 until ")


def test_a_cpu_that_is_not_there_is_said_before_anything_runs() -> None:
    said = refused((ToEnd(7),), writer(0))
    assert said == "'cpu7 to its end': there is no such CPU, 2 are numbered from 0"


def test_a_script_for_other_actors_goes_as_far_as_it_goes_and_says_what_it_left_out() -> None:
    setup = scenario("stale-read").build(2)
    pickers: list[AsFarAsItGoes] = []

    def picker_for(system: System) -> AsFarAsItGoes:
        pickers.append(AsFarAsItGoes((Until(1, Loads(NOWHERE)), *setup.script), system.machine))
        return pickers[-1]

    assert run(setup, picker_for).outcome == Completed()
    (left_out, *_) = pickers[0].left_out
    assert left_out == f"cannot meet 'cpu1 until Load({NOWHERE:#x})': the CPU has ended"
