"""The lazy TLB has the outcomes of a TLB that fills and evicts at will: no more, no fewer."""

from __future__ import annotations

from itertools import product

import pytest
from explicit_tlb import (
    RESERVED,
    Event,
    Holds,
    InvalidatesAll,
    InvalidatesPage,
    LoadsRoot,
    Outcome,
    Reads,
    Sends,
    Stores,
    Syncs,
    Writes,
    explicit_outcomes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from paging_rig import GIB1, PAGE, RO, ROOT, RW, TABLE, VA, A, G, P, PagingRig, leaf, read, write
from property_settings import PROPERTY

from emu.addr import PageSize, Pfn, VirtAddr
from emu.choice import Question
from emu.paging.lazy import DirectoryCache, LazySpec, Memory
from emu.paging.models import CpuModel
from emu.paging.pte import Pte
from emu.paging.tlb import Broadcast, InvalidateAll, Invlpg

# One PDE, which may lead to either of two tables or be a 2M leaf; two entries in each table.
LEAD = (0x103, 0x104)  # the PDPT and the PD of VA
TABLES = (0x110, 0x111)
SECOND_LEAD = (0x113, 0x114)
SECOND_TOP = 0x120
PML4_INDEX, PDPT_INDEX = VA >> 39 & 511, VA >> 30 & 511
PDE = LEAD[1] * PAGE
SLOTS = tuple(table * PAGE + 8 * index for table in TABLES for index in range(2))
PDE_VALUES = (
    *(int(Pte.make(Pfn(table), TABLE)) for table in TABLES),
    int(Pte.make(Pfn(TABLES[0]), P | A)),
    int(leaf(0x400, RW, PageSize.MIB2)),
    int(leaf(0x600, RO, PageSize.MIB2)),
    0,
)
PTE_VALUES = (
    *(int(leaf(0x800)), int(leaf(0x801)), int(leaf(0x802, RO)), int(leaf(0x803, RW | G))),
    *(0, int(leaf(0x804)) | RESERVED),
)
PAGES = (int(VA), int(VA + PAGE))
ELSEWHERE = VA + 8 * GIB1
STORES = st.one_of(
    st.builds(Stores, st.just(PDE), st.sampled_from(PDE_VALUES)),
    st.builds(Stores, st.sampled_from(SLOTS), st.sampled_from(PTE_VALUES)),
    st.builds(Stores, st.just(SLOTS[0]), st.sampled_from(PTE_VALUES)),
)
INVALIDATIONS = st.one_of(
    st.builds(InvalidatesPage, st.sampled_from((*PAGES, ELSEWHERE))),
    st.just(InvalidatesAll()),
    st.builds(LoadsRoot, st.sampled_from((int(ROOT), SECOND_TOP))),
)


@st.composite
def programs(draw: st.DrawFn, pages: tuple[int, ...], accesses: int) -> tuple[dict[int, int], list[Event]]:
    """Words at the start, and at most 4 stores, 2 invalidations and some accesses in any order."""
    words = {
        ROOT * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(LEAD[0]), TABLE)),
        LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(LEAD[1]), TABLE)),
        SECOND_TOP * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(SECOND_LEAD[0]), TABLE)),
        SECOND_LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(SECOND_LEAD[1]), TABLE)),
        SECOND_LEAD[1] * PAGE: int(Pte.make(Pfn(TABLES[1]), TABLE)),
        PDE: draw(st.sampled_from(PDE_VALUES)),
        **{slot: draw(st.sampled_from(PTE_VALUES)) for slot in SLOTS},
    }
    events: list[Event] = draw(st.lists(STORES, min_size=1, max_size=4))
    used = st.one_of(st.builds(Reads, st.sampled_from(pages)), st.builds(Writes, st.sampled_from(pages)))
    for more in (
        draw(st.lists(INVALIDATIONS, max_size=2)),
        draw(st.lists(used, min_size=1, max_size=accesses)),
    ):
        for event in more:
            events.insert(draw(st.integers(0, len(events))), event)
    return words, events


class Scripted:
    """Answers from a list, then with option 0, and notes how many options each question had."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = answers
        self.options: list[int] = []

    def answer(self, question: Question) -> int:
        number = len(self.options)
        self.options.append(question.options)
        return self.answers[number] if number < len(self.answers) else 0


def run_once(model: CpuModel, words: dict[int, int], program: list[Event], answerer: Scripted) -> Outcome:
    rig = PagingRig()
    for pa, value in words.items():
        rig.preset(pa, value)
    mmu = rig.mmu(model)
    mmu.answerer = answerer
    results: list[int | None] = []
    sent: list[tuple[Broadcast, int]] = []
    for event in program:
        match event:
            case Stores(pa=pa, value=value):
                rig.set(pa, value)
            case Reads(va=va):
                results.append(read(mmu, va))
            case Writes(va=va):
                results.append(write(mmu, va))
            case InvalidatesPage(va=va):
                mmu.invalidate(Invlpg(VirtAddr(va)))
            case InvalidatesAll():
                mmu.invalidate(InvalidateAll())
            case LoadsRoot(root=root):
                mmu.load_root(Pfn(root), 0)
            case Sends(what=what):
                one = Invlpg(VirtAddr(what.va)) if isinstance(what, InvalidatesPage) else InvalidateAll()
                sent.append((one, mmu.tlb.expect(0)))
            case Syncs():
                for one, place in sent:
                    mmu.carry_out(one, place, 0)
                sent.clear()
    return tuple(results)


def lazy_outcomes(
    model: CpuModel, words: dict[int, int], program: list[Event], runs: list[int] | None = None
) -> set[Outcome]:
    """All answers to all questions, one run each. `runs` gets the events of each."""
    found = set()
    answers: list[int] = []
    while True:
        scripted = Scripted(answers)
        if runs is not None:
            runs.append(len(program))
        found.add(run_once(model, words, program, scripted))
        answers = (answers + [0] * len(scripted.options))[: len(scripted.options)]
        while answers and answers[-1] + 1 == scripted.options[len(answers) - 1]:
            answers.pop()
        if not answers:
            return found
        answers[-1] += 1


def lazy(memory: Memory, directories: DirectoryCache) -> CpuModel:
    return CpuModel("lazy", LazySpec(memory, directories))


@pytest.mark.parametrize("directories", DirectoryCache)
@PROPERTY
@given(programs(PAGES, accesses=3))
def test_single_semantics_has_the_outcomes_of_one_entry_filled_and_evicted_at_will(
    directories: DirectoryCache, case: tuple[dict[int, int], list[Event]]
) -> None:
    words, program = case
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, PAGES, Holds.ONE, remembers=remembers)
    assert lazy_outcomes(lazy(Memory.SINGLE, directories), words, program) == expected


@pytest.mark.parametrize("directories", DirectoryCache)
@PROPERTY
@given(programs(PAGES[:1], accesses=3))
def test_set_semantics_has_the_outcomes_of_many_entries_filled_and_evicted_at_will(
    directories: DirectoryCache, case: tuple[dict[int, int], list[Event]]
) -> None:
    words, program = case
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, PAGES[:1], Holds.SEVERAL, remembers=remembers)
    assert lazy_outcomes(lazy(Memory.SET, directories), words, program) == expected


@pytest.mark.slow
@pytest.mark.parametrize("directories", DirectoryCache)
@pytest.mark.parametrize(
    ("memory", "holds", "pages"),
    [(Memory.SINGLE, Holds.ONE, PAGES), (Memory.SET, Holds.SEVERAL, PAGES[:1])],
    ids=["single", "set"],
)
@settings(PROPERTY, max_examples=3000)
@given(st.data())
def test_very_many_programs_have_the_outcomes_of_explicit_fills_and_evictions(
    memory: Memory, holds: Holds, pages: tuple[int, ...], directories: DirectoryCache, data: st.DataObject
) -> None:
    words, program = data.draw(programs(pages, accesses=4))
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, pages, holds, remembers=remembers)
    assert lazy_outcomes(lazy(memory, directories), words, program) == expected


@st.composite
def programs_with_broadcasts(draw: st.DrawFn, pages: tuple[int, ...]) -> tuple[dict[int, int], list[Event]]:
    """At most two INVLPGBs of another CPU, and its TLBSYNC, among such a program."""
    words, events = draw(programs(pages, accesses=3))
    broadcasts = st.one_of(
        st.builds(Sends, st.builds(InvalidatesPage, st.sampled_from((*PAGES, ELSEWHERE)))),
        st.just(Sends(InvalidatesAll())),
    )
    at = draw(st.integers(0, len(events)))
    events.insert(at, Syncs())
    for sends in draw(st.lists(broadcasts, min_size=1, max_size=2, unique=True)):
        events.insert(draw(st.integers(0, at)), sends)
    return words, events


@pytest.mark.parametrize("directories", DirectoryCache)
@pytest.mark.parametrize(
    ("memory", "holds"), [(Memory.SINGLE, Holds.ONE), (Memory.SET, Holds.SEVERAL)], ids=["single", "set"]
)
@PROPERTY
@given(programs_with_broadcasts(PAGES[:1]))
def test_a_broadcast_is_as_if_it_were_carried_out_at_any_time_before_tlbsync_ends(
    memory: Memory, holds: Holds, directories: DirectoryCache, case: tuple[dict[int, int], list[Event]]
) -> None:
    """An access before the TLBSYNC may tell that it has not been yet: that is not counted."""
    words, program = case
    remembers = directories is DirectoryCache.PER_LEVEL
    expected = explicit_outcomes(words, ROOT, program, PAGES[:1], holds, remembers=remembers)
    found = lazy_outcomes(lazy(memory, directories), words, program)
    assert found >= expected
    first = next(number for number, event in enumerate(program) if isinstance(event, Sends))
    if not any(isinstance(event, Reads | Writes) for event in program[first : program.index(Syncs())]):
        assert found == expected


@pytest.mark.parametrize(("memory", "holds"), [(Memory.SINGLE, Holds.ONE), (Memory.SET, Holds.SEVERAL)])
def test_every_program_of_two_stores_an_invalidation_and_accesses_at_every_point(
    memory: Memory, holds: Holds
) -> None:
    """Exhaustive over what is stored, where, what is invalidated and when. Prints what both cost."""
    base = {
        ROOT * PAGE + 8 * PML4_INDEX: int(Pte.make(Pfn(LEAD[0]), TABLE)),
        LEAD[0] * PAGE + 8 * PDPT_INDEX: int(Pte.make(Pfn(LEAD[1]), TABLE)),
        PDE: PDE_VALUES[0],
        SLOTS[0]: PTE_VALUES[0],
        SLOTS[2]: PTE_VALUES[1],
    }
    changes: list[Event] = [
        Stores(PDE, PDE_VALUES[1]),
        Stores(PDE, PDE_VALUES[3]),
        Stores(SLOTS[0], PTE_VALUES[2]),
        Stores(SLOTS[0], 0),
    ]
    closings: list[Event] = [
        InvalidatesPage(VA),
        InvalidatesPage(ELSEWHERE),
        InvalidatesAll(),
        LoadsRoot(ROOT),
    ]
    model = lazy(memory, DirectoryCache.PER_LEVEL)
    runs: list[int] = []
    visited: list[int] = []
    for first, second, closing, at in product(changes, changes, closings, range(3)):
        steps = [first, second]
        steps.insert(at, closing)
        program = [event for step in steps for event in (Reads(VA), step)] + [Writes(VA), Reads(VA)]
        expected = explicit_outcomes(base, ROOT, program, PAGES[:1], holds, remembers=True, visited=visited)
        assert lazy_outcomes(model, base, program, runs) == expected, program
    print(  # noqa: T201
        f"{memory.name}: lazily {len(runs)} runs of 8 events, each from the start; explicit fills and "
        f"evictions: {sum(visited)} states of the TLB, those that are alike counted once"
    )
