"""Taking references by PFN, in the three forms of page_ref_add_unless(), and the walkers that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flat_cpu import FlatCpu
from hvo_lab import KEY, VMEMMAP, Lab, huge_2m, lab_2m

from emu.addr import VirtAddr
from emu.cpu.ops import CmpXchg, FetchAdd, Load, Op, Store
from emu.events import Faulted, Loaded, Stored
from firmware.catalog import program
from kernel_model.layout import PerCpu
from kernel_model.mm.page_ref import (
    KpageFlag,
    PageRef,
    atomic_add_unless,
    folio_try_get,
    get_page_unless_zero,
    isolate_migratepages,
    kpageflags_read,
    page_is_fake_head,
    page_ref_add_unless,
    page_ref_dec_and_test,
    page_ref_freeze,
    stable_page_flags,
)

FOLIO = VirtAddr(VMEMMAP + 64 * 0x4000)
FAKE = VirtAddr(FOLIO + 4096)  # the first struct page of the first tail page
THE_KEY = VirtAddr(KEY)
PG_HEAD, PG_LRU = 1 << 6, 1 << 5
HUGETLB = 0xF400_0000
FORMS = {
    PageRef.V6_9: "get_page_unless_zero_v6_9",
    PageRef.V6_10: "get_page_unless_zero",
    PageRef.Y2025: "get_page_unless_zero_2025",
}
"""Each form, and the guest program that is the same by hand."""


class Recorder(FlatCpu):
    """Keeps the accesses as (kind, address); `before` is called with each before it happens."""

    def __init__(self) -> None:
        super().__init__()
        self.accesses: list[tuple[str, int]] = []
        self.before: Callable[[str, int], None] = lambda _kind, _va: None

    def _perform(self, op: Op) -> object:
        if isinstance(op, Load | Store | CmpXchg | FetchAdd):
            kind = type(op).__name__
            self.before(kind, op.va)
            self.accesses.append((kind, op.va))
        return super()._perform(op)

    def count(self, page: int) -> int:
        return self.read(page + 52, 4)

    def set_count(self, page: int, count: int) -> None:
        self.write(page + 52, count, 4)


@pytest.fixture
def cpu() -> Recorder:
    """An optimized folio: a head, and the fake head that its first tail page starts with."""
    made = Recorder()
    made.write(KEY, 1)
    for head in (FOLIO, FAKE):
        made.write(head, PG_HEAD)
        made.write(head + 8, FOLIO + 0x1008)
        made.write(head + 64 + 8, FOLIO + 1)
        made.write(head + 48, HUGETLB, 4)
    return made


def nesting(cpu: int = 0) -> int:
    return PerCpu(cpu).rcu_nesting


# --- one form at a time, access by access ---------------------------------------------------------------

ENTER = LEAVE = ("FetchAdd", nesting())
TEST_KEY = ("Load", KEY)


def looked_at(page: int) -> list[tuple[str, int]]:
    """The loads of the fake-head test behind the key, for a page that starts a vmemmap page."""
    return [("Load", page), ("Load", page + 64 + 8)]


def counted(page: int) -> tuple[str, int]:
    return ("Load", page + 52)


def tried(page: int) -> tuple[str, int]:
    return ("CmpXchg", page + 52)


TAKEN = {
    PageRef.V6_9: [counted(FOLIO), tried(FOLIO)],
    PageRef.V6_10: [
        *(ENTER, TEST_KEY, *looked_at(FOLIO), counted(FOLIO)),
        *(counted(FOLIO), tried(FOLIO), LEAVE),
    ],
    PageRef.Y2025: [
        *(ENTER, TEST_KEY, counted(FOLIO), TEST_KEY, *looked_at(FOLIO)),
        *(counted(FOLIO), tried(FOLIO), LEAVE),
    ],
}
KEY_OFF = {
    PageRef.V6_9: [counted(FOLIO), tried(FOLIO)],
    PageRef.V6_10: [ENTER, TEST_KEY, counted(FOLIO), counted(FOLIO), tried(FOLIO), LEAVE],
    PageRef.Y2025: [ENTER, TEST_KEY, counted(FOLIO), tried(FOLIO), LEAVE],
}
FROZEN = {
    PageRef.V6_9: [counted(FOLIO)],
    PageRef.V6_10: [ENTER, TEST_KEY, *looked_at(FOLIO), counted(FOLIO), LEAVE],
    PageRef.Y2025: [ENTER, TEST_KEY, counted(FOLIO), LEAVE],
}
FAKE_HEAD = {
    PageRef.V6_9: [counted(FAKE), tried(FAKE)],
    PageRef.V6_10: [ENTER, TEST_KEY, *looked_at(FAKE), LEAVE],
    PageRef.Y2025: [ENTER, TEST_KEY, counted(FAKE), TEST_KEY, *looked_at(FAKE), LEAVE],
}


@pytest.mark.parametrize("form", PageRef)
def test_a_head_in_use(cpu: Recorder, form: PageRef) -> None:
    cpu.set_count(FOLIO, 1)
    assert cpu.run(get_page_unless_zero(FOLIO, THE_KEY, form)) is True
    assert cpu.accesses == TAKEN[form]
    assert (cpu.count(FOLIO), cpu.read(nesting())) == (2, 0)


@pytest.mark.parametrize("form", PageRef)
def test_a_head_in_use_with_the_key_off(cpu: Recorder, form: PageRef) -> None:
    cpu.write(KEY, 0)
    cpu.set_count(FOLIO, 1)
    assert cpu.run(get_page_unless_zero(FOLIO, THE_KEY, form)) is True
    assert cpu.accesses == KEY_OFF[form]
    assert cpu.count(FOLIO) == 2


@pytest.mark.parametrize("form", PageRef)
def test_a_frozen_head_is_not_written(cpu: Recorder, form: PageRef) -> None:
    assert cpu.run(folio_try_get(FOLIO, THE_KEY, form)) is False
    assert cpu.accesses == FROZEN[form]
    assert (cpu.count(FOLIO), cpu.read(nesting())) == (0, 0)


@pytest.mark.parametrize("form", PageRef)
def test_a_fake_head_of_a_folio_in_use(cpu: Recorder, form: PageRef) -> None:
    cpu.set_count(FAKE, 1)
    assert cpu.run(get_page_unless_zero(FAKE, THE_KEY, form)) is (form is PageRef.V6_9)
    assert cpu.accesses == FAKE_HEAD[form]
    assert cpu.read(nesting()) == 0


def test_the_form_is_that_of_the_port_unless_another_is_asked_for(cpu: Recorder) -> None:
    cpu.set_count(FOLIO, 1)
    for take in (get_page_unless_zero, folio_try_get):
        cpu.accesses.clear()
        assert cpu.run(take(FOLIO, THE_KEY)) is True
        assert cpu.accesses == TAKEN[PageRef.V6_10]


def test_the_section_is_the_one_of_the_cpu_it_runs_on(cpu: Recorder) -> None:
    cpu.run(get_page_unless_zero(FOLIO, THE_KEY), cpu=3)
    assert [va for kind, va in cpu.accesses if kind == "FetchAdd"] == [nesting(3), nesting(3)]


@pytest.mark.parametrize("form", [PageRef.V6_10, PageRef.Y2025])
def test_the_section_spans_every_look_at_the_page(cpu: Recorder, form: PageRef) -> None:
    cpu.write(nesting(), 3)  # there may be an outer section
    cpu.set_count(FOLIO, 1)
    inside: set[int] = set()

    def look(_kind: str, va: int) -> None:
        if va != nesting():
            inside.add(cpu.read(nesting()))

    cpu.before = look
    cpu.run(get_page_unless_zero(FOLIO, THE_KEY, form))
    assert inside == {4}
    assert cpu.read(nesting()) == 3


# --- the numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", PageRef)
@pytest.mark.parametrize(
    ("count", "nr", "u", "after"),
    [(5, 3, 0, 8), (0, 2, 1, 2), (7, 1, 7, 7), (0x7FFF_FFFF, 1, 0, 0x8000_0000), (0xFFFF_FFFF, 2, 0, 1)],
)
def test_nr_is_added_unless_the_count_is_u(
    cpu: Recorder, form: PageRef, count: int, nr: int, u: int, after: int
) -> None:
    cpu.set_count(FOLIO, count)
    cpu.write(FOLIO + 56, 0x1234)  # the neighbour of the 32-bit count
    assert cpu.run(page_ref_add_unless(FOLIO, nr, u, THE_KEY, form)) is (count != u)
    assert (cpu.count(FOLIO), cpu.read(FOLIO + 56)) == (after, 0x1234)


@pytest.mark.parametrize(("seen", "added", "tries"), [(5, True, 2), (0, False, 1)])
def test_a_count_that_changes_before_the_cmpxchg_is_taken_as_it_is_now(
    cpu: Recorder, seen: int, added: bool, tries: int
) -> None:
    counter = VirtAddr(FOLIO + 52)
    cpu.set_count(FOLIO, 1)

    def meddle(kind: str, _va: int) -> None:
        if kind == "CmpXchg" and len(cpu.accesses) == 1:
            cpu.set_count(FOLIO, seen)

    cpu.before = meddle
    assert cpu.run(atomic_add_unless(counter, 1, 0)) is added
    assert [kind for kind, _ in cpu.accesses] == ["Load"] + ["CmpXchg"] * tries
    assert cpu.count(FOLIO) == seen + added


def test_a_reference_is_given_back(cpu: Recorder) -> None:
    cpu.set_count(FOLIO, 2)
    assert [cpu.run(page_ref_dec_and_test(FOLIO)) for _ in range(2)] == [False, True]
    assert cpu.count(FOLIO) == 0


@pytest.mark.parametrize(("count", "frozen", "after"), [(1, True, 0), (2, False, 2), (0, False, 0)])
def test_freezing_wants_the_count_it_names(cpu: Recorder, count: int, frozen: bool, after: int) -> None:
    cpu.set_count(FOLIO, count)
    assert cpu.run(page_ref_freeze(FOLIO, 1)) is frozen
    assert cpu.count(FOLIO) == after


# --- fake heads -----------------------------------------------------------------------------------------


def test_which_pages_are_fake_heads(cpu: Recorder) -> None:
    cpu.write(FAKE + 128, PG_HEAD)  # in the middle of a page
    fake = {page: cpu.run(page_is_fake_head(VirtAddr(page), THE_KEY)) for page in (FOLIO, FAKE, FAKE + 128)}
    assert fake == {FOLIO: False, FAKE: True, FAKE + 128: False}


@pytest.mark.parametrize(
    ("va", "value"),
    [(KEY, 0), (FAKE, 0), (FAKE + 64 + 8, FOLIO), (FAKE + 64 + 8, FAKE + 1)],
    ids=["key off", "no PG_head", "the next is no tail", "the next is a tail of this one"],
)
def test_what_makes_a_fake_head_none(cpu: Recorder, va: int, value: int) -> None:
    cpu.write(va, value)
    assert cpu.run(page_is_fake_head(FAKE, THE_KEY)) is False


# --- walkers --------------------------------------------------------------------------------------------


def test_kpageflags_of_a_hugetlb_folio(cpu: Recorder) -> None:
    head, tail = KpageFlag.COMPOUND_HEAD | KpageFlag.HUGE, KpageFlag.COMPOUND_TAIL | KpageFlag.HUGE
    assert (int(head), int(tail)) == (0x28000, 0x30000)
    assert cpu.run(kpageflags_read(FOLIO, 2, THE_KEY)) == (head, tail)
    assert cpu.run(kpageflags_read(FAKE, 2, THE_KEY)) == (tail, tail)
    assert {kind for kind, _ in cpu.accesses} == {"Load"}
    assert cpu.run(kpageflags_read(FAKE, 0, THE_KEY)) == ()


def test_kpageflags_asks_the_head_for_its_type(cpu: Recorder) -> None:
    cpu.write(FOLIO + 48, 0xF500_0000, 4)
    assert cpu.run(stable_page_flags(FAKE, THE_KEY)) == KpageFlag.COMPOUND_TAIL
    assert cpu.accesses[-2:] == [("Load", FOLIO), ("Load", FOLIO + 48)]


def test_kpageflags_of_a_single_page_are_none(cpu: Recorder) -> None:
    assert cpu.run(stable_page_flags(VirtAddr(FOLIO - 64), THE_KEY)) == KpageFlag(0)


def test_compaction_looks_while_it_holds_a_reference(cpu: Recorder) -> None:
    page = VirtAddr(FAKE + 128)
    cpu.write(page, PG_LRU)
    cpu.set_count(page, 1)
    held: list[tuple[int, int]] = []

    def look(kind: str, va: int) -> None:
        if (kind, va) == ("Load", page):
            held.append((cpu.count(page), cpu.read(nesting())))

    cpu.before = look
    assert cpu.run(isolate_migratepages(FAKE, 4, THE_KEY)) == (None, None, PG_LRU, None)
    assert held == [(2, 0)]
    assert cpu.count(page) == 1


# --- beside the guest programs --------------------------------------------------------------------------


def accesses_of(lab: Lab) -> list[tuple[str, int, int]]:
    """What was loaded or stored, where and which value, leaving out the guest's own buffer."""
    return [
        (type(event).__name__, event.va, event.value)
        for event in lab.recent()
        if isinstance(event, Loaded | Stored) and not PerCpu(0).buffer <= event.va < PerCpu(0).stack
    ]


def as_kernel(lab: Lab, routine: Callable[[], Any]) -> list[tuple[str, int, int]]:
    lab.reset()
    return run_both(lab, lambda: lab.call(routine))


def as_guest(lab: Lab, name: str, **registers: int) -> list[tuple[str, int, int]]:
    lab.reset()

    def go() -> None:
        lab.start_guest(program(name), 0, **registers)
        lab.run()

    return run_both(lab, go)


def run_both(lab: Lab, go: Callable[[], object]) -> list[tuple[str, int, int]]:
    huge = huge_2m()
    lab.optimize(huge)
    lab.write(huge.folio + 52, (1).to_bytes(4, "little"))  # handed out: each fake head shows the count, too
    lab.mark()
    go()
    assert lab.seen(Faulted) == []
    return accesses_of(lab)


PAGES = {"head": FOLIO, "its first tail": FOLIO + 64, "a fake head": FAKE, "a page of its own": FOLIO - 64}


# The oldest form writes to a fake head of a folio in use: tested next.
HARMLESS = [
    (form, what) for form in PageRef for what in PAGES if (form, what) != (PageRef.V6_9, "a fake head")
]


@pytest.mark.parametrize(("form", "what"), HARMLESS)
def test_a_form_and_its_guest_program_make_the_same_accesses(form: PageRef, what: str) -> None:
    page, lab = PAGES[what], lab_2m()
    of_kernel = as_kernel(lab, lambda: get_page_unless_zero(VirtAddr(page), THE_KEY, form))
    more = {} if form is PageRef.V6_9 else {"rsi": KEY, "rdx": nesting()}
    assert as_guest(lab, FORMS[form], rdi=page, **more) == of_kernel
    assert of_kernel


def test_the_oldest_form_faults_on_a_fake_head_of_a_folio_in_use() -> None:
    lab, huge = lab_2m(), huge_2m()
    lab.optimize(huge)
    lab.write(huge.folio + 52, (1).to_bytes(4, "little"))
    lab.mark()
    lab.start(lambda: get_page_unless_zero(FAKE, THE_KEY, PageRef.V6_9))
    lab.run()
    (fault,) = lab.seen(Faulted)
    assert (fault.fault.va, fault.fault.code) == (FAKE + 52, 3)


@pytest.mark.parametrize("what", PAGES)
def test_the_walkers_and_their_guest_programs_make_the_same_accesses(what: str) -> None:
    page, lab = PAGES[what], lab_2m()
    buffer = PerCpu(0).buffer
    flags = as_kernel(lab, lambda: kpageflags_read(VirtAddr(page), 2, THE_KEY))
    assert as_guest(lab, "kpageflags", rdi=page, rsi=2, rdx=KEY, r8=buffer) == flags
    looks = as_kernel(lab, lambda: isolate_migratepages(VirtAddr(page), 2, THE_KEY))
    registers = {"rdi": page, "rsi": 2, "rdx": KEY, "rcx": nesting(), "r8": buffer}
    assert as_guest(lab, "isolate_migratepages", **registers) == looks
    assert flags
    assert looks
