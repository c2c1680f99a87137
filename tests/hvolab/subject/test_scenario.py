"""A setup made concrete: programs in kernel text, arguments in registers, actors on their CPUs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from judge_lab import HEAD, HUGE, TAIL_1

from emu.addr import PhysAddr, VirtAddr
from emu.cpu.cpu import GuestThread
from emu.paging.walk import Walk
from firmware.assemble import AssemblyError
from firmware.load import load_program
from firmware.program import Argument
from hvolab.catalog.common import optimize, restore
from hvolab.judge.question import Asks, PageQuestion
from hvolab.subject.scenario import (
    GuestActor,
    Setup,
    guest_thread,
    load,
    questions_of,
    start_actors,
    vmemmap_page,
    with_program,
)
from kernel_model.boot import BootConfig, boot
from kernel_model.layout import HUGETLB_OPTIMIZE_VMEMMAP_KEY, PerCpu

READER = load_program("reader", "mov rax, [rdi]\nhlt")
ARGUMENTS = tuple(
    Argument(name, f"r{number}", "", "") for number, name in enumerate(["key", "nesting", "buffer"], 8)
)


def setup_of(*actors: object) -> Setup:
    return Setup(BootConfig(16 << 20, 2, (HUGE,)), actors, (), ())  # type: ignore[arg-type]


def test_arguments_come_in_their_registers_and_the_usual_ones_are_where_they_always_are() -> None:
    word = Argument("word", "rdi", "", "")
    thread = guest_thread(replace(READER, arguments=(word, *ARGUMENTS)), 1, {"word": 5})
    assert thread == GuestThread(
        "reader",
        VirtAddr(READER.origin),
        {
            "rdi": 5,
            "r8": HUGETLB_OPTIMIZE_VMEMMAP_KEY,
            "r9": PerCpu(1).rcu_nesting,
            "r10": PerCpu(1).buffer,
            "r15": PerCpu(1).buffer,
            "rsp": PerCpu(1).stack + 4096,
        },
    )


def test_what_is_given_goes_before_what_is_usual() -> None:
    assert guest_thread(replace(READER, arguments=ARGUMENTS), 1, {"key": 7}).registers["r8"] == 7


def test_an_argument_that_nobody_gives_is_an_error() -> None:
    with pytest.raises(KeyError, match="word"):
        guest_thread(replace(READER, arguments=(Argument("word", "rdi", "", ""),)), 0, {})


def test_a_program_lies_in_kernel_text_where_it_is_linked() -> None:
    system = boot(BootConfig(16 << 20, 1, (HUGE,)))
    load(READER, system)
    found = system.machine.cpus[0].mmu.peek(VirtAddr(READER.origin))
    assert isinstance(found, Walk)
    assert system.machine.memory.read(PhysAddr(found.pa), len(READER.code)) == READER.code
    assert system.machine.memory.journal.now == 0, "it was there from the start"


def test_a_program_linked_where_nothing_is_mapped_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^program reader is linked at 0x1000, where nothing is mapped$"):
        load(replace(READER, origin=0x1000), boot(BootConfig(16 << 20, 1, (HUGE,))))


def test_every_actor_is_queued_on_its_cpu_in_its_order() -> None:
    setup = setup_of(optimize(0), restore(0), GuestActor(1, READER, ()))
    system = boot(setup.boot)
    start_actors(setup, system)
    queued = [[context.name for context in cpu.contexts] for cpu in system.machine.cpus]
    assert [names[-1:] for names in queued] == [["optimize"], ["reader"]]
    assert system.machine.busy


def test_two_programs_in_one_place_are_refused_and_not_run_as_one() -> None:
    other = replace(READER, name="other", code=READER.code[::-1])
    setup = setup_of(GuestActor(0, READER, ()), GuestActor(1, other, ()))
    said = rf"^programs reader and other are both linked at {READER.origin:#x}$"
    with pytest.raises(ValueError, match=said):
        start_actors(setup, boot(setup.boot))
    twice = setup_of(GuestActor(0, READER, ()), GuestActor(1, READER, ()))
    start_actors(twice, boot(twice.boot))


def test_another_program_takes_the_arguments_of_the_one_it_stands_for() -> None:
    word = Argument("word", "rdi", "", "")
    setup = setup_of(optimize(0), GuestActor(1, replace(READER, arguments=(word,)), (("word", 5),)))
    changed = with_program(setup, "mine.S", "nop\nhlt")
    kernel, guest = changed.actors
    assert kernel == setup.actors[0]
    assert isinstance(guest, GuestActor)
    assert (guest.program.name, guest.program.arguments, guest.arguments) == (
        "mine.S",
        (word,),
        (("word", 5),),
    )
    assert guest.program.code != READER.code
    with pytest.raises(AssemblyError):
        with_program(setup, "bad.S", "frob rax")


def test_only_programs_that_ask_something_have_a_question() -> None:
    asks = Asks(PageQuestion.PAGE_HEAD, TAIL_1, "rax")
    setup = setup_of(optimize(0), GuestActor(0, READER, ()), GuestActor(1, READER, (), asks))
    assert questions_of(setup) == {(1, "reader"): asks}


def test_vmemmap_pages_are_numbered_from_the_heads() -> None:
    assert [vmemmap_page(HUGE, index) for index in (0, 1, 7)] == [HEAD, TAIL_1, HEAD + 7 * 4096]
