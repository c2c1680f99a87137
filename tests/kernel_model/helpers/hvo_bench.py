"""What HVO and the pool are asked to do while memory runs out, each with the same told in reckoned terms.

What a deed needs is prepared without failures, before time zero. `Bench` runs one on the kernel model and
reckons it on a `World`; both end in an `Outcome`, two values that must be equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from hvo_lab import (
    FOLIO_LIST,
    NON_HVO_FOLIOS,
    PAGE,
    RO,
    STRUCT,
    VMEMMAP,
    Lab,
    Leaf,
    frames,
    pages_of,
)
from hvo_reckoning import Shortage, World, contents, unlinked

from emu.events import Annotated
from hvolab.judge.rows.invariants import Invariants
from hvolab.judge.sight.sight import Sight
from kernel_model.boot import BootConfig
from kernel_model.core.events import (
    AllocationFailed,
    BadPage,
    KernelBug,
    KernelWarning,
    Oops,
    PageAllocated,
)
from kernel_model.layout import FREE_AREA, HstateFields
from kernel_model.mm.failures import (
    ALLOCATIONS,
    AllocationFailures,
    FailAt,
    FailFrom,
    FailUntilFreed,
    NoFailures,
)
from kernel_model.mm.hstate import HSTATE_2M, Hstate
from kernel_model.mm.image import HugePage

FLAGS, NO_TYPE, BUDDY = 0x000F_FFFF_C000_0000, 0xFFFF_FFFF, 0xF000_0000
_UNLINKED = Struct("<Q16xQQQIIQ")
"""A struct page without its two `lru` words."""


class Outcome(NamedTuple):
    """Everything that may come out differently."""

    log: list[tuple[str, bool]]
    """What each allocation was for, and whether it was granted."""
    results: list[object]
    leaves: dict[int, Leaf]
    tables: dict[int, int]
    counters: dict[str, int]
    key: int
    free: int
    lists: tuple[list[int], list[int], list[int]]
    optimized: dict[int, bool]
    numbers: tuple[int, int, int, int]
    wrong: list[object]
    """Bugs, warnings, bad pages, broken invariants, locks held, struct pages that are not as they must be."""


class Differs(AssertionError):
    """Something came out differently."""

    def __init__(self, failures: AllocationFailures, seen: Outcome, reckoned: Outcome) -> None:
        told = [str(failures)]
        for name, one, other in zip(Outcome._fields, seen, reckoned, strict=True):
            if isinstance(one, dict) and isinstance(other, dict):
                keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
                told += [f"{name}[{key!r}]: {one.get(key)}, reckoned {other.get(key)}" for key in keys[:8]]
            elif one != other:
                told.append(f"{name}: {one}, reckoned {other}")
        super().__init__("\n".join(told))


@dataclass(frozen=True)
class Deed:
    name: str
    config: BootConfig
    act: Callable[[Lab], list[object]]
    reckon: Callable[[World, tuple[HugePage, ...]], list[object]]
    prepare: Callable[[Lab], object] = id
    hstate: Hstate = HSTATE_2M


class Bench:
    """One deed on one machine, again and again."""

    def __init__(self, deed: Deed) -> None:
        keep = (Annotated,) if deed.hstate.order >= 16 else ()
        self.deed = deed
        self.lab = Lab(deed.config, keep)
        self._of = HstateFields(deed.hstate.order)
        deed.prepare(self.lab)
        self._start = self._world()
        self.lab.kernel.pages.mark_time_zero()
        self.lab.machine.mark_time_zero()

    # -- the reckoning -------------------------------------------------------------------------------

    def reckoned(self, failures: AllocationFailures, given: Iterator[int] | None = None) -> World:
        return self._reckon(failures, given)[0]

    def _reckon(
        self, failures: AllocationFailures, given: Iterator[int] | None
    ) -> tuple[World, list[object]]:
        world = self._start.copy()
        world.memory = Shortage(failures)
        if given is not None:
            world.frames = given
        return world, self.deed.reckon(world, self.deed.config.huge_pages)

    def sets(self, size: int) -> Iterator[FailAt]:
        """Every set of so many failing allocations each of which is asked for."""
        yield from map(FailAt, self._sets(size))

    def _sets(self, size: int) -> Iterator[frozenset[int]]:
        if size == 0:
            yield frozenset()
            return
        for less in self._sets(size - 1):
            asked = len(self.reckoned(FailAt(less)).log)
            yield from (less | {position} for position in range(max(less, default=-1) + 1, asked))

    def persistent(self) -> Iterator[AllocationFailures]:
        """Both persistent kinds, from each position on that a deed without failures has."""
        for position in range(len(self.reckoned(NoFailures()).log)):
            yield FailFrom(position)
            yield FailUntilFreed(position)

    # -- the run -------------------------------------------------------------------------------------

    def check(self, failures: AllocationFailures) -> None:
        """Run the deed with these failures, and compare all that can be seen with what is reckoned."""
        lab = self.lab
        lab.reset()
        lab.kernel.pages.failures = failures
        results = self.deed.act(lab)
        given = iter([pfn for _, pfn in self._allocations() if pfn is not None])
        world, expected = self._reckon(failures, given)
        seen, reckoned = self._outcome(results, world), self._expected(expected, world)
        if seen != reckoned:
            raise Differs(failures, seen, reckoned)

    def _allocations(self) -> list[tuple[str, int | None]]:
        heard = self.lab.heard(PageAllocated, AllocationFailed)
        return [(event.purpose, getattr(event, "pfn", None)) for event in heard]

    def _expected(self, results: list[object], world: World) -> Outcome:
        lists = tuple(
            [huge.folio for huge in some] for some in (world.folio_list, world.non_hvo, world.free_list)
        )
        return Outcome(
            world.log,
            results,
            world.leaves,
            world.tables,
            world.counters(),
            sum(world.optimized.values()),
            world.free,
            lists,  # type: ignore[arg-type]
            {huge.folio: flag for huge, flag in world.optimized.items()},
            world.numbers(),
            [],
        )

    def _outcome(self, results: list[object], world: World) -> Outcome:
        lab = self.lab
        return Outcome(
            [(purpose, pfn is not None) for purpose, pfn in self._allocations()],
            results,
            lab.vmemmap(),
            lab.tables(),
            lab.counters(),
            lab.key(),
            lab.kernel.pages.free_frames(),
            (lab.linked(FOLIO_LIST), lab.linked(NON_HVO_FOLIOS), lab.linked(self._of.freelist)),
            {huge.folio: lab.optimized(huge) for huge in world.optimized},
            self._numbers(),
            list(self._wrong(world)),
        )

    def _numbers(self) -> tuple[int, int, int, int]:
        of, word = self._of, self.lab.word_at
        return (
            word(of.nr_huge_pages),
            word(of.free_huge_pages),
            word(of.surplus_huge_pages),
            word(of.max_huge_pages),
        )

    def _wrong(self, world: World) -> Iterator[object]:
        lab = self.lab
        yield from lab.heard(KernelBug, KernelWarning, BadPage, Oops)
        yield from Invariants(Sight(lab.machine)).at_rest(list(world.optimized), [])
        yield from (word for word, held in lab.machine.words.items() if held and word != ALLOCATIONS)
        used = {*frames(lab.vmemmap()), *lab.tables().values()}
        yield from (hex(pfn) for pfn in used if lab.kernel.pages.is_free(pfn))
        for huge, optimized in world.optimized.items():
            for va, expected in contents(huge, world.copied):
                if va == huge.folio:
                    if unlinked(lab.bytes_at(va, PAGE)) != expected:
                        yield f"head page {va:#x}"
                elif not optimized and lab.bytes_at(va, PAGE) != expected:
                    yield f"tail page {va:#x}"
        for huge in world.gone:
            yield from self._not_unused(huge, used)

    def _not_unused(self, huge: HugePage, used: set[int]) -> Iterator[str]:
        """Frames that were a huge page's and are not free ones now, unless vmemmap has them.

        The first of a free block says so, with its order; the first tail keeps its folio's size.
        """
        blocks = {pfn: order for order in range(11) for pfn in self._listed(order)}
        for va in pages_of(huge):
            first = (va - VMEMMAP) // STRUCT
            for pfn, words in enumerate(_UNLINKED.iter_unpack(self.lab.bytes_at(va, PAGE)), first):
                order = blocks.get(pfn)
                says = (0, NO_TYPE) if order is None else (order, BUDDY)
                size = huge.hstate.pages_per_huge_page if pfn == huge.pfn + 1 else 0
                if words != (FLAGS, 0, size, *says, 0, 0) and pfn not in used:
                    yield f"struct page of {pfn:#x}"

    def _listed(self, order: int) -> list[int]:
        """The free blocks of that order, as they are linked in memory."""
        return [(page - VMEMMAP) // STRUCT for page in self.lab.linked(FREE_AREA + 16 * order)]

    # -- the start -----------------------------------------------------------------------------------

    def _world(self) -> World:
        """What there is when the deed begins, read out of memory."""
        lab, config = self.lab, self.deed.config
        known = {huge.folio: huge for huge in config.huge_pages}
        leaves = lab.vmemmap()
        optimized = {huge: lab.optimized(huge) for huge in config.huge_pages if self._is_known(huge)}
        fresh = {leaf.pfn for leaf in lab.initial.values() if leaf.flags == RO}
        fresh |= {pfn for _, pfn in self._allocations() if pfn is not None}
        reserved = set(frames(leaves)) - fresh
        nr, _, surplus, most = self._numbers()
        world = World(leaves, reserved, optimized, lab.kernel.pages.free_frames())
        world.folio_list = [known[folio] for folio in lab.linked(FOLIO_LIST)]
        world.non_hvo = [known[folio] for folio in lab.linked(NON_HVO_FOLIOS)]
        world.free_list = [known[folio] for folio in lab.linked(self._of.freelist)]
        world.nr, world.surplus, world.most = nr, surplus, most
        world.tables = lab.tables()
        assert world.counters() == lab.counters()
        return world

    def _is_known(self, huge: HugePage) -> bool:
        return self.lab.struct_page(huge.pfn).page_type == 0xF400_0000
