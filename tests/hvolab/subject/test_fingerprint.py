"""Fingerprints: the same for a setup in every process, another when anything that counts is another."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from emu.addr import Pfn, VirtAddr
from emu.paging.models import MODELS
from firmware.load import load_program
from hvolab.catalog import SCENARIOS, scenario
from hvolab.subject.fingerprint import fingerprint, stamped
from hvolab.subject.picker import InOrder
from hvolab.subject.run import run
from hvolab.subject.scenario import GuestActor, KernelActor, Setup
from hvolab.subject.schedule import Schedule, parse
from hvolab.subject.script import ToEnd
from kernel_model.boot import BootConfig, Kernel, blocks_at_the_top
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.broken import NEVER
from kernel_model.mm.failures import EachMayFail, FailAt, FailFrom, NoFailures
from kernel_model.mm.hstate import HSTATE_1G, HSTATE_2M
from kernel_model.mm.image import HugePage, VmemmapOrigin
from kernel_model.variants.catalog import FREE_BEFORE_FLUSH

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = load_program("one", "mov rax, [rdi]\nhlt\n")


async def routine(kernel: Kernel, huge: HugePage) -> None:
    """Does nothing."""


async def another_routine(kernel: Kernel, huge: HugePage) -> None:
    """Does nothing either."""


GUEST = GuestActor(1, PROGRAM, (("word", 0x1000), ("value", 7)))
KERNEL = KernelActor(0, "optimize", routine)
BOOT = BootConfig(128 << 20, 2, (HugePage(Pfn(0x4000), HSTATE_2M),))
BASE = Setup(BOOT, (KERNEL, GUEST), (ToEnd(0),), (VirtAddr(0x1000),))


def booted(**changes: object) -> Setup:
    return replace(BASE, boot=replace(BOOT, **changes))  # type: ignore[arg-type]


def acted(*actors: GuestActor | KernelActor) -> Setup:
    return replace(BASE, actors=actors)


def coded(source: str) -> Setup:
    return acted(KERNEL, replace(GUEST, program=load_program("one", source)))


# --- what it is -----------------------------------------------------------------------------------------

# Written by hand: the bytes of the text that is hashed, sorted by name and without spaces.
TEXT = (
    '{"actors":[{"cpu":0,"kernel":"optimize"},'
    '{"arguments":[["value",7],["word",4096]],"code":"488b07f4","cpu":1,"guest":"one",'
    '"origin":ORIGIN,"registers":[]}],'
    '"boot":{"cpus":2,"failures":["none"],"form":"port","huge_pages":[[16384,9]],'
    '"kernel":{"debug_list":true,"debug_vm":true,"memory_hotplug":true,"page_poisoning":true,'
    '"tlb_single_page_flush_ceiling":33,"vmemmap_optimize_enabled":true},'
    '"memory_bytes":134217728,"model":"skylake","origin":"BOOT","policy":"upstream","pool":"LISTED","variant":"upstream",'
    '"vmemmap_blocks":[[18446719884453740544,32256]]}}'
)


def test_it_is_the_beginning_of_a_sha256() -> None:
    text = TEXT.replace("ORIGIN", str(PROGRAM.origin))
    assert fingerprint(BASE) == hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize("chosen", SCENARIOS, ids=lambda chosen: chosen.name)
def test_a_schedule_can_carry_it(chosen: object) -> None:
    setup = next(one for one in SCENARIOS if one is chosen).build(4)
    schedule = stamped(Schedule(()), setup)
    assert str(schedule) == f"v2 @{fingerprint(setup)}"
    assert parse(str(schedule)) == schedule


def test_a_run_says_what_it_was_made_from() -> None:
    setup = scenario("stale-read").build(2)
    assert run(setup, lambda _system: InOrder()).schedule.fingerprint == fingerprint(setup)


# --- what counts ----------------------------------------------------------------------------------------

OTHERS: dict[str, Setup] = {
    "memory": booted(memory_bytes=256 << 20),
    "CPUs": booted(cpus=3),
    "another huge page": booted(huge_pages=(HugePage(Pfn(0x4200), HSTATE_2M),)),
    "one huge page more": booted(huge_pages=(*BOOT.huge_pages, HugePage(Pfn(0x4200), HSTATE_2M))),
    "a huge page of another order": booted(huge_pages=(HugePage(Pfn(0x4000), HSTATE_1G),)),
    **{f"model {model.name}": booted(model=model) for model in MODELS if model is not BOOT.model},
    "policy": booted(policy=NEVER),
    "variant": booted(variant=FREE_BEFORE_FLUSH),
    **{f"origin {o.name}": booted(origin=o) for o in VmemmapOrigin if o is not BOOT.origin},
    "vmemmap elsewhere": booted(vmemmap_blocks={VirtAddr(0xFFFF_EA00_0000_0000): Pfn(0x7C00)}),
    "failures each": booted(failures=EachMayFail()),
    "failures at 1": booted(failures=FailAt(frozenset({1}))),
    "failures at 1, 2": booted(failures=FailAt(frozenset({1, 2}))),
    "failures at 12": booted(failures=FailAt(frozenset({12}))),
    "failures from 1": booted(failures=FailFrom(1)),
    "failures from 2": booted(failures=FailFrom(2)),
    "no actor": acted(),
    "one actor less": acted(KERNEL),
    "one actor more": acted(KERNEL, GUEST, GUEST),
    "actors in another order": acted(GUEST, KERNEL),
    "the kernel actor's CPU": acted(replace(KERNEL, cpu=1), GUEST),
    "the kernel actor's name": acted(replace(KERNEL, name="restore"), GUEST),
    "the guest's CPU": acted(KERNEL, replace(GUEST, cpu=0)),
    "the guest's name": acted(KERNEL, replace(GUEST, program=replace(PROGRAM, name="two"))),
    "a guest named like a kernel actor": acted(
        KERNEL, replace(GUEST, program=replace(PROGRAM, name="optimize"))
    ),
    "the guest's place": acted(
        KERNEL, replace(GUEST, program=load_program("one", PROGRAM.source, origin=0x1000))
    ),
    "the guest's code": coded("mov rbx, [rdi]\nhlt\n"),
    "more of the guest's code": coded("mov rax, [rdi]\nhlt\nhlt\n"),
    "an argument's value": acted(KERNEL, replace(GUEST, arguments=(("word", 0x1000), ("value", 8)))),
    "an argument's name": acted(KERNEL, replace(GUEST, arguments=(("word", 0x1000), ("number", 7)))),
    "values exchanged": acted(KERNEL, replace(GUEST, arguments=(("word", 7), ("value", 0x1000)))),
    "an argument less": acted(KERNEL, replace(GUEST, arguments=(("word", 0x1000),))),
}


def configured(name: str) -> Setup:
    """With one value of the kernel configuration changed."""
    usual = getattr(KernelConfig(), name)
    value = not usual if isinstance(usual, bool) else usual + 1
    return booted(kernel=replace(KernelConfig(), **{name: value}))


OTHERS |= {f"kernel {one.name}": configured(one.name) for one in fields(KernelConfig)}


@pytest.mark.parametrize("what", OTHERS)
def test_it_differs_when_what_counts_differs(what: str) -> None:
    assert fingerprint(OTHERS[what]) != fingerprint(BASE)


def test_no_two_of_these_have_the_same() -> None:
    assert len({fingerprint(setup) for setup in OTHERS.values()}) == len(OTHERS)


def test_the_scenarios_of_the_catalogue_differ_by_number_of_cpus() -> None:
    for chosen in SCENARIOS:
        assert len({fingerprint(chosen.build(cpus)) for cpus in (3, 4, 5)}) == 3


@pytest.mark.parametrize("name", ["a\nb", 'a","cpu":0', "ü", "\udcff", ""])
def test_any_name_of_a_program_will_do(name: str) -> None:
    """What a file is called does not reach into the rest of the text, and need not be text at all."""
    setup = acted(KERNEL, replace(GUEST, program=replace(PROGRAM, name=name)))
    assert fingerprint(setup) != fingerprint(BASE)
    assert fingerprint(setup) == fingerprint(setup)


# --- what does not --------------------------------------------------------------------------------------

SAME: dict[str, Setup] = {
    "another script": replace(BASE, script=()),
    "other watched pages": replace(BASE, watched=()),
    "arguments named in another order": acted(
        KERNEL, replace(GUEST, arguments=(("value", 7), ("word", 0x1000)))
    ),
    "vmemmap named where it is anyway": booted(vmemmap_blocks=blocks_at_the_top(128 << 20)),
    "a routine of the same name": acted(replace(KERNEL, routine=another_routine), GUEST),
    "comments": coded("# a comment\nmov rax, [rdi]\nhlt # another\n"),
    "the usual failures, said aloud": booted(failures=NoFailures()),
}


@pytest.mark.parametrize("what", SAME)
def test_it_is_the_same_where_nothing_that_counts_differs(what: str) -> None:
    assert fingerprint(SAME[what]) == fingerprint(BASE)


def test_the_order_in_which_blocks_are_named_does_not_count() -> None:
    blocks = blocks_at_the_top(256 << 20)
    turned = dict(reversed(blocks.items()))
    assert list(turned) != list(blocks)
    first, second = (booted(memory_bytes=256 << 20, vmemmap_blocks=named) for named in (blocks, turned))
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("name", ["stale-read", "remap"])
def test_it_is_the_same_each_time_a_scenario_is_built(name: str) -> None:
    build: Callable[[int], Setup] = scenario(name).build
    assert fingerprint(build(3)) == fingerprint(build(3))


# --- across processes -----------------------------------------------------------------------------------

PRINTS_ALL = """
from dataclasses import replace
from hvolab.catalog import SCENARIOS
from hvolab.subject.fingerprint import fingerprint
from kernel_model.mm.failures import FailAt
for scenario in SCENARIOS:
    setup = scenario.build(3)
    print(fingerprint(setup))
    print(fingerprint(replace(setup, boot=replace(setup.boot, failures=FailAt(frozenset(range(40)))))))
"""


def test_two_processes_give_the_same_fingerprints() -> None:
    def printed(hash_seed: int) -> list[str]:
        environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
        command = [sys.executable, "-c", PRINTS_ALL]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    first = printed(1)
    assert first == printed(4242)
    assert first[::2] == [fingerprint(chosen.build(3)) for chosen in SCENARIOS]
    assert len(set(first)) == 2 * len(SCENARIOS)
