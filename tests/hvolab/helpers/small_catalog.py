"""The small setups by name: what the reduction is compared with the unreduced search on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from small_broadcasts import broadcasts_all, broadcasts_page, syncs
from small_entries import ages, remaps_if_old
from small_setups import (
    FRAME,
    LEAF,
    NEW,
    NEW_START,
    NEW_WORD,
    OTHER,
    PAGE,
    PMD,
    PTE,
    TABLE,
    WORD,
    Body,
    X,
    Y,
    actor,
    after_x,
    allocates,
    asks_for_a_flush,
    asks_for_nothing,
    breaks_the_flag_in_an_operation,
    config_of,
    copy_out,
    copy_x,
    decides,
    fill_new,
    first_store,
    flush_all,
    flush_page,
    freed,
    grace_period,
    holds_the_folio,
    increment,
    invlpg_other,
    loads,
    locked,
    maps_for_nobodys_folio,
    note,
    operation,
    pretended_flush,
    reader_section,
    second_store,
    set_pte,
    set_x,
    sets,
    setup_of,
    spinning_guest,
    split,
    split_table,
    stores,
    stores_twice,
    take_reference,
    then,
    until_y,
    waits,
    waits_for_memory,
    without_interrupts,
)
from small_ticks import needs_tick, ticking

from emu.addr import Pfn, PhysAddr, frame_start
from emu.cpu.condition import AllOf, MemoryIs, Word, WordIs
from emu.cpu.ops import AddWords, Await, Fill, FlushTlbPages, Load, Store
from emu.cpu.software import Grain
from emu.paging.models import LAZY_INVLPGB, LAZY_SINGLE
from emu.paging.pte import Pte, PteBit
from hvolab.subject.scenario import Setup
from kernel_model.boot import Kernel
from kernel_model.core.kconfig import KernelConfig
from kernel_model.flush.broken import NEVER, SKIPS_LAST_CPU
from kernel_model.flush.upstream import UPSTREAM
from kernel_model.layout import PAGE_OFFSET, direct_map
from kernel_model.mm.failures import FailAt
from kernel_model.mm.pgtable import PAGE_KERNEL, PAGE_KERNEL_RO, PAGE_TABLE, mk_pte


@dataclass(frozen=True, slots=True)
class Small:
    name: str
    setup: Setup


def _words(name: str, count: int, initial: int) -> Body:
    async def body(kernel: Kernel) -> None:
        for _ in range(count):
            await AddWords(((Word(name), initial),))

    return body


def _waits(name: str, value: int) -> Body:
    async def body(kernel: Kernel) -> None:
        await Await(WordIs(Word(name), value))

    return body


def all_small() -> tuple[Small, ...]:
    remap_ro = set_pte(NEW, PAGE_KERNEL_RO)
    remap_rw = set_pte(NEW, PAGE_KERNEL)
    protect = set_pte(FRAME, PAGE_KERNEL_RO)
    flag_guest = spinning_guest()
    return (
        Small("two loads each", setup_of(loads(0, X, Y), loads(1, X, Y))),
        Small("store, load of one word", setup_of(stores((X, 1), (Y, 1)), loads(1, Y, X))),
        Small(
            "store, store, and loads",
            setup_of(then(stores((X, 1)), loads(0, Y)), then(stores((Y, 1)), loads(1, X))),
        ),
        Small("store, store of one word", setup_of(stores((X, 1), (X, 2)), stores((X, 3)))),
        Small("unlocked increments", setup_of(increment(0, X), increment(1, X))),
        Small("locked increments", setup_of(locked(increment(0, X)), locked(increment(1, X)))),
        Small(
            "two lock regions and a reader",
            setup_of(then(locked(stores((X, 1))), locked(stores((X, 2)))), then(locked(loads(1, X)))),
        ),
        Small("three compare-exchanges", setup_of(take_reference(0), take_reference(1), take_reference(2))),
        Small("a bulk copy against a store", setup_of(then(copy_out, loads(0, NEW_WORD)), stores((WORD, 5)))),
        Small(
            "a bulk copy of other memory against a store",
            setup_of(then(copy_x, loads(0, NEW_START)), stores((X, 5))),
        ),
        Small("a bulk fill against a load", setup_of(fill_new, loads(1, NEW_WORD))),
        Small("mutual flushes", setup_of(flush_all, flush_all)),
        Small("a flush under a lock", setup_of(locked(flush_all), locked(stores((X, 1))))),
        Small(
            "a flush under a lock that is wanted with interrupts off",
            setup_of(locked(flush_all), without_interrupts(locked(stores((X, 1))))),
        ),
        Small(
            "a flush and a region with interrupts off",
            setup_of(then(flush_all, stores((X, 1))), without_interrupts(loads(1, X))),
        ),
        Small("split and flush against one load", setup_of(then(split, flush_page), loads(1, WORD))),
        Small("remap without a flush", setup_of(operation(then(split, remap_ro)), loads(1, WORD, WORD))),
        Small(
            "remap and a flush that is none", setup_of(then(split, remap_rw, pretended_flush), loads(1, WORD))
        ),
        Small(
            "remap, free, then a load", setup_of(then(split, remap_rw, freed(FRAME)), loads(1, WORD, WORD))
        ),
        Small(
            "remap, flush, free", setup_of(then(split, remap_rw, flush_page, freed(FRAME)), loads(1, WORD))
        ),
        Small(
            "remap, free, flush", setup_of(then(split, remap_rw, freed(FRAME), flush_page), loads(1, WORD))
        ),
        Small("write protection against a store", setup_of(then(split, protect), stores((WORD, 1)))),
        Small(
            "protection taken back",
            setup_of(then(split, protect, set_pte(FRAME, PAGE_KERNEL)), stores((WORD, 1))),
        ),
        Small(
            "not present, then present",
            setup_of(then(split, set_pte(0, PteBit(0)), remap_rw), loads(1, WORD)),
        ),
        Small(
            "copy, remap, and a store to the page",
            setup_of(operation(then(split, copy_out, remap_rw)), stores((WORD, 1))),
        ),
        Small(
            "a grace period against a reader",
            setup_of(then(grace_period, stores((X, 1))), reader_section(1, loads(1, X))),
        ),
        Small(
            "a request that may come before a region with interrupts off",
            setup_of(without_interrupts(stores((Y, 3))), then(flush_page, loads(1, Y))),
        ),
        Small(
            "two words at once, each of which was right at another time",
            setup_of(
                then(loads(0, X), stores((X, 1), (X, 0)), loads(0, X)),
                stores((Y, 1), (Y, 0)),
                then(_both_zero, stores((X, 7))),
            ),
        ),
        Small(
            "two words at once, each of which is spoilt by another CPU",
            setup_of(
                stores((X, 1)),
                then(_both_zero, loads(1, X)),
                stores((Y, 1)),
            ),
        ),
        Small(
            "a reader that comes first, against a grace period",
            setup_of(reader_section(0, loads(0, X)), then(grace_period, stores((X, 1)))),
        ),
        Small(
            "a grace period that begins inside a section",
            setup_of(
                reader_section(0, then(set_x, loads(0, Y))), after_x(then(grace_period, stores((Y, 1))))
            ),
        ),
        Small(
            "own INVLPG against a PTE store",
            setup_of(then(split, remap_rw, stores((X, 1))), _invlpg_then_loads),
        ),
        Small(
            "INVLPGB and TLBSYNC against loads",
            setup_of(
                then(split, remap_rw, broadcasts_page, syncs, stores((X, 1))),
                loads(1, X, WORD),
                boot_config=config_of(LAZY_INVLPGB),
            ),
        ),
        Small(
            "INVLPGB without TLBSYNC",
            setup_of(
                then(split, remap_rw, broadcasts_all, stores((X, 1))),
                loads(1, X, WORD),
                boot_config=config_of(LAZY_INVLPGB),
            ),
        ),
        Small(
            "a change between INVLPGB and TLBSYNC",
            setup_of(
                then(split, remap_rw, broadcasts_page, protect, syncs, set_x),
                after_x(loads(1, WORD)),
                boot_config=config_of(LAZY_INVLPGB),
            ),
        ),
        Small(
            "an INVLPGB before or after another CPU's change",
            setup_of(
                then(split, remap_rw, waits(1), stores((X, 1)), loads(0, WORD)),
                then(broadcasts_page, syncs, sets(1)),
                boot_config=config_of(LAZY_INVLPGB),
            ),
        ),
        Small("an entry made old against two walks", setup_of(then(split, ages), loads(1, WORD, WORD))),
        Small(
            "an entry that becomes another if it is old",
            setup_of(then(split, ages, flush_page, remaps_if_old(0)), loads(1, WORD)),
        ),
        Small("ticks on both", setup_of(needs_tick(0, 1), loads(1, Y), boot_config=ticking())),
        Small(
            "an interrupt and a tick, in either order",
            setup_of(then(needs_tick(1), asks_for_a_flush), loads(1, Y), boot_config=ticking()),
        ),
        Small(
            "a tick asked for twice, which may be one",
            setup_of(then(needs_tick(1), loads(0, Y)), needs_tick(1), boot_config=ticking()),
        ),
        Small(
            "a page used until the tick",
            setup_of(
                then(split, remap_rw, needs_tick(1), set_x), after_x(loads(1, WORD)), boot_config=ticking()
            ),
        ),
        Small("waiting for memory", setup_of(stores((Y, 1), (X, 1), (Y, 2)), waits_for_memory(1))),
        Small("waiting for a word that goes on", setup_of(_words("w", 2, 1), _waits("w", 1))),
        Small("decisions", setup_of(decides(0), decides(1))),
        Small(
            "allocations",
            setup_of(allocates(0), allocates(1), boot_config=replace(config_of(), kernel=_plain())),
        ),
        Small(
            "the second allocation fails",
            setup_of(
                then(loads(0, X), allocates(0)),
                then(loads(1, Y), allocates(1)),
                boot_config=replace(config_of(), kernel=_plain(), failures=FailAt(frozenset({1}))),
            ),
        ),
        Small(
            "a flag before the flush, and a late reader",
            setup_of(then(split, remap_rw, stores((Y, 1)), flush_page), after_x(loads(1, Y, WORD)), set_x),
        ),
        Small(
            "a flush that begins before or after the split",
            setup_of(then(split, remap_rw), then(pretended_flush, loads(1, WORD))),
        ),
        Small(
            "a late flush that is none",
            setup_of(after_x(loads(0, WORD)), then(split, remap_rw, set_x), after_x(pretended_flush)),
        ),
        Small(
            "a late free",
            setup_of(after_x(loads(0, WORD)), then(split, remap_rw, set_x), after_x(freed(FRAME))),
        ),
        Small(
            "a frame that is freed beside a load of it",
            setup_of(loads(0, NEW_WORD), freed(NEW)),
        ),
        Small(
            "an invalidation beside a detached table",
            setup_of(
                after_x(then(invlpg_other, loads(0, WORD))),
                then(split, other_table, set_x),
                after_x(remap_rw),
            ),
        ),
        Small(
            "a return between two stores",
            setup_of(
                after_x(stores_twice(WORD)),
                operation(then(split, copy_out, remap_rw, set_x, until_y)),
                after_x(stores((Y, 1))),
            ),
        ),
        Small(
            "a store that makes good what was lost",
            setup_of(
                then(waits(0), first_store, sets(1), waits(2), second_store),
                operation(then(split, copy_out, sets(0), waits(1), remap_rw, flush_page, sets(2), waits(3))),
                then(waits(2), sets(3)),
            ),
        ),
        Small(
            "a flush that covers only the split",
            setup_of(
                then(waits(0), remap_rw, sets(1)),
                then(pretended_flush, sets(0), waits(1), loads(1, WORD)),
                split,
            ),
        ),
        Small(
            "two requests to one CPU",
            setup_of(then(split, remap_rw, asks_for_a_flush), loads(1, Y, X, WORD), asks_for_nothing),
        ),
        Small(
            "a handler step by step",
            setup_of(
                then(flush_page, stores((Y, 1))),
                loads(1, Y, X),
                boot_config=replace(config_of(), policy=replace(UPSTREAM, grain=Grain.STEPWISE)),
            ),
        ),
        Small(
            "a guest that spins",
            replace(
                setup_of(stores((Y, 5), (X, 1), (Y, 6)), loads(1)),
                actors=(actor(0, stores((Y, 5), (X, 1), (Y, 6))), flag_guest),
            ),
        ),
        Small(
            "an operation that returns unflushed",
            setup_of(
                operation(then(split, remap_rw, sets(1), waits(2))),
                then(waits(1), sets(2), loads(1, WORD)),
            ),
        ),
        Small("two operations on one folio", setup_of(holds_the_folio, breaks_the_flag_in_an_operation)),
        Small(
            "a frame that moves to another folio",
            setup_of(
                then(split, set_x, maps_for_nobodys_folio, waits(2), loads(0, WORD)),
                after_x(then(remap_rw, sets(2))),
            ),
        ),
        Small(
            "a table zeroed before the flush",
            setup_of(then(split, flush_page, operation(_large_again)), loads(1, WORD)),
        ),
        Small(
            "a table zeroed before the flush, and a late reader",
            setup_of(then(split, flush_page, set_x, operation(_large_again)), after_x(loads(1, WORD, WORD))),
        ),
        Small("stale directory", setup_of(then(split, _second_table), loads(1, WORD, OTHER))),
        Small(
            "one entry a page",
            setup_of(then(split, remap_rw), loads(1, WORD, WORD), boot_config=config_of(LAZY_SINGLE)),
        ),
        Small(
            "a policy that skips the reader",
            setup_of(
                then(split, remap_rw, flush_page),
                loads(1, WORD),
                boot_config=replace(config_of(), policy=SKIPS_LAST_CPU),
            ),
        ),
        Small(
            "a policy that flushes nothing",
            setup_of(
                then(split, remap_rw, flush_page),
                loads(1, WORD),
                boot_config=replace(config_of(), policy=NEVER),
            ),
        ),
    )


def _plain():
    return KernelConfig(debug_vm=False, debug_list=False, page_poisoning=False)


async def _both_zero(kernel: Kernel) -> None:
    await Await(AllOf((MemoryIs(PhysAddr(X - PAGE_OFFSET), 0), MemoryIs(PhysAddr(Y - PAGE_OFFSET), 0))))


async def _invlpg_then_loads(kernel: Kernel) -> None:
    await FlushTlbPages(PAGE)
    await note(1, await Load(X))
    await note(1, await Load(WORD))


async def _large_again(kernel: Kernel) -> None:
    """The large page is back, and its page table, still owned, is zeroed before the flush."""
    await Store(PMD, LEAF)
    await Fill(direct_map(frame_start(TABLE)), bytes(4096))
    await flush_page(kernel)


async def other_table(kernel: Kernel) -> None:
    """The PMD leads to another table; the old one is detached."""
    other = Pfn(0x3002)
    await Fill(direct_map(frame_start(other)), split_table())
    await Store(PMD, Pte.make(other, PAGE_TABLE))


async def _second_table(kernel: Kernel) -> None:
    """The PMD leads to another table, and the old one is written to afterwards."""
    await other_table(kernel)
    await Store(PTE, mk_pte(NEW, PAGE_KERNEL))
