"""What is known of an instruction is done without the engine, and is what the engine would do."""

from __future__ import annotations

import random

import pytest
from guest_rig import DATA_FRAME, GuestRig
from paging_rig import PAGE, VA

from emu.addr import PhysAddr
from emu.events import MachineEvent
from emu.guest.engine import Engine
from emu.guest.guest_core import GuestTrap, StepResult
from emu.guest.known import Given, KnownInstructions, Ran
from emu.kept import Bookmark
from emu.paging.tlb import InvalidateAll

DATA = PhysAddr(DATA_FRAME * PAGE)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the engine has run something."""
    ran: list[int] = []
    runs = Engine.run

    def counted(engine: Engine, rip: int, code_pa: PhysAddr, code: bytes) -> int | None:
        ran.append(rip)
        return runs(engine, rip, code_pa, code)

    monkeypatch.setattr(Engine, "run", counted)
    return ran


class Twice:
    """A program run from the same beginning again and again, with what is known of it."""

    def __init__(
        self, program: str | bytes, registers: dict[str, int], known: KnownInstructions | None
    ) -> None:
        self.rig = GuestRig()
        self.rig.put(program)
        self.rig.fill_data()
        self.core = self.rig.core(registers)
        self.known = known
        self.events: list[tuple[int, MachineEvent]] = []
        self.rig.trace.listen(lambda number, event: self.events.append((number, event)))
        self.begun = self.core.mark()

    def again(self, steps: int) -> list[StepResult]:
        self.core.back(self.begun)
        self.rig.last_mmu.invalidate(InvalidateAll())
        self.rig.memory.undo(0)
        self.rig.memory.journal.forget()
        self.rig.trace.next_number = 0
        self.events.clear()
        return [self.core.step(self.known) for _ in range(steps)]

    def state(self) -> tuple[object, ...]:
        stores = list(self.rig.memory.journal.since(0))
        return (self.core.state(), self.core.registers(), self.rig.data(), stores, [*self.events])


PROGRAM = (
    "mov rax, [rdi]; lock xadd [rdi + 8], rax; movdqu xmm1, [rdi]; movdqu [rdi + 32], xmm1; push rax; hlt"
)
AT_DATA = {"rdi": VA, "rsp": VA + 0x800}


def test_what_is_done_again_needs_no_engine_and_leaves_the_same(run: list[int]) -> None:
    twice = Twice(PROGRAM, AT_DATA, KnownInstructions())
    first = twice.again(5)
    state = twice.state()
    assert len(run) == 5
    assert twice.again(5) == first
    assert twice.state() == state
    assert len(run) == 5


def test_a_word_with_another_value_has_it_run(run: list[int]) -> None:
    twice = Twice("mov rax, [rdi]; hlt", AT_DATA, KnownInstructions())
    twice.again(1)
    twice.rig.memory.load_image(DATA, (7).to_bytes(8, "little"))
    twice.again(1)
    assert (twice.core.registers()["rax"], len(run)) == (7, 2)


def test_after_what_is_known_the_engine_goes_on_from_there(run: list[int]) -> None:
    twice = Twice("movdqu xmm1, [rdi]; movdqu [rdi + 32], xmm1; hlt", AT_DATA, KnownInstructions())
    twice.again(1)
    twice.again(2)
    assert twice.rig.data()[32:48] == twice.rig.data()[:16]
    assert len(run) == 2


@pytest.mark.parametrize("rax", [0, 0x1_0000])
def test_a_compare_that_fails_stores_nothing_the_second_time_too(rax: int) -> None:
    twice = Twice("lock cmpxchg [rdi], rcx; hlt", {**AT_DATA, "rax": rax, "rcx": 5}, KnownInstructions())
    twice.rig.memory.load_image(DATA, bytes(8))
    first = twice.again(1), twice.state()
    assert (twice.again(1), twice.state()) == first
    assert len([*twice.rig.memory.journal.since(0)]) == (rax == 0)


def test_an_exception_is_raised_each_time(run: list[int]) -> None:
    twice = Twice("div rcx; hlt", {"rax": 1}, KnownInstructions())
    assert [twice.again(1), twice.again(1)] == [[GuestTrap(0)]] * 2
    assert len(run) == 2


def test_beyond_the_limit_nothing_is_learned() -> None:
    known = KnownInstructions(1)
    first, second = (Given(Bookmark((number,), ()), b"", ()) for number in range(2))
    ran = Ran(Bookmark((), ()), ())
    known.learn(first, ran)
    known.learn(second, ran)
    assert (known.find(first), known.find(second)) == (ran, None)


ORDINARY = (
    *("mov rax, [rdi]", "mov [rdi + 8], rax", "lock xadd [rsi], rbx", "lock cmpxchg [rdi], rcx", "push rbx"),
    *("pop rdx", "inc qword ptr [rsi]", "add rbx, rax", "xchg [rdi], rdx", "pushfq", "stosb", "movsb"),
    *("cmp rax, [rsi]", "setz cl", "paddb xmm1, xmm1", "movdqu xmm1, [rsi]", "movdqu [rdi + 32], xmm1"),
    "bts qword ptr [rdi], 5",
)


@pytest.mark.parametrize("seed", range(40))
def test_random_programs_do_the_same_with_what_is_known_and_without(seed: int) -> None:
    rng = random.Random(seed)
    program = "; ".join(rng.choices(ORDINARY, k=25))
    registers = {name: VA + 8 * rng.randrange(8) for name in ("rdi", "rsi")} | {
        "rsp": VA + rng.randrange(8, 64)
    }
    plain, knowing = Twice(program, registers, None), Twice(program, registers, KnownInstructions())
    first = plain.again(25), plain.state()
    for _ in range(3):
        assert (knowing.again(25), knowing.state()) == first
