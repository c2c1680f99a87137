"""The page-fault handler: when a fault is spurious, and what the log says when it is not.

The lines are those of v6.12: show_fault_oops(), dump_pagetable(), __die_header(), exc_general_protection().
"""

from __future__ import annotations

import pytest
from hvo_lab import DIRECT_MAP, MIB, PAGE, RW, VMEMMAP, Lab, lab_2m, region_of

from emu.addr import VirtAddr
from emu.choice import Step
from emu.cpu.ops import Load, Store
from emu.events import Faulted, Finished, Loaded, Source, Stored, Trapped
from firmware.catalog import program
from firmware.load import load_program
from firmware.program import Program
from kernel_model.boot import BootConfig
from kernel_model.core.events import Oops, SpuriousFault
from kernel_model.flush.broken import NEVER

LOAD = load_program("load", "mov rax, [rdi]\nhlt\n", origin=0xFFFF_FFFF_8110_0000)
JUMP = load_program("jump", "jmp rdi\n", origin=0xFFFF_FFFF_8110_1000)
UD2 = load_program("ud2", "ud2\n", origin=0xFFFF_FFFF_8110_2000)
POP = load_program("pop", "mov rsp, rdi\npop rax\n", origin=0xFFFF_FFFF_8110_3000)
WRITE = program("write_tail")


def small() -> Lab:
    return Lab(BootConfig(16 * MIB, 2, ()))


def oops_of(lab: Lab, code: Program, rdi: int, rsi: int = 0) -> Oops:
    """What CPU 1 has to say when it runs that program, which does not end at its HLT."""
    lab.mark()
    lab.start_guest(code, 1, rdi=rdi, rsi=rsi)
    lab.run()
    assert lab.seen(Finished) == [Finished(1, code.name, killed=True)]
    (oops,) = lab.heard(Oops)
    return oops


def died(code: Program, error: int, instruction: str, rip: int = 0) -> tuple[str, ...]:
    return (
        f"Oops: Oops: {error:04x} [#1] PREEMPT SMP NOPTI",
        f"CPU: 1 Comm: {code.name}",
        f"RIP: {code.name} {rip or code.origin:#x}: {instruction}",
    )


def walked(lab: Lab, va: int) -> str:
    """The entries on the way to an address as dump_pagetable() writes them, down to the last one used."""
    words, table = [], lab.machine.cpus[0].mmu.root
    for level, names in ((4, ("PGD", "P4D")), (3, ("PUD",)), (2, ("PMD",)), (1, ("PTE",))):
        entry = lab.word(table * PAGE + (va >> (12 + 9 * (level - 1)) & 511) * 8)
        words += [f"{name} {entry:x}" for name in names]
        if not entry & 1 or (entry & 0x80 and level > 1):
            break
        table = entry >> 12 & ((1 << 40) - 1)
    return " ".join(words)


# --- an Oops, line by line --------------------------------------------------------------------------------


def test_a_write_to_a_read_only_tail() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.optimize(huge)
    va = huge.folio + 3 * PAGE + 0x40
    before = lab.bytes_at(huge.folio, PAGE)
    oops = oops_of(lab, WRITE, va, rsi=0x1234)
    head = lab.frame(huge.folio)
    assert oops.lines == (
        f"BUG: unable to handle page fault for address: {va:016x}",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0003) - permissions violation",
        walked(lab, va),
        *died(WRITE, 3, "mov qword ptr [rdi], rsi"),
        f"CR2: {va:016x}",
    )
    assert (oops.va, oops.code) == (va, 3)
    # The last entry shown is the read-only PTE: the head's frame, low bits 0x121, NX.
    assert oops.lines[3].endswith(f" PTE {1 << 63 | head << 12 | 0x121:x}")
    assert oops.lines[3].startswith("PGD ")
    assert lab.bytes_at(huge.folio, PAGE) == before
    assert lab.seen(Stored) == []


def test_a_null_dereference() -> None:
    oops = oops_of(small(), LOAD, 0x28)
    assert oops.lines == (
        "BUG: kernel NULL pointer dereference, address: 0000000000000028",
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0000) - not-present page",
        "PGD 0 P4D 0",
        *died(LOAD, 0, "mov rax, qword ptr [rdi]"),
        "CR2: 0000000000000028",
    )


@pytest.mark.parametrize(("va", "null"), [(0, True), (0xFFF, True), (0x1000, False)])
def test_null_is_the_first_page(va: int, null: bool) -> None:
    first = oops_of(small(), WRITE, va).lines[0]
    assert first.startswith(
        "BUG: kernel NULL pointer dereference" if null else "BUG: unable to handle page fault"
    )


def test_a_jump_to_nowhere() -> None:
    target = 0xFFFF_FFFF_9000_0000
    lab = small()
    oops = oops_of(lab, JUMP, target)
    assert oops.lines[:4] == (
        "BUG: unable to handle page fault for address: ffffffff90000000",
        "#PF: supervisor instruction fetch in kernel mode",
        "#PF: error_code(0x0010) - not-present page",
        walked(lab, target),
    )
    assert oops.lines[4:6] == ("Oops: Oops: 0010 [#1] PREEMPT SMP NOPTI", "CPU: 1 Comm: jump")
    assert oops.lines[6].startswith(f"RIP: jump {target:#x}")
    assert oops.lines[7:] == (f"CR2: {target:016x}",)


def test_a_jump_into_data() -> None:
    # show_fault_oops() has one more line for a fetch from a page that is there but not executable.
    target = DIRECT_MAP + 8 * MIB
    oops = oops_of(small(), JUMP, target)
    assert oops.lines[:4] == (
        "kernel tried to execute NX-protected page - exploit attempt? (uid: 0)",
        f"BUG: unable to handle page fault for address: {target:016x}",
        "#PF: supervisor instruction fetch in kernel mode",
        "#PF: error_code(0x0011) - permissions violation",
    )


def test_an_entry_with_a_reserved_bit() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))
    set_pte(lab, huge.folio, pte(lab, huge.folio) | 1 << 45)
    oops = oops_of(lab, LOAD, huge.folio)
    assert oops.lines[2] == "#PF: error_code(0x0009) - reserved bit violation"


def test_an_address_that_is_not_canonical() -> None:
    # exc_general_protection() and __die_header(): one line, the description in the place of "Oops".
    lab = small()
    oops = oops_of(lab, LOAD, 0xDEAD_0000_0000_0100)
    first, second, third = died(LOAD, 0, "mov rax, qword ptr [rdi]")
    said = "general protection fault, probably for non-canonical address 0xdead000000000100"
    assert first == "Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI"
    assert oops.lines == (f"Oops: {said}: 0000 [#1] PREEMPT SMP NOPTI", second, third)
    assert [event.vector for event in lab.seen(Trapped)] == [13]


def test_a_jump_to_a_non_canonical_address_dies_at_the_jump_and_is_told_no_address() -> None:
    """get_kernel_gp_address() finds none: the instruction has no memory operand."""
    lab = small()
    oops = oops_of(lab, JUMP, 0xDEAD_0000_0000_0100)
    said = "Oops: general protection fault: 0000 [#1] PREEMPT SMP NOPTI"
    assert oops.lines == (said, *died(JUMP, 0, "jmp rdi")[1:])
    assert [event.vector for event in lab.seen(Trapped)] == [13]


def test_a_non_canonical_stack() -> None:
    lab = small()
    oops = oops_of(lab, POP, 0xDEAD_0000_0000_0100)
    said = "Oops: stack segment: 0000 [#1] PREEMPT SMP NOPTI"
    assert oops.lines == (said, *died(POP, 0, "pop rax", POP.origin + 3)[1:])
    assert [event.vector for event in lab.seen(Trapped)] == [12]


def test_an_invalid_opcode() -> None:
    lab = small()
    oops = oops_of(lab, UD2, 0)
    assert oops.lines == ("Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI", *died(UD2, 0, "ud2")[1:])
    assert [event.vector for event in lab.seen(Trapped)] == [6]


def test_an_access_where_there_is_no_memory() -> None:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))
    set_pte(lab, huge.folio, 0x8000_0000_0000_0163 | 0xFF_FFFF << 12)
    oops = oops_of(lab, LOAD, huge.folio)
    assert oops.lines[0] == "bus error: no memory at physical address 0xffffff000"


def test_kernel_code_is_named_by_its_function() -> None:
    lab = small()

    async def dereference_null() -> None:
        await Load(VirtAddr(8))

    call = lab.start(dereference_null, cpu=1, name="a kernel thread")
    lab.run()
    assert not call.returned
    (oops,) = lab.heard(Oops)
    assert oops.lines[5:7] == ("CPU: 1 Comm: a kernel thread", "RIP: dereference_null")


def test_an_oops_ends_one_context_and_nothing_else() -> None:
    lab = small()
    other = lab.start(_nothing, cpu=0)
    lab.start_guest(LOAD, 1, rdi=0)
    after = lab.start(_nothing, cpu=1)
    lab.run()
    assert len(lab.heard(Oops)) == 1
    assert other.returned
    assert after.returned, "the CPU goes on with its next thread, with interrupts on"
    assert lab.machine.cpus[1].interrupts_enabled


async def _nothing() -> None:
    await Load(VirtAddr(DIRECT_MAP))


# --- spurious faults (rule L4) ----------------------------------------------------------------------------


def pte(lab: Lab, va: int) -> int:
    return lab.table(lab.tables()[region_of(va)])[va >> 12 & 511]


def set_pte(lab: Lab, va: int, entry: int) -> None:
    table = lab.tables()[region_of(va)]
    lab.write(DIRECT_MAP + table * PAGE + (va >> 12 & 511) * 8, entry.to_bytes(8, "little"))


def test_a_write_through_a_stale_read_only_entry_is_retried_once_and_succeeds() -> None:
    """A tail that was restored without a flush: the page table says writable, this CPU does not know."""
    # CPU 0 optimizes, so it has stale entries of its own: CPU 2 restores.
    lab = lab_2m(policy=NEVER, cpus=3)
    huge = lab.config.huge_pages[0]
    tail = VirtAddr(huge.folio + 2 * PAGE + 0x40)

    async def read() -> None:
        await Load(tail)

    lab.optimize(huge)
    lab.call(read, cpu=1)
    assert lab.restore(huge, cpu=2) == 0
    assert lab.leaf(tail).flags == RW
    lab.mark()
    lab.start_guest(WRITE, 1, rdi=tail, rsi=0x1234)
    lab.run()
    (fault,) = lab.seen(Faulted)
    assert (fault.fault.va, int(fault.fault.code)) == (tail, 3)
    assert fault.entry is not None, "the cached translation denied it, not the page table"
    assert lab.heard(SpuriousFault) == [SpuriousFault(tail, 3)]
    assert lab.heard(Oops) == []
    (store,) = [event for event in lab.seen(Stored) if event.va == tail]
    assert (store.source, store.pa) == (Source.WALK, lab.physical(tail)), "R12: the fault dropped the entry"
    assert lab.word_at(tail) == 0x1234
    assert lab.seen(Finished) == [Finished(1, WRITE.name, killed=False)]


def test_a_kernel_routine_is_retried_too() -> None:
    lab = lab_2m(policy=NEVER, cpus=3)
    huge = lab.config.huge_pages[0]
    tail = VirtAddr(huge.folio + 2 * PAGE + 0x40)

    async def read_then_wait_then_write() -> None:
        await Load(tail)
        await Store(tail, 0x77)

    lab.optimize(huge)
    call = lab.start(read_then_wait_then_write, cpu=1)
    lab.perform(Step(1))
    hvo = lab.kernel.hvo
    lab.start(lambda: hvo.hugetlb_vmemmap_restore_folio(huge.hstate, huge.folio), cpu=2)
    while lab.machine.cpus[2].contexts:
        enabled = lab.machine.enabled()
        lab.perform(next(choice for choice in enabled if choice != Step(1)))
    lab.run()
    assert call.returned
    assert lab.heard(SpuriousFault) == [SpuriousFault(tail, 3)]
    assert lab.word_at(tail) == 0x77


def faulted_before_the_change(lab: Lab, code: Program, va: int, first: int, then: int) -> None:
    """CPU 1 faults on a PTE; before its handler looks, the PTE is changed."""
    set_pte(lab, va, first)
    lab.mark()
    lab.start_guest(code, 1, rdi=va, rsi=0x55)
    while not lab.seen(Faulted):
        lab.perform(Step(1))
    set_pte(lab, va, then)
    lab.run()


@pytest.fixture
def split_lab() -> Lab:
    lab = lab_2m()
    huge = lab.config.huge_pages[0]
    lab.call(lambda: lab.kernel.hvo.hugetlb_vmemmap_split_folio(huge.hstate, huge.folio))
    return lab


def test_a_write_fault_on_an_entry_that_became_writable_is_spurious(split_lab: Lab) -> None:
    va = split_lab.config.huge_pages[0].folio
    writable = pte(split_lab, va)
    faulted_before_the_change(split_lab, WRITE, va, writable & ~0x42, writable)
    assert split_lab.heard(SpuriousFault) == [SpuriousFault(va, 3)]
    assert split_lab.word_at(va) == 0x55


def test_a_fault_on_a_page_that_was_not_present_is_never_spurious(split_lab: Lab) -> None:
    """Even if it is present by the time the handler looks: only WRITE|PROT and INSTR|PROT qualify."""
    va = split_lab.config.huge_pages[0].folio
    writable = pte(split_lab, va)
    faulted_before_the_change(split_lab, WRITE, va, 0, writable)
    assert split_lab.heard(SpuriousFault) == []
    (oops,) = split_lab.heard(Oops)
    assert oops.lines[2] == "#PF: error_code(0x0002) - not-present page"
    assert oops.lines[3] == walked(split_lab, va)
    assert split_lab.seen(Stored) == []


def test_a_read_fault_is_never_spurious(split_lab: Lab) -> None:
    va = split_lab.config.huge_pages[0].folio
    writable = pte(split_lab, va)
    faulted_before_the_change(split_lab, LOAD, va, writable | 1 << 45, writable)
    assert split_lab.heard(SpuriousFault) == []
    assert len(split_lab.heard(Oops)) == 1
    assert [event for event in split_lab.seen(Loaded) if event.va == va] == []


def test_a_fetch_from_a_page_that_became_executable_is_spurious(split_lab: Lab) -> None:
    va = split_lab.config.huge_pages[0].folio + PAGE
    split_lab.write(va, b"\xf4")  # hlt
    data = pte(split_lab, va)
    faulted_before_the_change(split_lab, JUMP, va, data, data & ~(1 << 63))
    assert split_lab.heard(SpuriousFault) == [SpuriousFault(va, 0x11)]
    assert split_lab.seen(Finished) == [Finished(1, "jump", killed=False)]


def test_a_write_that_only_the_pmd_forbids_is_not_spurious(split_lab: Lab) -> None:
    lab = split_lab
    va = lab.config.huge_pages[0].folio
    pmd = lab.word(lab.pmd_address(va))
    lab.write(DIRECT_MAP + lab.pmd_address(va), (pmd & ~2).to_bytes(8, "little"))
    lab.machine.cpus[1].mmu.reset()
    lab.mark()
    lab.start_guest(WRITE, 1, rdi=va, rsi=0x55)
    lab.run()
    assert lab.heard(SpuriousFault) == []
    (oops,) = lab.heard(Oops)
    assert oops.code == 3
    assert f"PMD {pmd & ~2:x} PTE" in oops.lines[3]


def test_a_write_to_a_read_only_2m_leaf_shows_the_pmd_last() -> None:
    lab = small()
    va = VMEMMAP
    pmd = lab.word(lab.pmd_address(va))
    lab.write(DIRECT_MAP + lab.pmd_address(va), (pmd & ~0x42).to_bytes(8, "little"))
    lab.machine.cpus[1].mmu.reset()
    oops = oops_of(lab, WRITE, va)
    assert oops.lines[3].split()[-2:] == ["PMD", f"{pmd & ~0x42:x}"]
    assert oops.code == 3
