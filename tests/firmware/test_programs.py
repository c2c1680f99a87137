"""What the programs do, run in a plain engine on struct pages made by hand."""

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
    LOWER_HALF,
    NESTING,
    OTHER_FLAGS,
    OUTER_NESTING,
    PER_VMEMMAP_PAGE,
    VMEMMAP,
    VMEMMAP_PAGES,
    Cpu,
    place,
    struct_page,
)

from firmware.catalog import PROGRAM_NAMES, program
from firmware.program import PAGE_SIZE


@pytest.fixture
def cpu() -> Cpu:
    return Cpu()


def test_read_tails_stores_two_words_of_each_vmemmap_page(cpu: Cpu) -> None:
    for page in range(VMEMMAP_PAGES):
        cpu.write(VMEMMAP + page * PAGE_SIZE, 0x1000 + page)
        cpu.write(VMEMMAP + page * PAGE_SIZE + 8, 0x2000 + page)
    cpu.start("read_tails", VMEMMAP, VMEMMAP_PAGES, BUFFER)
    seen = [cpu.read(BUFFER + 8 * n) for n in range(2 * VMEMMAP_PAGES)]
    assert seen == [base + page for page in range(VMEMMAP_PAGES) for base in (0x1000, 0x2000)]
    assert cpu.get("rdx") == BUFFER + 16 * VMEMMAP_PAGES
    assert cpu.read(BUFFER + 16 * VMEMMAP_PAGES) == FILLER


def test_read_tails_of_no_page_reads_and_writes_nothing(cpu: Cpu) -> None:
    cpu.start("read_tails", 0, 0, BUFFER)
    assert cpu.get("rdx") == BUFFER
    assert cpu.read(BUFFER) == FILLER


def test_read_tails_sees_a_change_between_its_two_loads(cpu: Cpu) -> None:
    cpu.write(VMEMMAP, 1)
    cpu.start("read_tails", VMEMMAP, 1, BUFFER, until="read_compound_head")
    cpu.write(VMEMMAP, 2)
    cpu.write(VMEMMAP + 8, 3)
    cpu.resume("read_tails")
    assert (cpu.read(BUFFER), cpu.read(BUFFER + 8)) == (1, 3)


def test_read_twice(cpu: Cpu) -> None:
    cpu.write(VMEMMAP, 0x1111)
    cpu.start("read_twice", VMEMMAP, until="gap")
    cpu.resume("read_twice", until="second")
    cpu.write(VMEMMAP, 0x2222)
    cpu.resume("read_twice")
    assert (cpu.get("rax"), cpu.get("rbx")) == (0x1111, 0x2222)


@pytest.mark.parametrize("name", ["write_head", "write_tail"])
def test_a_writer_stores_one_word(cpu: Cpu, name: str) -> None:
    cpu.start(name, VMEMMAP + 40, 0x123456789ABCDEF0, until="write")
    assert cpu.read(VMEMMAP + 40) == 0
    cpu.resume(name)
    assert [cpu.read(VMEMMAP + offset) for offset in (32, 40, 48)] == [0, 0x123456789ABCDEF0, 0]


@pytest.mark.parametrize("name", ["write_head", "write_tail"])
def test_a_writer_faults_at_its_store(cpu: Cpu, name: str) -> None:
    cpu.engine.mem_protect(VMEMMAP, PAGE_SIZE, unicorn.UC_PROT_READ)
    with pytest.raises(unicorn.UcError) as caught:
        cpu.start(name, VMEMMAP, 1)
    assert caught.value.errno == unicorn.UC_ERR_WRITE_PROT
    assert cpu.get("rip") == place(name, "write")


def test_read_then_write(cpu: Cpu) -> None:
    cpu.write(VMEMMAP, 5)
    cpu.start("read_then_write", VMEMMAP, 6, until="gap")
    cpu.resume("read_then_write", until="write")
    assert cpu.read(VMEMMAP) == 5
    cpu.resume("read_then_write", until="read_back")
    assert cpu.read(VMEMMAP) == 6
    cpu.write(VMEMMAP, 7)
    cpu.resume("read_then_write")
    assert (cpu.get("rax"), cpu.get("rbx")) == (5, 7)


def take(cpu: Cpu, index: int, key: int) -> int:
    """Run get_page_unless_zero to its end; every path must leave the nesting word as it was."""
    cpu.write(KEY, key)
    cpu.start("get_page_unless_zero", struct_page(index), KEY, NESTING)
    assert cpu.read(NESTING) == OUTER_NESTING
    return cpu.get("rax")


@pytest.mark.parametrize("key", [0, 1, 1 << 32])
@pytest.mark.parametrize(
    ("index", "what"), [(0, "a real head"), (1, "a tail"), (FAKE + 1, "an aliased tail")]
)
def test_a_reference_is_taken_unless_the_count_is_zero(cpu: Cpu, key: int, index: int, what: str) -> None:
    cpu.make_folio()
    assert (take(cpu, index, key), cpu.refcount(index)) == (0, 0)
    cpu.set_refcount(index, 1)
    assert (take(cpu, index, key), cpu.refcount(index)) == (1, 2)
    cpu.set_refcount(index, 0x7FFFFFFF)
    assert (take(cpu, index, key), cpu.refcount(index)) == (1, 0x80000000)


@pytest.mark.parametrize("key", [1, 1 << 32])
def test_no_reference_is_taken_through_a_fake_head(cpu: Cpu, key: int) -> None:
    cpu.make_folio()
    cpu.set_refcount(FAKE, 1)
    assert (take(cpu, FAKE, key), cpu.refcount(FAKE)) == (0, 1)


def test_with_the_key_off_a_fake_head_is_taken_for_a_head(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.set_refcount(FAKE, 1)
    assert (take(cpu, FAKE, 0), cpu.refcount(FAKE)) == (1, 2)


def test_a_page_without_pg_head_is_no_fake_head(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.write(struct_page(FAKE) + FLAGS, OTHER_FLAGS)
    cpu.set_refcount(FAKE, 1)
    assert (take(cpu, FAKE, 1), cpu.refcount(FAKE)) == (1, 2)


def test_pg_head_at_an_address_that_starts_no_page_is_no_fake_head(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.make_head(FAKE + 2)
    cpu.set_refcount(FAKE + 2, 1)
    assert (take(cpu, FAKE + 2, 1), cpu.refcount(FAKE + 2)) == (1, 2)


def test_a_head_whose_next_struct_is_no_tail_is_no_fake_head(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.write(struct_page(FAKE + 1) + COMPOUND_HEAD, struct_page(0))
    cpu.set_refcount(FAKE, 1)
    assert (take(cpu, FAKE, 1), cpu.refcount(FAKE)) == (1, 2)


def test_the_nesting_word_is_raised_from_enter_to_leave(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.set_refcount(0, 1)
    cpu.write(KEY, 1)
    cpu.start("get_page_unless_zero", struct_page(0), KEY, NESTING, until="enter")
    assert cpu.read(NESTING) == OUTER_NESTING
    for label in (
        "test_key",
        "read_flags",
        "test_fake",
        "read_count",
        "read_again",
        "unless_zero",
        "try",
        "leave",
    ):
        cpu.resume("get_page_unless_zero", until=label)
        assert cpu.read(NESTING) == OUTER_NESTING + 1
    cpu.resume("get_page_unless_zero")
    assert cpu.read(NESTING) == OUTER_NESTING
    assert cpu.get("rax") == 1


@pytest.mark.parametrize(
    ("changed_to", "taken", "count_after"),
    [(5, 1, 6), (0, 0, 0)],
)
def test_a_count_that_changes_before_the_cmpxchg(
    cpu: Cpu, changed_to: int, taken: int, count_after: int
) -> None:
    """The compare fails, and the loop goes on with the value that is there now."""
    cpu.set_refcount(1, 2)
    cpu.start("get_page_unless_zero", struct_page(1), KEY, NESTING, until="try")
    cpu.set_refcount(1, changed_to)
    cpu.resume("get_page_unless_zero", until="unless_zero")
    assert cpu.get("rax") == changed_to
    assert cpu.refcount(1) == changed_to
    cpu.resume("get_page_unless_zero")
    assert (cpu.get("rax"), cpu.refcount(1)) == (taken, count_after)
    assert cpu.read(NESTING) == OUTER_NESTING


@pytest.mark.parametrize("label", ["read_count", "read_again"])
def test_a_count_that_drops_to_zero_before_a_load(cpu: Cpu, label: str) -> None:
    cpu.set_refcount(1, 1)
    cpu.start("get_page_unless_zero", struct_page(1), KEY, NESTING, until=label)
    cpu.set_refcount(1, 0)
    cpu.resume("get_page_unless_zero")
    assert (cpu.get("rax"), cpu.refcount(1), cpu.read(NESTING)) == (0, 0, OUTER_NESTING)


def test_a_zero_count_is_never_written(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.engine.mem_protect(VMEMMAP, PAGE_SIZE, unicorn.UC_PROT_READ)
    assert take(cpu, 1, 1) == 0


def test_the_cmpxchg_is_a_write_even_when_the_compare_fails(cpu: Cpu) -> None:
    cpu.set_refcount(1, 1)
    cpu.start("get_page_unless_zero", struct_page(1), KEY, NESTING, until="try")
    cpu.set_refcount(1, 0)
    cpu.engine.mem_protect(VMEMMAP, PAGE_SIZE, unicorn.UC_PROT_READ)
    with pytest.raises(unicorn.UcError) as caught:
        cpu.resume("get_page_unless_zero")
    assert caught.value.errno == unicorn.UC_ERR_WRITE_PROT
    assert cpu.get("rip") == place("get_page_unless_zero", "try")


HEADS = [
    pytest.param(0, 0, 0, id="a real head, key off"),
    pytest.param(0, 1, 0, id="a real head, key on"),
    pytest.param(1, 0, 0, id="a tail, key off"),
    pytest.param(2, 1, 0, id="a tail, key on"),
    pytest.param(FAKE, 0, FAKE, id="a fake head, key off, is taken for a head"),
    pytest.param(FAKE, 1, 0, id="a fake head, key on"),
    pytest.param(FAKE, 1 << 32, 0, id="a fake head, key on in its high half"),
    pytest.param(FAKE + 1, 0, 0, id="an aliased tail, key off"),
    pytest.param(7 * PER_VMEMMAP_PAGE, 1, 0, id="the last fake head"),
]


@pytest.mark.parametrize(("index", "key", "head"), HEADS)
def test_compound_head(cpu: Cpu, index: int, key: int, head: int) -> None:
    cpu.make_folio()
    cpu.write(KEY, key)
    cpu.start("compound_head", struct_page(index), KEY)
    assert cpu.get("rax") == struct_page(head)


@pytest.mark.parametrize(("index", "key", "head"), HEADS)
def test_walk_pfns_answers_as_compound_head(cpu: Cpu, index: int, key: int, head: int) -> None:
    cpu.make_folio()
    cpu.write(KEY, key)
    cpu.start("walk_pfns", struct_page(index), 1, KEY, NESTING, BUFFER)
    assert cpu.read(BUFFER) == struct_page(head)
    assert cpu.read(BUFFER + 8) == FILLER
    assert cpu.read(NESTING) == OUTER_NESTING


@pytest.mark.parametrize("name", ["compound_head", "walk_pfns"])
def test_pages_that_are_no_fake_heads_are_their_own_heads(cpu: Cpu, name: str) -> None:
    cpu.write(KEY, 1)
    cpu.write(struct_page(FAKE) + FLAGS, OTHER_FLAGS)
    cpu.make_head(FAKE + 1)
    cpu.make_tail(FAKE + 2, FAKE + 1)
    cpu.make_head(2 * FAKE)
    cases = {
        FAKE: "no PG_head, though the next struct page is a head",
        FAKE + 1: "PG_head, but the address starts no page",
        2 * FAKE: "PG_head at the start of a page, but the next struct page is no tail",
        3: "no flag at all",
    }
    for index in cases:
        if name == "compound_head":
            cpu.start(name, struct_page(index), KEY)
            assert cpu.get("rax") == struct_page(index)
        else:
            cpu.start(name, struct_page(index), 1, KEY, NESTING, BUFFER)
            assert cpu.read(BUFFER) == struct_page(index)


def test_compound_head_reads_flags_and_next_struct_separately(cpu: Cpu) -> None:
    """What is written between its loads can be seen: the fake head's answer is the next struct's word."""
    cpu.make_folio()
    cpu.write(KEY, 1)
    cpu.start("compound_head", struct_page(FAKE), KEY, until="read_flags")
    cpu.resume("compound_head", until="read_next")
    cpu.make_tail(FAKE + 1, 2)
    cpu.resume("compound_head")
    assert cpu.get("rax") == struct_page(2)


@pytest.mark.parametrize("key", [0, 1])
def test_walk_pfns_over_vmemmap_pages(cpu: Cpu, key: int) -> None:
    cpu.make_folio()
    cpu.write(KEY, key)
    first, count = FAKE - 2, FAKE + 4
    cpu.start("walk_pfns", struct_page(first), count, KEY, NESTING, BUFFER)
    own = () if key else (FAKE, 2 * FAKE)
    expected = [struct_page(n if n in own else 0) for n in range(first, first + count)]
    assert [cpu.read(BUFFER + 8 * n) for n in range(count)] == expected
    assert cpu.get("r8") == BUFFER + 8 * count
    assert cpu.read(BUFFER + 8 * count) == FILLER
    assert cpu.read(NESTING) == OUTER_NESTING


def test_walk_pfns_leaves_its_rcu_section_after_each_struct_page(cpu: Cpu) -> None:
    cpu.make_folio()
    cpu.start("walk_pfns", struct_page(0), 3, KEY, NESTING, BUFFER, until="next_page")
    for n in range(3):
        assert cpu.read(NESTING) == OUTER_NESTING
        cpu.resume("walk_pfns", until="read_own")
        assert cpu.read(NESTING) == OUTER_NESTING + 1
        cpu.resume("walk_pfns", until="answer")
        assert cpu.read(NESTING) == OUTER_NESTING + 1
        cpu.resume("walk_pfns", until="next_page" if n < 2 else "done")
    assert cpu.read(NESTING) == OUTER_NESTING


def test_walk_pfns_of_nothing_does_nothing(cpu: Cpu) -> None:
    cpu.start("walk_pfns", 0, 0, 0, 0, BUFFER)
    assert cpu.get("r8") == BUFFER
    assert cpu.read(BUFFER) == FILLER


@pytest.mark.parametrize("name", PROGRAM_NAMES)
def test_every_program_halts_by_itself(cpu: Cpu, name: str) -> None:
    cpu.make_folio()
    described = program(name)
    values = {"virtual address": VMEMMAP, "vmemmap pages": 2, "struct pages": 2, "64-bit word": 9}
    pointers = {"key": KEY, "nesting": NESTING, "buffer": BUFFER, "entry": ENTRY}
    cpu.write(ENTRY, struct_page(1))
    for argument in described.arguments:
        cpu.set(argument.register, pointers.get(argument.name, values[argument.unit]))
    cpu.engine.emu_start(described.origin & LOWER_HALF, 0, count=10_000)
    assert cpu.get("rip") == described.end & LOWER_HALF
