"""What an exploration has learned of the page tables: which frames are tables, which pages ever change.

A translation that no run changes needs no place in a footprint. Which those are is known only afterwards, so
knowledge grows from run to run; when it has grown, the search starts again with it (`grown`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from emu.addr import PAGE_SHIFT, Pfn, PhysAddr
from emu.memory import PhysicalMemory
from emu.paging.dead_end import DeadEnd
from emu.paging.models import CpuModel, MultiHit
from emu.paging.pte import Pte, PteBit
from emu.paging.tlb import ALL_RULES, TlbEntry
from emu.paging.walk import Walk
from hvolab.checked.json_value import Json
from hvolab.checked.place import Place

_SPAN = {1: 1, 2: 512}  # 4 KiB pages behind one entry of a table
PAGES_OF_ALL = -1


class StoreEffect:
    """What a store does to translations: the 4 KiB pages (by number) whose translation it changes.

    `splits`: the first page of each large page whose entry it replaced: that entry's end is the store, even
    where no translation changed. `tables`: the frames of the tables it leads to, whose contents now count.
    `directories`: a paging-structure cache may hold what it replaced.
    `everything`: too high up to list.
    """

    __slots__ = ("directories", "everything", "pages", "splits", "tables")

    def __init__(
        self,
        pages: Iterable[int],
        splits: Iterable[int],
        tables: Iterable[int],
        *,
        directories: bool,
        everything: bool,
    ) -> None:
        self.pages = tuple(pages)
        self.splits = tuple(splits)
        self.tables = tuple(tables)
        self.directories = directories
        self.everything = everything


NO_EFFECT = StoreEffect((), (), (), directories=False, everything=False)


class Tables:
    """Grows over an exploration; all page numbers are virtual address / 4096."""

    def __init__(self, memory: PhysicalMemory, model: CpuModel) -> None:
        self.grown = False
        self.volatile: set[int] = set()  # pages whose translation some run changes
        self.split: set[int] = set()  # first pages of the large pages that some run splits
        self.directories_change = False
        self.everything_changes = False
        self._memory = memory
        # On a CPU that forbids two sizes, or does not obey its invalidations, a split is not equivalent.
        self._sizes_matter = model.multi_hit is MultiHit.MACHINE_CHECK or model.rules != ALL_RULES
        # Frame of a table -> (level, first page it translates, where the entry that leads to it lies).
        self._tables: dict[int, set[tuple[int, int, PhysAddr | None]]] = {}
        self._walked: set[tuple[PhysAddr, ...]] = set()
        self._expected: dict[int, bytes] = {}

    def learn(self, entry: TlbEntry | DeadEnd | Walk) -> None:
        """The tables behind a translation or a dead end that was, or could be, used, or looked through."""
        steps = entry.path if isinstance(entry, DeadEnd) else entry.steps
        key = (steps[-1].pa, steps[-2].pa)
        if key in self._walked:
            return
        self._walked.add(key)
        parent: PhysAddr | None = None
        for step in steps:
            shift = 9 * step.level
            first = (entry.page >> PAGE_SHIFT) >> shift << shift
            self._place(Pfn(step.pa >> PAGE_SHIFT), step.level, first, parent)
            parent = step.pa

    def _place(self, table: Pfn, level: int, first: int, parent: PhysAddr | None) -> None:
        known = self._tables.setdefault(table, set())
        if (level, first, parent) not in known:
            known.add((level, first, parent))
            self.grown = True

    def save(self) -> Json:
        """What has been learned, for a checkpoint."""
        places: list[Json] = [
            [frame, level, first, -1 if parent is None else parent]
            for frame, found in sorted(self._tables.items())
            for level, first, parent in sorted(found, key=str)
        ]
        return {
            "places": places,
            "volatile": list[Json](sorted(self.volatile)),
            "split": list[Json](sorted(self.split)),
            "directories": int(self.directories_change),
            "everything": int(self.everything_changes),
        }

    def load(self, place: Place) -> None:
        """Know what `save` said."""
        for row in place.field("places").items():
            numbers = row.integers()
            if len(numbers) != 4:
                raise row.wanted("four numbers")
            frame, level, first, parent = numbers
            where = None if parent < 0 else PhysAddr(parent)
            self._tables.setdefault(frame, set()).add((level, first, where))
        self.volatile = set(place.field("volatile").integers())
        self.split = set(place.field("split").integers())
        self.directories_change = bool(place.field("directories").integer(0, 1))
        self.everything_changes = bool(place.field("everything").integer(0, 1))

    def is_table(self, frame: int) -> bool:
        """Whether it is one in some run."""
        return frame in self._tables

    def is_any_volatile(self, pages: range) -> bool:
        return self.everything_changes or any(page in self.volatile for page in pages)

    def is_volatile(self, page: int) -> bool:
        return self.everything_changes or page in self.volatile

    def through(self, frame: int) -> set[int]:
        """The volatile pages that are, or in this run once were, translated through it as a table."""
        known = self._tables.get(frame, set())
        places = [place for place in known if self._lives(frame, place[2]) is not None]
        found = {PAGES_OF_ALL} if places and self.everything_changes else set()
        for level, first, _ in places:
            pages = range(first, first + (512 << 9 * (level - 1)))
            found.update(page for page in self.volatile if page in pages)
        return found

    def effect(self, pa: PhysAddr, length: int, before: bytes) -> StoreEffect:
        """What the store of `length` bytes that overwrote `before` at `pa`, the latest one, has changed."""
        places = self._tables.get(pa >> PAGE_SHIFT)
        if places is None:
            return NO_EFFECT
        lives = {place: self._lives(pa >> PAGE_SHIFT, place[2]) for place in places}
        if all(alive is None for alive in lives.values()):
            return NO_EFFECT
        pages: set[int] = set()
        splits: set[int] = set()
        tables: set[int] = set()
        directories = everything = False
        for number, old, new in self._words(pa, length, before):
            for place, alive in lives.items():
                level, first, _ = place
                if alive is None:
                    continue
                if level > 1 and new.present and not new.page_size:
                    tables.add(new.pfn)
                if level > 2:
                    everything = True
                    continue
                page = first + (number & 511) * _SPAN[level]
                if level > 1 and new.present and not new.page_size:
                    # Judges look through it even if nobody uses it.
                    self._place(new.pfn, level - 1, page, PhysAddr(number << 3))
                found = set(self._changed(level, page, old, new))
                pages |= found
                if level == 2 and alive and old.present and old.page_size:
                    splits.add(page)
                directories = directories or (level == 2 and bool(found)) or not alive
        self._note(pages, splits, directories, everything)
        return StoreEffect(pages, splits, tables, directories=directories, everything=everything)

    def _note(self, pages: set[int], splits: set[int], directories: bool, everything: bool) -> None:  # noqa: FBT001
        if not splits <= self.split:
            self.split |= splits
            self.grown = True
        if not pages <= self.volatile:
            self.volatile |= pages
            self.grown = True
        if directories and not self.directories_change:
            self.directories_change = self.grown = True
        if everything and not self.everything_changes:
            self.everything_changes = self.grown = True

    def _words(self, pa: PhysAddr, length: int, before: bytes) -> Iterator[tuple[int, Pte, Pte]]:
        """The words (address / 8) that the store changed: before and now."""
        start, end = pa & ~7, (pa + length + 7) & ~7
        now = self._memory.read(PhysAddr(start), end - start)
        then = now[: pa - start] + before + now[pa - start + length :]
        if then == now:
            return
        for offset in range(0, end - start, 8):
            old, new = then[offset : offset + 8], now[offset : offset + 8]
            if old != new:
                yield (
                    (start + offset) >> 3,
                    Pte(int.from_bytes(old, "little")),
                    Pte(int.from_bytes(new, "little")),
                )

    def _lives(self, frame: int, parent: PhysAddr | None) -> bool | None:
        """True: the entry at `parent` leads to the table. False: it once did. None: nobody could see it."""
        if parent is None or _leads_to(self._memory.read_word(parent), frame):
            return True
        journal = self._memory.journal
        moment = journal.last_change(parent, 8, journal.now)
        while moment is not None:
            if _leads_to(self._memory.word_at(parent, moment), frame):
                return False
            moment = journal.last_change(parent, 8, moment)
        return None

    def _changed(self, level: int, first: int, old: Pte, new: Pte) -> Iterator[int]:
        if level == 1:
            yield first
            return
        if old.present and old.page_size and new.present and not new.page_size and not self._sizes_matter:
            table = self._memory.read_frame(new.pfn)
            expected = self._as_table(old)
            if table == expected:
                return
            for index in range(512):
                if table[8 * index : 8 * index + 8] != expected[8 * index : 8 * index + 8]:
                    yield first + index
            return
        yield from range(first, first + 512)

    def _as_table(self, leaf: Pte) -> bytes:
        """The page table that maps what a 2 MiB leaf maps, flag by flag."""
        found = self._expected.get(leaf)
        if found is None:
            base = int(leaf) & ~int(PteBit.PAGE_SIZE)
            found = b"".join((base + (index << PAGE_SHIFT)).to_bytes(8, "little") for index in range(512))
            self._expected[leaf] = found
        return found


def _leads_to(entry: int, frame: int) -> bool:
    pte = Pte(entry)
    return pte.present and not pte.page_size and pte.pfn == frame
