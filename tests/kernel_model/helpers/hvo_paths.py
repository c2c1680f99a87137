"""A kernel that notes which ways through HVO and the pool are taken when memory runs out.

Its methods call the port's and look at what those were given and what they returned; not one op more is made,
so its runs are those of the port. The names are this file's.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, Primitives
from kernel_model.pool.hugetlb import Hugetlb
from kernel_model.pool.hugetlb_pool import PoolPrimitives
from kernel_model.variants.named import NamedVariant

REMAP_PATHS = frozenset(
    {
        "remapped, fresh head",
        "remapped, old head",
        "no first page table, fresh head",
        "no first page table, old head",
        "rolled back, fresh head",
        "rolled back, old head",
    }
)
OPTIMIZE_PATHS = frozenset(
    {
        "the split pass breaks off",
        "a folio at the first try",
        "a folio at the second try, after a flush and a free",
        "a folio not even at the second try",
        "a folio not tried again, nothing being in hand",
    }
)
RESTORE_PATHS = frozenset(
    {
        "one restored",
        "one not restored",
        "a list restored",
        "a list not restored from its first folio on",
        "a list not restored from a later folio on",
        "no page for the first tail",
        "pages for some tails are freed again",
    }
)
POOL_PATHS = frozenset(
    {
        "bulk: some were restored, and are freed first",
        "bulk: none was, the first is freed singly",
        "bulk: none was, a later one is freed singly",
        "bulk: none was, and none can be: all surplus",
        "one that is to be freed stays, surplus",
        "one that is to be freed is",
    }
)
PATHS = REMAP_PATHS | OPTIMIZE_PATHS | RESTORE_PATHS | POOL_PATHS


class WatchedHvo(HugetlbVmemmap):
    """`met`: how often each way was taken."""

    def __init__(self, primitives: Primitives) -> None:
        super().__init__(primitives)
        self.met: Counter[str] = Counter()
        self.singly: list[int] = []
        self._walks: list[tuple[str, bool, int, int]] = []
        self._splits: list[int] = []
        self._tries: list[tuple[Any, int]] = []
        self._restores: list[int] = []
        self._pages_freed = 0
        self._free_page = self._pages.free_page
        self._pages.free_page = self._note_free_page  # type: ignore[method-assign]

    async def _note_free_page(self, page: Any) -> None:
        self._pages_freed += 1
        await self._free_page(page)

    async def vmemmap_remap_range(self, start: Any, end: Any, walk: Any) -> int:
        fresh = bool(walk.reuse_page)
        ret = await super().vmemmap_remap_range(start, end, walk)
        self._walks.append((getattr(walk.remap_pte, "__name__", "split"), fresh, ret, walk.nr_walked))
        return ret

    async def vmemmap_remap_free(self, *args: Any) -> int:
        self._walks.clear()
        ret = await super().vmemmap_remap_free(*args)
        match self._walks:
            case [("vmemmap_remap_pte", fresh, 0, _)]:
                how = "remapped"
            case [("vmemmap_remap_pte", fresh, error, 0)] if error == ret:
                how = "no first page table"
            case [("vmemmap_remap_pte", fresh, error, there), ("vmemmap_restore_pte", False, 0, back)] if (
                error == ret and there == back > 0
            ):
                how = "rolled back"
            case _:
                raise AssertionError(self._walks)
        self.met[f"{how}, {'fresh' if fresh else 'old'} head"] += 1
        return ret

    async def _optimize_folio(self, h: Any, folio: Any, *args: Any) -> int:
        ret = await super()._optimize_folio(h, folio, *args)
        self._tries.append((folio, ret))
        return ret

    async def hugetlb_vmemmap_split_folio(self, *args: Any) -> int:
        ret = await super().hugetlb_vmemmap_split_folio(*args)
        self._splits.append(ret)
        return ret

    async def hugetlb_vmemmap_optimize_folios(self, *args: Any) -> None:
        self._tries.clear()
        self._splits.clear()
        await super().hugetlb_vmemmap_optimize_folios(*args)
        folios = [[bool(ret) for _, ret in tries] for _, tries in groupby(self._tries, lambda one: one[0])]
        if any(self._splits) and len(self._splits) < len(folios):
            self.met["the split pass breaks off"] += 1
        for failed in folios:
            match failed:
                case [False]:
                    self.met["a folio at the first try"] += 1
                case [True, False]:
                    self.met["a folio at the second try, after a flush and a free"] += 1
                case [True, True]:
                    self.met["a folio not even at the second try"] += 1
                case [True]:
                    self.met["a folio not tried again, nothing being in hand"] += 1
                case _:
                    raise AssertionError(failed)

    async def alloc_vmemmap_page_list(self, start: Any, end: Any, pages: Any) -> int:
        self._pages_freed = 0
        ret = await super().alloc_vmemmap_page_list(start, end, pages)
        if ret:
            some = self._pages_freed > 0
            self.met["pages for some tails are freed again" if some else "no page for the first tail"] += 1
        return ret

    async def _restore_folio(self, *args: Any) -> int:
        ret = await super()._restore_folio(*args)
        self._restores.append(ret)
        return ret

    async def hugetlb_vmemmap_restore_folio(self, *args: Any) -> int:
        ret = await super().hugetlb_vmemmap_restore_folio(*args)
        self.singly.append(ret)
        self.met["one not restored" if ret else "one restored"] += 1
        return ret

    async def hugetlb_vmemmap_restore_folios(self, *args: Any) -> int:
        self._restores.clear()
        ret = await super().hugetlb_vmemmap_restore_folios(*args)
        if ret < 0:
            which = "its first" if len(self._restores) == 1 else "a later"
            self.met[f"a list not restored from {which} folio on"] += 1
        elif ret:
            self.met["a list restored"] += 1
        return ret


class WatchedPool(Hugetlb):
    """Notes into the `met` of the HVO it has."""

    def __init__(self, primitives: PoolPrimitives) -> None:
        super().__init__(primitives)
        assert isinstance(self._hvo, WatchedHvo)
        self._watched = self._hvo
        self._freed = self._in_bulk = 0

    async def update_and_free_pages_bulk(self, *args: Any) -> None:
        self._in_bulk += 1
        await super().update_and_free_pages_bulk(*args)
        self._in_bulk -= 1

    async def _free_restored(self, *args: Any) -> None:
        self._freed += 1
        await super()._free_restored(*args)

    async def _bulk_vmemmap_restore_error(self, *args: Any) -> None:
        self._freed = 0
        self._watched.singly.clear()
        await super()._bulk_vmemmap_restore_error(*args)
        match self._watched.singly:
            case [] if self._freed:
                self._watched.met["bulk: some were restored, and are freed first"] += 1
            case [0] if self._freed == 1:
                self._watched.met["bulk: none was, the first is freed singly"] += 1
            case [*failed, 0] if self._freed == 1 and all(failed):
                self._watched.met["bulk: none was, a later one is freed singly"] += 1
            case [*failed] if failed and all(failed) and not self._freed:
                self._watched.met["bulk: none was, and none can be: all surplus"] += 1
            case _:
                raise AssertionError((self._watched.singly, self._freed))

    async def update_and_free_hugetlb_folio(self, *args: Any) -> None:
        if self._in_bulk:
            await super().update_and_free_hugetlb_folio(*args)
            return
        self._watched.singly.clear()
        await super().update_and_free_hugetlb_folio(*args)
        stays = any(self._watched.singly)
        self._watched.met[f"one that is to be freed {'stays, surplus' if stays else 'is'}"] += 1


WATCHED = NamedVariant("watched", "upstream, which notes the ways it takes", WatchedHvo, WatchedPool)
