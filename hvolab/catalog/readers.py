"""Guest programs on the observing CPU, as actors that several scenarios share."""

from __future__ import annotations

from functools import cache

from emu.addr import VirtAddr
from firmware.catalog import program
from firmware.load import load_program
from firmware.program import Program
from hvolab.judge.question import Asks, PageQuestion
from hvolab.subject.scenario import GuestActor


@cache
def _three_loads() -> Program:
    source = "mov rax, [rdi]\nmov rbx, [rdi]\nmov rcx, [rdi]\nhlt\n"
    return load_program("three_loads", source, arguments=program("read_twice").arguments)


def three_loads(cpu: int, word: VirtAddr) -> GuestActor:
    """Three loads of one word."""
    return GuestActor(cpu, _three_loads(), (("word", int(word)),))


def compound_head(cpu: int, page: VirtAddr) -> GuestActor:
    """compound_head() of a struct page, its answer judged."""
    asks = Asks(PageQuestion.COMPOUND_HEAD, page, "rax")
    return GuestActor(cpu, program("compound_head"), (("page", int(page)),), asks)


def get_page(cpu: int, page: VirtAddr) -> GuestActor:
    """get_page_unless_zero() of a struct page, as v6.12 has it."""
    return GuestActor(cpu, program("get_page_unless_zero"), (("page", int(page)),))
