"""Lives: what a process has gone through decides what its next steps are, as far as they are private."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_setups import NEW, OTHER, PMD, WORD, X, Y, config_of, note, split_table

from emu.addr import PhysAddr, frame_start
from emu.choice import Defaults, Step
from emu.cpu.condition import Word, WordIs
from emu.cpu.cpu import KernelThread
from emu.cpu.ops import AddWords, Annotate, Await, Copy, Fill, Load, SetInterrupts, Store
from emu.cpu.recall import Recall
from emu.cpu.routine import Code
from hvolab.explore.footprint.conflict import NOTHING, Footprint
from hvolab.explore.footprint.tables import Tables
from hvolab.explore.stretches.contention import Contention
from hvolab.explore.stretches.lives import AllLives, Chain, Lives
from hvolab.explore.stretches.quiet import StepsSeen
from hvolab.judge.sight.resource import CellName, Kind, Resource
from hvolab.judge.sight.sight import Sight
from kernel_model.boot import System, boot
from kernel_model.core.events import KernelWarning
from kernel_model.layout import PAGE_OFFSET

GO = Word("go")


def touching(number: int) -> Footprint:
    return NOTHING._replace(writes=frozenset({number}))


class Search:
    """Runs of one routine on CPU 0, and what is remembered from one to the next."""

    def __init__(self, routine: Callable[[], Code]) -> None:
        self.system: System = boot(config_of())
        self.machine = self.system.machine
        self.machine.routines = Recall()
        self.contention = Contention()
        self._routine = routine
        self.known = AllLives(1000)
        self.remembered = 0  # by a judge

    def run(self, *footprints: Footprint) -> None:
        """The routine is begun, and makes a step for each of these, of which they are taken to be."""
        self.system.reset()
        sight = Sight(self.machine)
        self.cells = sight.cells("a judge", 0)
        self.cells.set(self.remembered)
        tables = Tables(self.machine.memory, self.machine.cpus[0].mmu.model)
        self.lives = Lives(
            self.machine, sight, self.known, self.contention, StepsSeen(self.machine, sight, tables)
        )
        self.machine.start(0, KernelThread("t", self._routine))
        for footprint in footprints:
            before = self.lives.of(0)
            self.lives.before(Step(0))
            self.machine.perform(Step(0), Defaults())
            self.lives.after(0, Step(0), footprint)
            self.lives.learn(0, before, footprint, {})

    def chain(self) -> Chain | None:
        return self.lives.chain(0)

    def leads(self) -> list[Footprint]:
        """What the steps touch that follow the first."""
        chain = self.chain()
        return [] if chain is None else [step.footprint for step in chain.steps]


async def three_stores() -> None:
    for value in range(3):
        await Store(X, value)
    await Await(WordIs(GO, 1))


def test_what_has_been_made_after_a_life_is_known_the_next_time() -> None:
    search = Search(three_stores)
    search.run(touching(1), touching(2), touching(3))
    assert search.chain() is None, "nothing has followed yet"
    search.run(touching(1))
    assert search.leads() == [touching(2), touching(3)]


def test_what_is_conflicted_over_ends_the_private_steps() -> None:
    search = Search(three_stores)
    search.run(touching(1), touching(2), touching(3))
    search.contention.note(2, touching(3))
    search.run(touching(1))
    chain = search.chain()
    assert chain is not None
    assert (len(chain.steps), chain.doubts) == (2, {3})
    search.contention.conflicted(frozenset({3}))
    assert search.leads() == [touching(2)]
    search.contention.note(2, touching(2))
    search.contention.conflicted(frozenset({2}))
    assert search.leads() == []


def test_what_was_another_step_the_second_time_is_known_no_more() -> None:
    search = Search(three_stores)
    search.run(touching(1), touching(2), touching(3))
    search.run(touching(1), touching(2), touching(9))
    search.run(touching(1))
    assert search.leads() == [touching(2)]


def test_more_is_known_once_more_has_been_made() -> None:
    search = Search(three_stores)
    search.run(touching(1), touching(2))
    search.run(touching(1))
    assert search.leads() == [touching(2)]
    search.run(touching(1), touching(2), touching(3))
    search.run(touching(1))
    assert search.leads() == [touching(2), touching(3)]


async def stores_what_it_read() -> None:
    seen = await Load(X)
    await Store(Y, seen)
    await Store(Y, 0)


def test_another_result_is_another_life() -> None:
    search = Search(stores_what_it_read)
    search.run(touching(1), touching(2), touching(3))
    search.machine.memory.load_image(PhysAddr(X - PAGE_OFFSET), b"\1")
    search.run(touching(1))
    assert search.leads() == []


async def copies() -> None:
    await Copy(X, Y, 8)
    await Load(X)
    await Store(X, 0)


def test_what_was_copied_is_in_no_result_and_makes_another_life() -> None:
    """So is what was stored through another translation of a page."""
    search = Search(copies)
    search.run(touching(1), touching(2), touching(3))
    search.run(touching(1))
    assert search.leads() == [touching(2)]
    search.machine.memory.load_image(PhysAddr(Y - PAGE_OFFSET), b"\1")
    search.run(touching(1))
    assert search.leads() == []


def test_a_step_that_touched_something_else_is_another_life() -> None:
    """It may have been told that a frame was lost, which a judge knows from then on."""
    search = Search(three_stores)
    search.run(touching(1), touching(2), touching(3))
    search.run(touching(7))
    assert search.leads() == []


def test_what_a_judge_made_of_a_step_is_in_no_result_and_makes_another_life() -> None:
    search = Search(three_stores)
    judged = NOTHING._replace(writes=frozenset({CellName("a judge")}))
    search.run(judged, touching(2), touching(3))
    search.run(judged)
    assert search.leads() == [touching(2), touching(3)]
    search.remembered = 1
    search.run(judged)
    assert search.leads() == []


async def notes_what_it_read() -> None:
    await Load(X)
    await note(0, await Load(Y))
    await Store(X, 1)


def test_a_transaction_may_come_out_another_way_and_is_said_to() -> None:
    search = Search(notes_what_it_read)
    search.run(touching(1), touching(2))
    search.run(touching(1))
    chain = search.chain()
    assert chain is not None
    assert [step.transacts for step in chain.steps] == [True]


async def waits() -> None:
    await Store(X, 1)
    await Await(WordIs(GO, 0))


async def masks() -> None:
    await Store(X, 1)
    await SetInterrupts(False)


async def ends() -> None:
    await Store(X, 1)
    await Store(X, 2)


@pytest.mark.parametrize("routine", [waits, masks, ends])
def test_what_waits_masks_interrupts_or_ends_its_routine_is_never_known(routine: Callable[[], Code]) -> None:
    search = Search(routine)
    search.run(touching(1), touching(2))
    search.run(touching(1))
    assert search.leads() == []


async def reads_struct_pages() -> None:
    await Store(X, 1)
    await Load(WORD)
    await Load(OTHER)


def test_a_walk_through_another_table_is_another_step() -> None:
    """Nobody is told which table a PMD leads to, but a judge asks whose it is."""
    search = Search(reads_struct_pages)
    search.run(touching(1), touching(2))
    search.run(touching(1))
    assert search.leads() == [touching(2)]
    memory = search.machine.memory
    memory.write(frame_start(NEW), split_table())
    memory.write_word(PhysAddr(PMD - PAGE_OFFSET), NEW << 12 | 0x63)
    assert search.leads() == []


QUIET_OPS = {"a load": Load(X), "a store": Store(X, 5), "a fill": Fill(X, bytes(64))}
OTHER_OPS = {
    "an announcement": Annotate(KernelWarning("here", "something")),
    "a word": AddWords(((GO, 0),)),
}


@pytest.mark.parametrize("name", QUIET_OPS | OTHER_OPS)
def test_accesses_to_memory_alone_are_quiet(name: str) -> None:
    async def routine() -> None:
        await Load(Y)
        await (QUIET_OPS | OTHER_OPS)[name]
        await Load(Y)

    search = Search(routine)
    search.run(touching(1), touching(2))
    search.run(touching(1))
    chain = search.chain()
    assert chain is not None
    assert (chain.steps[0].does is not None) is (name in QUIET_OPS)


WRITTEN = {
    "a word": Word("a lock"),
    "what a judge remembers": CellName("a judge"),
    "what the tables say of a page": Resource(Kind.TRANSLATION, 8),
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("kind", ["writes", "marks"])
def test_a_step_that_leaves_more_than_memory_and_counters_is_not_quiet(name: str, kind: str) -> None:
    search = Search(three_stores)
    search.run(touching(1), touching(2)._replace(**{kind: frozenset({WRITTEN[name]})}))
    search.run(touching(1))
    chain = search.chain()
    assert chain is not None
    is_counter = (name, kind) == ("a word", "marks")
    assert [step.does is not None for step in chain.steps] == [is_counter]


def test_what_is_equal_in_many_lives_is_kept_once_and_forgotten_with_them() -> None:
    known = AllLives(1000)
    one, other = touching(1), touching(1)
    assert one is not other
    assert known.footprint(one) is known.footprint(other) is one
    assert known.directories(frozenset()) is known.directories(frozenset())
    root = known.root(0)
    assert known.root(0) is root is not known.root(1)
    known.forget()
    assert known.footprint(other) is other
    assert known.root(0) is not root


def test_beyond_the_limit_no_life_is_remembered() -> None:
    known = AllLives(2)
    first = known.then(known.root(0), "a")
    assert first is not None
    assert not known.full
    second = known.then(first, "b")
    assert second is not None
    assert known.full
    assert known.then(second, "c") is None
    assert known.then(first, "b") is second
    known.forget()
    assert not known.full
