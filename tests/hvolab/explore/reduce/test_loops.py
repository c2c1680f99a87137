"""Guest programs that loop: a state of one's own path ends a run, and hides nothing that lies behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_setups import MEMORY_BYTES, Outcomes, X, Y, setup_of

from emu.addr import PAGE_BYTES
from emu.cpu.ops import Store
from emu.paging.models import LAZY
from firmware.load import USER_ORIGIN, load_program
from firmware.program import Argument
from hvolab.catalog.common import HUGE_PAGE
from hvolab.command.status import NOT_COMPLETE, status_of_exploration
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import Exploration, explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.depth_first import everything
from hvolab.explore.search.interface import Freedom, Strategy
from hvolab.explore.search.randomly import Uniform
from hvolab.explore.states.visits import EVERY_STATE, NO_STATES
from hvolab.subject.picker import Replay
from hvolab.subject.run import run_on
from hvolab.subject.scenario import GuestActor, Setup
from kernel_model.boot import BootConfig, Kernel, boot
from kernel_model.core.bug import bug

ALL = frozenset(Freedom)
WORDS = (Argument("x", "rdi", "a word", "address"), Argument("y", "rsi", "another word", "address"))
SETS = "    mov qword ptr [rdi], 1\n    hlt"
# Each waits for the other's word before it sets its own.
POLLS = "again:\n    cmp qword ptr [rsi], 0\n    je again\n    mov qword ptr [rdi], 1\n    hlt"
SETS_THEN_POLLS = "    mov qword ptr [rdi], 1\nagain:\n    cmp qword ptr [rsi], 0\n    je again\n    hlt"
# Adds 2 without a lock: again, where somebody came between.
ADDS = """
again:
    mov rax, [rdi]
    lea rdx, [rax + 2]
    lock cmpxchg [rdi], rdx
    jne again
    hlt
"""
# A lock taken by trying: the word in RDI is 1 while it is held. The word in RSI is incremented under it.
LOCKS = """
again:
    mov eax, 1
    xchg [rdi], rax
    test rax, rax
    jne again
    mov rdx, [rsi]
    inc rdx
    mov [rsi], rdx
    mov qword ptr [rdi], 0
    hlt
"""
# The same, as short as can be.
LOCKS_BRIEFLY = """
again:
    mov eax, 1
    xchg [rdi], rax
    test rax, rax
    jne again
    inc qword ptr [rsi]
    mov qword ptr [rdi], 0
    hlt
"""


def setup(*programs: tuple[str, int, int]) -> Setup:
    """A guest program on each CPU, with its words."""
    actors = []
    for cpu, (text, x, y) in enumerate(programs):
        program = load_program(f"guest {cpu}", text, arguments=WORDS, origin=USER_ORIGIN + cpu * PAGE_BYTES)
        actors.append(GuestActor(cpu, program, (("x", int(x)), ("y", int(y)))))
    return Setup(BootConfig(MEMORY_BYTES, len(programs), (HUGE_PAGE,), model=LAZY), tuple(actors), (), ())


def shown(asked: Setup, search: Strategy, budget: Budget) -> tuple[Exploration, set[tuple[object, ...]]]:
    outcomes = Outcomes(search)
    return explore(asked, outcomes, ALL, budget), outcomes.seen


ENDING = {
    "one waits for a word that another sets": setup((SETS, X, Y), (POLLS, Y, X)),
    "each sets its word, then waits for the other's": setup((SETS_THEN_POLLS, X, Y), (SETS_THEN_POLLS, Y, X)),
    "a retry loop against a writer": setup((ADDS, X, Y), (SETS, X, Y)),
    "two retry loops": setup((ADDS, X, Y), (ADDS, X, Y)),
    "a lock taken by trying": setup((LOCKS, X, Y), (LOCKS, X, Y)),
}


@pytest.mark.parametrize("name", ENDING)
def test_a_loop_ends_a_run_and_what_lies_behind_it_is_shown(name: str) -> None:
    """Walks that do not care for states show nothing that is not among it."""
    done, seen = shown(ENDING[name], Reduced(EVERY_STATE), Budget())
    assert done.coverage.complete
    walked, some = shown(ENDING[name], Uniform(1, 400), Budget(steps=80))
    assert some
    assert some <= seen
    assert walked.coverage.distinct_states <= done.coverage.distinct_states
    assert {one.finding.verdict for one in walked.found} <= {one.finding.verdict for one in done.found}


# With so many steps a loop can be gone through once or twice, and then be left.
BOUNDED = {
    "one waits for a word that another sets": (ENDING["one waits for a word that another sets"], 10),
    "each sets its word, then waits for the other's": (
        ENDING["each sets its word, then waits for the other's"],
        14,
    ),
    "a retry loop against a writer": (ENDING["a retry loop against a writer"], 12),
    "two retry loops": (ENDING["two retry loops"], 15),
    "a lock taken by trying": (setup((LOCKS_BRIEFLY, X, Y), (LOCKS_BRIEFLY, X, Y)), 18),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDED)
def test_in_every_order_of_so_many_steps_nothing_else_is_shown(name: str) -> None:
    asked, steps = BOUNDED[name]
    done, seen = shown(asked, Reduced(EVERY_STATE), Budget())
    unreduced, within = shown(asked, everything(), Budget(steps=steps))
    assert (done.coverage.complete, unreduced.coverage.stopped_by) == (True, None)
    assert within
    assert within == seen
    assert {one.finding.verdict for one in unreduced.found} == {one.finding.verdict for one in done.found}


def test_who_can_step_and_does_not_makes_a_loop_none_for_ever() -> None:
    done, _ = shown(ENDING["one waits for a word that another sets"], Reduced(EVERY_STATE), Budget())
    assert (done.coverage.no_progress, status_of_exploration(done)) == ("", 0)


def test_two_that_wait_for_each_other_loop_for_ever() -> None:
    done, _ = shown(setup((POLLS, X, Y), (POLLS, Y, X)), Reduced(EVERY_STATE), Budget())
    assert (done.coverage.stopped_by, done.coverage.complete) == (None, False)
    assert done.coverage.no_progress.startswith("cpu0 in guest 0")
    assert ", cpu1 in guest 1" in done.coverage.no_progress
    assert status_of_exploration(done) == NOT_COMPLETE


def test_without_states_a_loop_is_cut_off() -> None:
    done, _ = shown(setup((POLLS, X, Y), (POLLS, Y, X)), Reduced(NO_STATES), Budget(runs=1, steps=200))
    assert not done.coverage.complete
    assert done.coverage.no_progress == ""


async def dies(kernel: Kernel) -> None:
    await bug("dies", "BUG_ON(1)")
    await Store(X, 1)


def test_what_was_found_before_a_loop_without_end_is_told() -> None:
    """No run comes to its end, and it once was lost with the runs that did not."""
    waits = setup((POLLS, Y, X)).actors[0]
    assert isinstance(waits, GuestActor)
    asked = setup_of(dies, dies)
    asked = replace(asked, actors=(asked.actors[0], replace(waits, cpu=1)))
    done = explore(asked, Reduced(), ALL, Budget())
    assert [one.finding.cause for one in done.found] == ["BUG in dies: BUG_ON(1)"]
    assert done.coverage.no_progress.startswith("cpu1 in guest 0")
    again = run_on(boot(asked.boot), asked, lambda _system: Replay(done.found[0].schedule))
    assert [one.cause for one in again.findings] == ["BUG in dies: BUG_ON(1)"]
