"""The fingerprint of a setup: says of a schedule what it was made from.

It covers what is booted and who does what, in the order of the actors. A CPU model, a policy, a variant and a
kernel actor are known by their names, a guest program by name and bytes. The script and the watched pages do
not count, because they do not change what can be picked. Nor does the version of the code: a schedule can
have the right fingerprint and still not fit. What a user's own file brings is known by its contents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from typing import TypeAlias, assert_never

from hvolab.subject.scenario import GuestActor, KernelActor, Setup
from hvolab.subject.schedule import FINGERPRINT_DIGITS, Schedule
from kernel_model.boot import BootConfig, blocks_of
from kernel_model.mm.failures import (
    AllocationFailures,
    EachMayFail,
    FailAt,
    FailFrom,
    FailUntilFreed,
    NoFailures,
)
from kernel_model.mm.inherited import Inherited

PlainValue: TypeAlias = "str | int | Sequence[PlainValue] | Mapping[str, PlainValue]"


def fingerprint(setup: Setup) -> str:
    """8 hexadecimal digits, the same in every process."""
    plain: dict[str, PlainValue] = {
        "boot": _boot(setup.boot),
        "actors": [_actor(actor) for actor in setup.actors],
    }
    if setup.loaded:
        plain["loaded"] = setup.loaded
    # JSON because it quotes names: a program's may be any file's.
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode("ascii")).hexdigest()[:FINGERPRINT_DIGITS]


def stamped(schedule: Schedule, setup: Setup) -> Schedule:
    """The schedule of a run of that setup, saying so."""
    return replace(schedule, fingerprint=fingerprint(setup))


def _boot(config: BootConfig) -> PlainValue:
    blocks = blocks_of(config)
    at_boot: dict[str, PlainValue] = {}
    if not isinstance(config.boot_failures, NoFailures):
        at_boot["boot_failures"] = _failures(config.boot_failures)
    if config.inherited != Inherited():
        at_boot["inherited"] = _inherited(config.inherited)
    if config.nmi is not None:
        at_boot["nmi"] = config.nmi.name
    return at_boot | {
        "memory_bytes": config.memory_bytes,
        "cpus": config.cpus,
        "huge_pages": [[int(huge.pfn), huge.hstate.order] for huge in config.huge_pages],
        "model": config.model.name,
        "kernel": asdict(config.kernel),
        "policy": config.policy.name,
        "form": config.form.value,
        "variant": config.variant.name,
        "origin": config.origin.name,
        "vmemmap_blocks": sorted([int(va), int(pfn)] for va, pfn in blocks.items()),
        "failures": _failures(config.failures),
        "pool": config.pool.name,
    }


def _inherited(inherited: Inherited) -> PlainValue:
    tables = sorted(inherited.tables.items())
    return {
        "tables": [[int(va), int(table.pmd), [int(pte) for pte in table.ptes]] for va, table in tables],
        "boot_frames": sorted(map(int, inherited.boot_frames)),
        "pooled": [[int(huge.pfn), huge.hstate.order] for huge in inherited.pooled],
        "optimized": sorted(map(int, inherited.optimized)),
        "counters": sorted([name, pages] for name, pages in inherited.counters.items()),
    }


def _failures(failures: AllocationFailures) -> PlainValue:
    match failures:
        case NoFailures():
            return ["none"]
        case FailAt(positions=positions):
            return ["at", *sorted(positions)]
        case FailFrom(position=position):
            return ["from", position]
        case FailUntilFreed(position=position):
            return ["until freed", position]
        case EachMayFail():
            return ["each may"]
        case _:
            assert_never(failures)


def _actor(actor: GuestActor | KernelActor) -> PlainValue:
    match actor:
        case GuestActor(cpu=cpu, program=program, arguments=arguments):
            return {
                "cpu": cpu,
                "guest": program.name,
                "origin": program.origin,
                "code": program.code.hex(),
                "registers": [[argument.name, argument.register] for argument in program.arguments],
                "arguments": sorted([name, int(value)] for name, value in arguments),
            }
        case KernelActor(cpu=cpu, name=name):
            return {"cpu": cpu, "kernel": name}
        case _:
            assert_never(actor)
