"""What an invalidation touches, of what some run changes: on one CPU, or on all."""

from __future__ import annotations

from emu.addr import VirtAddr
from emu.events import BroadcastCompleted, RoutineSite
from emu.memory import PhysicalMemory
from emu.paging.models import LAZY
from emu.paging.tlb import InvalidateAll, InvalidateNonGlobal, Invlpg
from hvolab.explore.footprint.invalidations import ALL_TRANSLATIONS, DIRECTORIES, Invalidations
from hvolab.explore.footprint.tables import PAGES_OF_ALL, Tables
from hvolab.judge.sight.resource import Kind, Resource

PAGE = Invlpg(VirtAddr(0x5000))
SITE = RoutineSite(())


def of(*volatile: int, split: tuple[int, ...] = (), cpus: int = 2) -> tuple[Invalidations, Tables]:
    tables = Tables(PhysicalMemory(16 << 20), LAZY)
    tables.volatile |= {*volatile}
    tables.split |= {*split}
    return Invalidations(cpus, LAZY, tables), tables


def translation(page: int) -> Resource:
    return Resource(Kind.TRANSLATION, page)


def tlb(cpu: int, page: int) -> Resource:
    return Resource(Kind.TLB, cpu, page)


def test_it_reads_the_changing_pages_it_is_of_and_the_large_ones_they_lie_in() -> None:
    some, _ = of(4, 5, 6, 700, split=(0, 512))
    assert set(some.reads(PAGE)) == {translation(5), Resource(Kind.SPLIT, 0)}
    assert set(some.reads(Invlpg(VirtAddr(0x5000), 0, 2))) == {
        *(translation(5), translation(6)),
        Resource(Kind.SPLIT, 0),
    }
    everything = {*map(translation, (4, 5, 6, 700)), Resource(Kind.SPLIT, 0), Resource(Kind.SPLIT, 512)}
    assert set(some.reads(InvalidateAll())) == set(some.reads(InvalidateNonGlobal())) == everything


def test_where_directories_change_or_everything_it_reads_these_and_writes_for_all_pages() -> None:
    some, tables = of(5)
    tables.directories_change = tables.everything_changes = True
    assert set(some.reads(PAGE)) == {translation(5), DIRECTORIES, ALL_TRANSLATIONS}
    assert set(some.carried_out(1, PAGE)) == {tlb(1, PAGES_OF_ALL)}


def test_on_one_cpu_it_writes_what_has_changed_since_the_last_one() -> None:
    some, _ = of(5, 6)
    some.windows.changed([5, 6])
    assert set(some.carried_out(1, PAGE)) == {tlb(1, 5)}
    assert set(some.carried_out(1, PAGE)) == set(), "nothing has changed since"
    assert set(some.carried_out(0, InvalidateAll())) == {tlb(0, 5), tlb(0, 6)}


def test_a_broadcast_writes_for_every_cpu_and_leaves_open_what_changed_after_it_was_sent() -> None:
    some, _ = of(5, 6)
    some.windows.changed([5])
    some.windows.expect(30)
    some.windows.changed([6])
    done = BroadcastCompleted(0, SITE, (30,), (InvalidateAll(),))
    assert set(some.completed(done)) == {tlb(cpu, page) for cpu in (0, 1) for page in (5, 6)}
    assert [some.windows.is_open(cpu, page) for cpu in (0, 1) for page in (5, 6)] == [False, True] * 2


def test_of_several_broadcasts_each_counts_as_of_its_own_begin() -> None:
    some, _ = of(5)
    some.windows.expect(30)
    some.windows.changed([5])
    some.windows.expect(31)
    done = BroadcastCompleted(0, SITE, (30, 31), (PAGE, PAGE))
    assert set(some.completed(done)) == {tlb(0, 5), tlb(1, 5)}
    assert not some.windows.is_open(0, 5)


def test_going_back_brings_back_what_was_on_its_way() -> None:
    some, _ = of(5)
    some.windows.changed([5])
    some.windows.expect(30)
    mark = some.mark()
    done = BroadcastCompleted(0, SITE, (30,), (PAGE,))
    first = set(some.completed(done))
    some.back(mark)
    assert set(some.completed(done)) == first == {tlb(0, 5), tlb(1, 5)}
