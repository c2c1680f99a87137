"""Our MMU against the engine's own, on the same bytes: random page tables, accesses and control registers.

Compared: whether the access goes through and, by what it read, wrote or ran, where to; the error code and
CR2 of a fault; every word of the path afterwards when it went through. On a refused access the engine may
have set A in the upper levels, as hardware may, and outside memory A and D; ours leaves the tables alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from native_mmu import FIRST_FREE, PAGE, ROOT, Done, Fault, NativeMmu, Outside

from emu.addr import PageSize, PhysAddr, VirtAddr
from emu.memory import MIB, PhysicalMemory
from emu.mmu import Denied, Mmu, NonCanonical, Translation
from emu.paging.geometry import ArraySpec, Geometry
from emu.paging.models import CpuModel
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import Port
from emu.paging.walk import Access, BusError, Control, Privilege
from emu.trace import Trace

SMALL = CpuModel("small", Geometry((ArraySpec("all", 1, frozenset(Port), frozenset(PageSize), 1, 4),)))
MEMORY_BYTES = 16 * MIB
DATA = 2 * MIB  # from here on memory holds the pattern
TOKEN = 0xDEAD_BEEF_0BAD_CAFE
L3, L2, L1 = FIRST_FREE, FIRST_FREE + 1, FIRST_FREE + 2
VA = 0x1234_5678_9000
LEVELS = (4, 3, 2, 1)
LEAF_LEVEL = {PageSize.KIB4: 1, PageSize.MIB2: 2, PageSize.GIB1: 3}


def pattern(pa: int) -> int:
    """What the aligned word at `pa` holds: as data it is unique, as code it is `mov eax, pa` and a jump.

    The jump ends the engine's block: straight-line code would make it fetch the next page too.
    """
    return int.from_bytes(b"\xb8" + pa.to_bytes(4, "little") + b"\xeb\xfe\x90", "little")


@pytest.fixture(scope="module")
def memory() -> PhysicalMemory:
    memory = PhysicalMemory(MEMORY_BYTES)
    image = b"".join(pattern(pa).to_bytes(8, "little") for pa in range(DATA, MEMORY_BYTES, 8))
    memory.load_image(PhysAddr(DATA), image)
    return memory


@pytest.fixture(scope="module")
def native(memory: PhysicalMemory) -> NativeMmu:
    return NativeMmu(memory)


@dataclass(frozen=True)
class Case:
    """One page table path (top first; the last entry is the leaf), one access, one setting."""

    entries: tuple[Pte, ...]
    va: int
    access: Access
    privilege: Privilege
    control: Control

    def slots(self) -> list[PhysAddr]:
        tables = (ROOT, L3, L2, L1)
        return [
            PhysAddr(table * PAGE + 8 * ((self.va >> (12 + 9 * (level - 1))) & 511))
            for table, level, _ in zip(tables, LEVELS, self.entries, strict=False)
        ]


def put(memory: PhysicalMemory, pa: int, value: int) -> None:
    memory.load_image(PhysAddr(pa), value.to_bytes(8, "little"))


def words(memory: PhysicalMemory, case: Case) -> list[Pte]:
    return [Pte(memory.read_word(pa)) for pa in case.slots()]


def write_case(memory: PhysicalMemory, case: Case) -> None:
    for pa, entry in zip(case.slots(), case.entries, strict=True):
        put(memory, pa, entry)


def ours(memory: PhysicalMemory, mmu: Mmu, case: Case) -> tuple[object, int | None, list[Pte]]:
    """The outcome in the witness's words, the physical address, and the path afterwards."""
    write_case(memory, case)
    mmu.control = case.control
    mmu.reset()
    found = mmu.translate(VirtAddr(case.va), case.access, case.privilege)
    after = words(memory, case)
    memory.journal.forget()
    match found:
        case Translation(pa=pa):
            results = {Access.READ: pattern(pa), Access.WRITE: TOKEN, Access.FETCH: pa}
            return Done(results[case.access]), pa, after
        case Denied(fault=fault):
            return Fault(int(fault.code), fault.va), None, after
        case BusError():
            return Outside(), None, after
        case NonCanonical():
            return "vector 13", None, after
    raise AssertionError(found)


def difference(memory: PhysicalMemory, native: NativeMmu, mmu: Mmu, case: Case) -> str | None:
    """What the two do differently with one case; None when nothing."""
    expected, pa, marked = ours(memory, mmu, case)
    write_case(memory, case)
    seen = native.access(case.va, case.access, case.privilege, case.control, TOKEN)
    after = words(memory, case)
    if pa is not None and case.access is Access.WRITE:
        if memory.read_word(PhysAddr(pa)) != TOKEN:
            return f"{case}: the engine did not write to {pa:#x}"
        put(memory, pa, pattern(pa))
    if seen != expected:
        return f"{case}: the engine {seen}, ours {expected}"
    if isinstance(expected, Done):
        return None if after == marked else f"{case}: the engine leaves {after}, ours {marked}"
    if marked != list(case.entries):
        return f"{case}: refused, and yet ours wrote {marked}"
    may_set = PteBit.ACCESSED | (PteBit.DIRTY if isinstance(expected, Outside) else PteBit(0))
    rest = [entry.without(may_set) for entry in after]
    return None if rest == [e.without(may_set) for e in case.entries] else f"{case}: {after}"


def random_bits(rng: random.Random) -> PteBit:
    """Present, writable and user mostly; reserved bits rarely; the bits without meaning half the time."""
    bits = PteBit(0)
    for bit, chance in (
        (PteBit.PRESENT, 0.95),
        (PteBit.WRITE, 0.75),
        (PteBit.USER, 0.75),
        (PteBit.NO_EXECUTE, 0.1),
        (PteBit.ACCESSED, 0.5),
        (PteBit.DIRTY, 0.5),
        (PteBit.GLOBAL, 0.3),
        (PteBit.PWT, 0.3),
        (PteBit.PCD, 0.3),
        (PteBit.SOFT_9, 0.3),
        (PteBit.SOFT_11, 0.3),
    ):
        if rng.random() < chance:
            bits |= bit
    return bits


def random_high_bits(rng: random.Random) -> int:
    """Software's bits 52 to 62 (no protection keys here), and sometimes a reserved one."""
    bits = rng.getrandbits(11) << 52 if rng.random() < 0.3 else 0
    if rng.random() < 0.03:
        bits |= 1 << rng.choice((40, 41, 45, 50, 51))
    return bits


def random_control(rng: random.Random) -> Control:
    return Control(
        write_protect=rng.random() < 0.6,
        no_execute_enable=rng.random() < 0.8,
        smep=rng.random() < 0.3,
        smap=rng.random() < 0.3,
    )


def random_case(rng: random.Random) -> Case:
    size = rng.choice((PageSize.KIB4, PageSize.KIB4, PageSize.MIB2, PageSize.GIB1))
    leaf_level = LEAF_LEVEL[size]
    entries = []
    for level, below in zip(LEVELS, (L3, L2, L1, 0), strict=True):
        entry = int(random_bits(rng)) | random_high_bits(rng)
        if level > leaf_level:
            entry |= below * PAGE
            if level == 4 and rng.random() < 0.02:
                entry |= PteBit.PAGE_SIZE  # reserved there
        else:
            entry |= random_target(rng, size)
            if level > 1 or rng.random() < 0.3:
                entry |= PteBit.PAGE_SIZE  # in a PT it is PAT
        entries.append(Pte(entry))
        if level == leaf_level:
            break
    offset = rng.randrange(8, 0xF80) & ~7
    access, privilege = rng.choice(tuple(Access)), rng.choice(tuple(Privilege))
    match size:
        case PageSize.KIB4:
            va = VA
        case PageSize.MIB2:
            va = (VA & ~(2 * MIB - 1)) + rng.randrange(512) * PAGE
        case _:
            # The page begins at physical 0: stay where memory holds the pattern, or leave memory.
            frame = rng.randrange(DATA, MEMORY_BYTES, PAGE) if rng.random() < 0.95 else MEMORY_BYTES
            va = (VA & ~(1024 * MIB - 1)) + frame
    return Case(tuple(entries), va + offset, access, privilege, random_control(rng))


def random_target(rng: random.Random, size: PageSize) -> int:
    """Where a leaf points; sometimes with an address bit that its size reserves, often with PAT."""
    if size is PageSize.KIB4:
        return rng.randrange(DATA, MEMORY_BYTES, PAGE) if rng.random() < 0.97 else 1 << rng.randrange(24, 40)
    target = rng.randrange(DATA, MEMORY_BYTES, 2 * MIB) if size is PageSize.MIB2 else 0
    if rng.random() < 0.3:
        target |= PteBit.PAT_LARGE
    if rng.random() < 0.05:
        target |= 1 << rng.randrange(13, 21 if size is PageSize.MIB2 else 30)
    return target


def random_cases(seed: int, count: int) -> Iterator[Case]:
    rng = random.Random(seed)
    return (random_case(rng) for _ in range(count))


def kind(case: Case, outcome: object) -> str:
    return f"fault {outcome.code:#x}" if isinstance(outcome, Fault) else type(outcome).__name__


def compare(memory: PhysicalMemory, native: NativeMmu, cases: Iterator[Case]) -> Counter[str]:
    """Compare every case. Returns how often each outcome occurred."""
    mmu = Mmu(0, memory, SMALL, Control(), ROOT, Trace())
    kinds: Counter[str] = Counter()
    found = []
    for case in cases:
        if (text := difference(memory, native, mmu, case)) is not None:
            found.append(text)
        kinds[kind(case, ours(memory, mmu, case)[0])] += 1
        for pa in case.slots():
            put(memory, pa, 0)
    assert not found, f"{len(found)} differences; the first: {found[0]}"
    return kinds


def test_5000_random_walks_end_as_in_the_engines_own_mmu(memory: PhysicalMemory, native: NativeMmu) -> None:
    kinds = compare(memory, native, random_cases(seed=20240611, count=5000))
    assert sum(kinds.values()) == 5000
    # The generator reaches what the comparison is about, each error code bit included.
    assert kinds["Done"] > 1000
    assert kinds["Outside"] > 20
    codes = {int(name.split()[1], 16) for name in kinds if name.startswith("fault")}
    assert {0, 1, 2, 3, 4, 5, 6, 7, 9, 0xB, 0xD, 0xF, 0x10, 0x11, 0x14, 0x15, 0x19, 0x1D} <= codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_100000_random_walks_end_as_in_the_engines_own_mmu(
    memory: PhysicalMemory, native: NativeMmu, seed: int
) -> None:
    assert sum(compare(memory, native, random_cases(seed, 10_000)).values()) == 10_000


# --- one word at a time: every single bit of every level -----------------------------------------------


def plain_entries(size: PageSize) -> list[int]:
    """A path that allows everything."""
    allowed = int(PteBit.PRESENT | PteBit.WRITE | PteBit.USER)
    upper = [allowed | below * PAGE for below in (L3, L2, L1)]
    leaf = {PageSize.KIB4: DATA, PageSize.MIB2: DATA | PteBit.PAGE_SIZE, PageSize.GIB1: int(PteBit.PAGE_SIZE)}
    return [*upper[: 4 - LEAF_LEVEL[size]], allowed | leaf[size]]


@pytest.mark.parametrize("size", PageSize, ids=str)
def test_flipping_any_one_bit_of_any_level_changes_the_same_thing_in_both(
    memory: PhysicalMemory, native: NativeMmu, size: PageSize
) -> None:
    def cases() -> Iterator[Case]:
        base = plain_entries(size)
        va = (VA & ~(size - 1)) + (DATA if size is PageSize.GIB1 else 0) + 0x540
        for level in range(len(base)):
            for bit in range(64):
                if level < len(base) - 1 and (12 <= bit < 40 or (bit == 7 and level > 0)):
                    continue  # would lead to another table: random contents, or none
                if base[level] & 1 << bit & DATA:
                    continue  # would lead to memory without the pattern
                entries = list(base)
                entries[level] ^= 1 << bit
                for access in Access:
                    for privilege in Privilege:
                        yield Case(tuple(map(Pte, entries)), va, access, privilege, Control())

    kinds = compare(memory, native, cases())
    assert kinds["Done"] > 100


@pytest.mark.parametrize("bit", range(36, 52))
def test_physical_address_width_of_the_models_is_that_of_the_engine(
    memory: PhysicalMemory, native: NativeMmu, bit: int
) -> None:
    """Below MAXPHYADDR an address bit leads out of memory, from there on it is reserved."""
    entries = plain_entries(PageSize.KIB4)
    entries[-1] |= 1 << bit
    case = Case(tuple(map(Pte, entries)), VA, Access.READ, Privilege.SUPERVISOR, Control())
    write_case(memory, case)
    seen = native.access(VA, case.access, case.privilege, case.control, 0)
    reserved = bit >= SMALL.physical_bits
    assert seen == (Fault(9, VA) if reserved else Outside())


def test_every_combination_of_controls_privilege_access_and_rights(
    memory: PhysicalMemory, native: NativeMmu
) -> None:
    def cases() -> Iterator[Case]:
        for number in range(16):
            control = Control(
                write_protect=bool(number & 1),
                no_execute_enable=bool(number & 2),
                smep=bool(number & 4),
                smap=bool(number & 8),
            )
            for rights in range(8):
                entries = plain_entries(PageSize.KIB4)
                entries[-1] = DATA | PteBit.PRESENT
                entries[-1] |= PteBit.WRITE if rights & 1 else 0
                entries[-1] |= PteBit.USER if rights & 2 else 0
                entries[-1] |= PteBit.NO_EXECUTE if rights & 4 else 0
                for access in Access:
                    for privilege in Privilege:
                        yield Case(tuple(map(Pte, entries)), VA, access, privilege, control)

    assert sum(compare(memory, native, cases()).values()) == 16 * 8 * 3 * 2


@pytest.mark.parametrize("va", [0x0000_8000_0000_0000, 0xFFFF_7FFF_FFFF_FFF8, 0x1234_0000_0000_0000])
@pytest.mark.parametrize("access", [Access.READ, Access.WRITE])
def test_an_address_that_is_not_canonical_is_no_page_fault(
    memory: PhysicalMemory, native: NativeMmu, va: int, access: Access
) -> None:
    mmu = Mmu(0, memory, SMALL, Control(), ROOT, Trace())
    assert mmu.translate(VirtAddr(va), access, Privilege.SUPERVISOR) == NonCanonical(va)
    assert native.access(va, access, Privilege.SUPERVISOR, Control(), 0) == "vector 13"
