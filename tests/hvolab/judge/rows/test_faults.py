"""Page faults and traps, row 6."""

from __future__ import annotations

import pytest
from judge_lab import (
    SPLIT,
    TAIL_1,
    TAIL_FIELD,
    VALUE,
    WORD,
    Lab,
    after_split,
    guest,
    lab,
    only_finding,
    reader,
    value_at,
    writer,
)

from emu.addr import VirtAddr
from emu.cpu.ops import Store
from emu.paging.models import ZEN_3
from firmware.catalog import program
from hvolab.catalog.common import optimize, restore
from hvolab.judge.verdict import Verdict
from hvolab.subject.pattern import Finishes, Loads, SetsPte
from hvolab.subject.scenario import KernelActor
from hvolab.subject.script import ToEnd, Until
from kernel_model.boot import Kernel
from kernel_model.layout import PerCpu
from kernel_model.mm.image import HugePage

# --- write-protect and spurious -------------------------------------------------------------------------


def test_a_write_to_read_only_vmemmap_is_write_protect() -> None:
    done = lab(optimize(0), writer(TAIL_FIELD), script=(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.WRITE_PROTECT
    assert (finding.cr2, finding.error_code) == (TAIL_FIELD, 3)


def test_a_kernel_routine_that_writes_there_is_caught_too() -> None:
    async def writes(_lab: Lab, _kernel: Kernel) -> None:
        await Store(TAIL_FIELD, VALUE)

    done = lab(optimize(0), (1, "writes", writes), script=(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.WRITE_PROTECT
    assert (finding.where.code, finding.where.instruction) == ("writes", None)


def test_the_same_through_a_stale_read_only_entry_is_spurious() -> None:
    script = (
        Until(0, Finishes("optimize")),
        Until(1, Loads(TAIL_FIELD)),
        Until(0, SetsPte(TAIL_1)),
        ToEnd(1),
    )
    made = lab(optimize(0), restore(0), writer(TAIL_FIELD, name="read_then_write"), script=script)
    finding = only_finding(made.run())
    assert finding.verdict is Verdict.SPURIOUS
    assert (finding.cr2, finding.error_code) == (TAIL_FIELD, 3)
    assert value_at(made, TAIL_FIELD) == VALUE


def test_a_cpu_that_walks_again_before_it_faults_has_no_spurious_fault() -> None:
    script = (
        Until(0, Finishes("optimize")),
        Until(1, Loads(TAIL_FIELD)),
        Until(0, SetsPte(TAIL_1)),
        ToEnd(1),
    )
    actors = (optimize(0), restore(0), writer(TAIL_FIELD, name="read_then_write"))
    made = lab(*actors, script=script, model=ZEN_3)
    assert not made.run().findings
    assert value_at(made, TAIL_FIELD) == VALUE


def test_a_store_of_a_program_to_text_is_not_the_kernels_violation_and_the_data_page_is_named() -> None:
    text = program("write_head").origin
    finding = only_finding(lab(writer(text), cpus=2).run())
    assert finding.verdict is Verdict.OWN_TEXT
    assert (finding.cr2, finding.error_code) == (text, 3)
    assert finding.cause.endswith(f"its data page is at r15, {PerCpu(1).buffer:#x}")


def test_a_store_of_the_kernel_to_text_is_the_kernels_violation() -> None:
    text = program("write_head").origin

    async def stores(kernel: Kernel, huge: HugePage) -> None:
        await Store(VirtAddr(text), 1)

    finding = only_finding(lab(KernelActor(0, "stores", stores), cpus=1).run())
    assert (finding.verdict, finding.cr2) == (Verdict.KERNEL, text)


def test_a_jump_to_nowhere_is_an_oops() -> None:
    finding = only_finding(lab(guest(0, "mov rax, 0x1000\njmp rax", "nowhere"), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.cause == "BUG: unable to handle page fault for address: 0000000000001000"
    assert (finding.cr2, finding.error_code) == (0x1000, 0x10)
    assert (finding.where.code, finding.where.rip) == ("nowhere", 0x1000)
    assert finding.lines[1] == "#PF: supervisor instruction fetch in kernel mode"
    assert finding.lines[2] == "#PF: error_code(0x0010) - not-present page"


def test_a_null_pointer_is_an_oops() -> None:
    finding = only_finding(lab(guest(0, "mov rax, [rdi]\nhlt"), cpus=1).run())
    assert finding.verdict is Verdict.KERNEL
    assert finding.lines[0] == "BUG: kernel NULL pointer dereference, address: 0000000000000000"
    assert (finding.cr2, finding.error_code) == (0, 0)


TRAPS = {
    "ud2": ("ud2\nhlt", "ud2", "invalid opcode"),
    "divide": ("mov rbx, 0\ndiv rbx\nhlt", "div rbx", "divide error"),
    "non-canonical": (
        "movabs rax, 0x8000000000000000\nmov rbx, [rax]\nhlt",
        "mov rbx, qword ptr [rax]",
        "general protection fault, probably for non-canonical address 0x8000000000000000",
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_any_other_exception_is_the_kernels_with_its_instruction_and_its_log(name: str) -> None:
    source, instruction, headline = TRAPS[name]
    made = lab(guest(0, source, "trapper"), cpus=1)
    finding = only_finding(made.run())
    assert finding.verdict is Verdict.KERNEL
    assert headline in finding.cause
    assert (finding.where.code, finding.where.instruction) == ("trapper", instruction)
    assert headline in finding.lines[0]
    assert (finding.cr2, finding.error_code) == (None, None)


def test_a_translation_that_leads_out_of_memory_is_one_finding() -> None:
    async def beyond(made: Lab, _kernel: Kernel) -> None:
        await made.set_pte(TAIL_1, 0x5000)

    done = lab(SPLIT, (0, "beyond", beyond), reader(), script=after_split(ToEnd(0), ToEnd(1))).run()
    finding = only_finding(done)
    assert finding.verdict is Verdict.KERNEL
    assert "0x5000008" in finding.cause
    assert finding.where.instruction == "mov rax, qword ptr [rdi]"
    assert finding.where.va == WORD
