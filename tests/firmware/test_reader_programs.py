"""Programs that take references or read flags by PFN, run in a plain engine on struct pages made by hand."""

import pytest
import unicorn
from plain_engine import (
    BUFFER,
    COMPOUND_HEAD,
    ENTRY,
    FAKE,
    FILLER,
    FLAGS,
    KEY,
    NESTING,
    OTHER_FLAGS,
    OUTER_NESTING,
    VMEMMAP,
    Cpu,
    place,
    struct_page,
)

from firmware.generations import GENERATIONS

NAMES = tuple(generation.program for generation in GENERATIONS)
V6_9, V6_10, Y2025 = NAMES

KPF_HEAD, KPF_TAIL, KPF_HUGE = 0x8000, 0x10000, 0x20000
PGTY_HUGETLB = 0xF400_0000
NO_TYPE = 0xFFFF_FFFF
NO_REFERENCE = 0xFFFF_FFFF_FFFF_FFFF


@pytest.fixture
def cpu() -> Cpu:
    made = Cpu()
    made.make_folio()
    return made


def begin(cpu: Cpu, name: str, index: int, until: str = "done") -> None:
    """Run a reference taker, each with the arguments it has."""
    more = () if name == V6_9 else (KEY, NESTING)
    cpu.start(name, struct_page(index), *more, until=until)


def take(cpu: Cpu, name: str, index: int, key: int) -> int:
    cpu.write(KEY, key)
    begin(cpu, name, index)
    assert cpu.read(NESTING) == OUTER_NESTING
    return cpu.get("rax")


# --- three generations of one function ------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [0, 1])
@pytest.mark.parametrize("index", [0, 1, FAKE + 1], ids=["a real head", "a tail", "an aliased tail"])
def test_every_generation_takes_a_reference_unless_the_count_is_zero(
    cpu: Cpu, name: str, index: int, key: int
) -> None:
    assert (take(cpu, name, index, key), cpu.refcount(index)) == (0, 0)
    cpu.set_refcount(index, 1)
    assert (take(cpu, name, index, key), cpu.refcount(index)) == (1, 2)
    cpu.set_refcount(index, 0x7FFFFFFF)
    assert (take(cpu, name, index, key), cpu.refcount(index)) == (1, 0x80000000)


@pytest.mark.parametrize(
    ("name", "key", "taken"), [(V6_9, 1, 1), (V6_10, 1, 0), (Y2025, 1, 0), (Y2025, 0, 1)]
)
def test_of_a_fake_head_the_oldest_takes_a_reference_and_the_others_with_the_key_off(
    cpu: Cpu, name: str, key: int, taken: int
) -> None:
    cpu.set_refcount(FAKE, 1)
    assert (take(cpu, name, FAKE, key), cpu.refcount(FAKE)) == (taken, 1 + taken)


NOT_FAKE = {
    "no PG_head": (FAKE, FLAGS, OTHER_FLAGS),
    "the next is no tail": (FAKE, COMPOUND_HEAD + 64, 0x1000),
    "the next is a tail of this one": (FAKE, COMPOUND_HEAD + 64, struct_page(FAKE) + 1),
}


@pytest.mark.parametrize("what", NOT_FAKE)
def test_what_the_2025_form_knows_not_to_be_a_fake_head(cpu: Cpu, what: str) -> None:
    index, offset, value = NOT_FAKE[what]
    cpu.write(struct_page(index) + offset, value)
    cpu.set_refcount(index, 1)
    assert (take(cpu, Y2025, index, 1), cpu.refcount(index)) == (1, 2)


def test_pg_head_at_an_address_that_starts_no_page_is_no_fake_head_to_the_2025_form(cpu: Cpu) -> None:
    cpu.make_head(FAKE + 2)
    cpu.set_refcount(FAKE + 2, 1)
    assert (take(cpu, Y2025, FAKE + 2, 1), cpu.refcount(FAKE + 2)) == (1, 2)


def became_fake(cpu: Cpu) -> None:
    """What is a tail becomes a fake head of a folio that is in use: the remap, and the folio handed out."""
    cpu.make_head(FAKE)
    cpu.write(struct_page(FAKE) + COMPOUND_HEAD, struct_page(0) + 0x1008)
    cpu.set_refcount(FAKE, 1)
    cpu.protect()


def still_a_tail(cpu: Cpu) -> None:
    cpu.write(KEY, 1)
    cpu.make_tail(FAKE, 0)
    cpu.set_refcount(FAKE, 0)


def test_v6_10_writes_when_the_page_is_remapped_between_its_test_and_its_count(cpu: Cpu) -> None:
    still_a_tail(cpu)
    begin(cpu, V6_10, FAKE, until="read_count")
    became_fake(cpu)
    with pytest.raises(unicorn.UcError) as caught:
        cpu.resume(V6_10)
    assert caught.value.errno == unicorn.UC_ERR_WRITE_PROT
    assert cpu.get("rip") == place(V6_10, "try")


@pytest.mark.parametrize("label", ["enter", "test_key", "read_count"])
def test_2025_does_not_write_when_the_page_is_remapped_before_its_count(cpu: Cpu, label: str) -> None:
    still_a_tail(cpu)
    begin(cpu, Y2025, FAKE, until=label)
    became_fake(cpu)
    cpu.resume(Y2025)
    assert (cpu.get("rax"), cpu.refcount(FAKE), cpu.read(NESTING)) == (0, 1, OUTER_NESTING)


def test_2025_gives_up_at_a_count_of_zero_without_looking_at_the_page(cpu: Cpu) -> None:
    still_a_tail(cpu)
    begin(cpu, Y2025, FAKE, until="read_count")
    for _ in ("mov", "test", "je"):
        cpu.engine.emu_start(cpu.get("rip"), place(Y2025, "done"), count=1)
    assert cpu.get("rip") == place(Y2025, "refuse")


def test_2025_tests_the_key_twice(cpu: Cpu) -> None:
    cpu.set_refcount(FAKE, 1)
    cpu.write(KEY, 1)
    begin(cpu, Y2025, FAKE, until="test_key_again")
    cpu.write(KEY, 0)
    cpu.resume(Y2025)
    assert (cpu.get("rax"), cpu.refcount(FAKE)) == (1, 2)


def test_2025_is_in_its_rcu_section_from_enter_to_leave(cpu: Cpu) -> None:
    cpu.set_refcount(0, 1)
    cpu.write(KEY, 1)
    begin(cpu, Y2025, 0, until="enter")
    assert cpu.read(NESTING) == OUTER_NESTING
    labels = (
        "test_key",
        "read_count",
        "test_key_again",
        "read_flags",
        "test_fake",
        "read_again",
        "try",
        "leave",
    )
    for label in labels:
        cpu.resume(Y2025, until=label)
        assert cpu.read(NESTING) == OUTER_NESTING + 1
    cpu.resume(Y2025)
    assert (cpu.get("rax"), cpu.read(NESTING)) == (1, OUTER_NESTING)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("changed_to", "taken", "after"), [(5, 1, 6), (0, 0, 0)])
def test_a_count_that_changes_before_the_cmpxchg(
    cpu: Cpu, name: str, changed_to: int, taken: int, after: int
) -> None:
    cpu.set_refcount(1, 2)
    begin(cpu, name, 1, until="try")
    cpu.set_refcount(1, changed_to)
    cpu.resume(name, until="unless_zero")
    assert cpu.get("rax") == cpu.refcount(1) == changed_to
    cpu.resume(name)
    assert (cpu.get("rax"), cpu.refcount(1)) == (taken, after)


@pytest.mark.parametrize("name", NAMES)
def test_a_zero_count_is_never_written(cpu: Cpu, name: str) -> None:
    cpu.protect()
    assert take(cpu, name, 1, 1) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_cmpxchg_whose_compare_fails_is_a_write_all_the_same(cpu: Cpu, name: str) -> None:
    cpu.set_refcount(1, 1)
    begin(cpu, name, 1, until="try")
    cpu.set_refcount(1, 0)
    cpu.protect()
    with pytest.raises(unicorn.UcError) as caught:
        cpu.resume(name)
    assert caught.value.errno == unicorn.UC_ERR_WRITE_PROT
    assert cpu.get("rip") == place(name, "try")


# --- kpageflags -----------------------------------------------------------------------------------------


def flags_of(cpu: Cpu, first: int, count: int, key: int = 1) -> list[int]:
    cpu.write(KEY, key)
    cpu.start("kpageflags", struct_page(first), count, KEY, BUFFER)
    assert cpu.get("r8") == BUFFER + 8 * count
    assert cpu.read(BUFFER + 8 * count) == FILLER
    return [cpu.read(BUFFER + 8 * n) for n in range(count)]


def test_kpageflags_of_an_optimized_hugetlb_folio(cpu: Cpu) -> None:
    """As tools/testing/selftests/mm/hugetlb-vmemmap.c wants it: one head, and nothing but tails after it."""
    cpu.set_page_type(0, PGTY_HUGETLB)
    assert flags_of(cpu, 0, FAKE + 2) == [KPF_HEAD | KPF_HUGE] + [KPF_TAIL | KPF_HUGE] * (FAKE + 1)
    assert cpu.get("r10") == FAKE + 1


def test_kpageflags_with_the_key_off_takes_a_fake_head_for_a_head(cpu: Cpu) -> None:
    cpu.set_page_type(FAKE, PGTY_HUGETLB)
    assert flags_of(cpu, FAKE - 1, 3, key=0) == [KPF_TAIL, KPF_HEAD | KPF_HUGE, KPF_TAIL]
    assert cpu.get("r10") == 2


def test_kpageflags_asks_the_head_whether_it_is_hugetlb(cpu: Cpu) -> None:
    cpu.set_page_type(1, PGTY_HUGETLB)  # of a tail it means nothing
    for value in (0, NO_TYPE, 0xF500_0000, 0x00F4_0000):
        cpu.set_page_type(0, value)
        assert flags_of(cpu, 0, 2) == [KPF_HEAD, KPF_TAIL]
    cpu.set_page_type(0, PGTY_HUGETLB | 0x00FF_FFFF)
    assert flags_of(cpu, 0, 2) == [KPF_HEAD | KPF_HUGE, KPF_TAIL | KPF_HUGE]


def test_kpageflags_of_a_single_page_are_none(cpu: Cpu) -> None:
    cpu.write(struct_page(3) + FLAGS, OTHER_FLAGS)
    cpu.write(struct_page(3) + COMPOUND_HEAD, 0)
    assert flags_of(cpu, 3, 1) == [0]
    assert cpu.get("r10") == 0


def test_kpageflags_only_reads_struct_pages(cpu: Cpu) -> None:
    cpu.protect()
    assert flags_of(cpu, 0, 2) == [KPF_HEAD, KPF_TAIL]
    assert cpu.read(NESTING) == OUTER_NESTING


def test_kpageflags_of_nothing_does_nothing(cpu: Cpu) -> None:
    assert flags_of(cpu, 0, 0) == []
    assert cpu.get("r10") == 0


# --- compaction -----------------------------------------------------------------------------------------


def test_compaction_looks_at_what_it_can_hold_and_gives_it_back(cpu: Cpu) -> None:
    counts = {FAKE: 1, FAKE + 1: 0, FAKE + 2: 1, FAKE + 3: 7}
    for index, count in counts.items():
        cpu.set_refcount(index, count)
    cpu.write(struct_page(FAKE + 2) + FLAGS, OTHER_FLAGS | 1 << 5)
    cpu.write(KEY, 1)
    cpu.start("isolate_migratepages", struct_page(FAKE), 4, KEY, NESTING, BUFFER)
    assert [cpu.read(BUFFER + 8 * n) for n in range(5)] == [
        NO_REFERENCE,  # a fake head
        NO_REFERENCE,  # a count of 0
        OTHER_FLAGS | 1 << 5,
        OTHER_FLAGS,
        FILLER,
    ]
    assert {index: cpu.refcount(index) for index in counts} == counts
    assert cpu.get("r8") == BUFFER + 32
    assert cpu.read(NESTING) == OUTER_NESTING


def test_compaction_holds_the_reference_while_it_looks_and_no_rcu_section(cpu: Cpu) -> None:
    cpu.set_refcount(1, 1)
    cpu.start("isolate_migratepages", struct_page(1), 1, KEY, NESTING, BUFFER, until="leave")
    assert (cpu.refcount(1), cpu.read(NESTING)) == (2, OUTER_NESTING + 1)
    for label in ("look", "drop"):
        cpu.resume("isolate_migratepages", until=label)
        assert (cpu.refcount(1), cpu.read(NESTING)) == (2, OUTER_NESTING)
    cpu.resume("isolate_migratepages")
    assert cpu.refcount(1) == 1


def test_compaction_gives_up_in_silence_on_pages_that_are_read_only(cpu: Cpu) -> None:
    """Fake heads, and tails whose count is 0: nothing is written to them."""
    cpu.set_refcount(FAKE, 1)
    cpu.protect()
    cpu.write(KEY, 1)
    cpu.start("isolate_migratepages", struct_page(FAKE), 3, KEY, NESTING, BUFFER)
    assert [cpu.read(BUFFER + 8 * n) for n in range(3)] == [NO_REFERENCE] * 3


def test_compaction_of_nothing_does_nothing(cpu: Cpu) -> None:
    cpu.start("isolate_migratepages", struct_page(0), 0, KEY, NESTING, BUFFER)
    assert (cpu.get("r8"), cpu.read(BUFFER)) == (BUFFER, FILLER)


# --- GUP-fast -------------------------------------------------------------------------------------------


def gup(cpu: Cpu, entry: int, key: int = 1, until: str = "done") -> None:
    cpu.write(KEY, key)
    cpu.write(ENTRY, entry)
    cpu.set("eflags", 0x202)
    cpu.start("gup_fast", ENTRY, KEY, NESTING, until=until)


@pytest.mark.parametrize("index", [0, 1, FAKE, FAKE + 1], ids=["head", "tail", "fake head", "aliased tail"])
def test_gup_takes_its_reference_on_the_head(cpu: Cpu, index: int) -> None:
    cpu.set_refcount(0, 1)
    gup(cpu, struct_page(index))
    assert cpu.get("rax") == struct_page(0)
    assert [cpu.refcount(n) for n in (0, 1, FAKE, FAKE + 1)] == [2, 0, 0, 0]
    assert (cpu.interrupts, cpu.read(NESTING)) == (True, OUTER_NESTING)


def test_gup_takes_none_of_a_frozen_folio(cpu: Cpu) -> None:
    gup(cpu, struct_page(1))
    assert (cpu.get("rax"), cpu.refcount(0)) == (0, 0)
    assert (cpu.interrupts, cpu.read(NESTING)) == (True, OUTER_NESTING)


def test_gup_of_an_empty_entry_reads_no_struct_page(cpu: Cpu) -> None:
    cpu.engine.mem_protect(VMEMMAP, 4096, unicorn.UC_PROT_NONE)
    gup(cpu, 0)
    assert (cpu.get("rax"), cpu.interrupts, cpu.read(NESTING)) == (0, True, OUTER_NESTING)


@pytest.mark.parametrize("now", [0, struct_page(2)], ids=["unmapped", "another page"])
def test_gup_gives_the_reference_back_when_the_entry_has_changed(cpu: Cpu, now: int) -> None:
    cpu.set_refcount(0, 1)
    gup(cpu, struct_page(1), until="leave")
    assert cpu.refcount(0) == 2
    cpu.write(ENTRY, now)
    cpu.resume("gup_fast")
    assert (cpu.get("rax"), cpu.refcount(0)) == (0, 1)
    assert (cpu.interrupts, cpu.read(NESTING)) == (True, OUTER_NESTING)


def test_gup_has_interrupts_off_from_its_first_load_to_its_last(cpu: Cpu) -> None:
    cpu.set_refcount(0, 1)
    gup(cpu, struct_page(FAKE), until="disable")
    assert cpu.interrupts
    for label in ("read_entry", "read_own", "read_next", "enter", "test_fake", "try", "leave", "check_entry"):
        cpu.resume("gup_fast", until=label)
        assert not cpu.interrupts
    cpu.resume("gup_fast", until="enable")
    assert not cpu.interrupts
    cpu.resume("gup_fast")
    assert cpu.interrupts
