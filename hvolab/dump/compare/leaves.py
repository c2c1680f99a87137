"""How the leaves of two dumps differ, page by page. `hvolab.dump.compare` is the module to import from.

Promised: 2 MiB of vmemmap split on one side only gives one difference of level; its pages are then
compared with what the 2 MiB leaf says of each. Not promised: to notice frames renumbered (they should
not count), or anything but level, flags and role.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from hvolab.dump.compare.difference import Difference, Placed, unequal
from hvolab.dump.compare.roles import Role, Roles, regions_of
from hvolab.dump.model import PAGE_SIZE, PTES_PER_TABLE, Leaf


@dataclass(frozen=True, slots=True)
class _Mapping:
    """What a leaf says, without its frame number."""

    level: int
    flags: str
    role: Role

    def __str__(self) -> str:
        return f"level {self.level}, {self.flags}, {self.role}"


class LeafView:
    """The leaves of one dump, to be compared by place in vmemmap."""

    def __init__(self, vmemmap_base: int, leaves: tuple[Leaf, ...]) -> None:
        self.regions = regions_of(vmemmap_base, leaves)
        self._roles = Roles(self.regions)

    def large(self, number: int) -> _Mapping | None:
        """The 2 MiB leaf of a region, None when it has none."""
        region = self.regions.get(number)
        if not isinstance(region, Leaf):
            return None
        return _Mapping(2, region.flags, self._roles.of_large(region))

    def pages(self, number: int) -> frozenset[int]:
        """The indices of the mapped pages of a region."""
        region = self.regions.get(number, {})
        return frozenset(_all_pages(number) if isinstance(region, Leaf) else region)

    def page(self, page: int) -> _Mapping | None:
        """What maps one page, as an entry of level 1 even where a 2 MiB leaf does."""
        region = self.regions.get(page // PTES_PER_TABLE, {})
        if isinstance(region, Leaf):
            frame = region.pfn + page % PTES_PER_TABLE
            return _Mapping(1, without_pse(region.flags), self._roles.of_frame(frame))
        leaf = region.get(page)
        return None if leaf is None else _Mapping(1, leaf.flags, self._roles.of_frame(leaf.pfn))


def _all_pages(number: int) -> range:
    return range(number * PTES_PER_TABLE, (number + 1) * PTES_PER_TABLE)


def without_pse(flags: str) -> str:
    """The flags text that each PTE gets when Linux splits a 2 MiB leaf: bit 7 is a "leaf" bit only there."""
    return " ".join(word for word in flags.split(" ") if word != "PSE")


def leaf_differences(
    vmemmap_base: int, left: LeafView, right: LeafView, skipped: Container[int]
) -> Iterator[Placed]:
    """Every difference in address order; `vmemmap_base` (bytes) turns places into addresses.

    Pages in `skipped`, by index, are not looked at.
    """
    for number in sorted(left.regions.keys() | right.regions.keys()):
        if all(page in skipped for page in _all_pages(number)):
            continue
        for page, difference in _region(vmemmap_base, number, left, right):
            if page not in skipped:
                yield page * PAGE_SIZE, difference


def without_pages(vmemmap_base: int, leaves: tuple[Leaf, ...], pages: Container[int]) -> tuple[Leaf, ...]:
    """The leaves but those that map just one of these pages, so that nobody shares a frame with them."""
    return tuple(
        leaf for leaf in leaves if leaf.level == 2 or (leaf.va - vmemmap_base) // PAGE_SIZE not in pages
    )


def _region(base: int, number: int, left: LeafView, right: LeafView) -> Iterator[tuple[int, Difference]]:
    """Pages of one region that differ, each with its index."""
    first = number * PTES_PER_TABLE
    one, other = left.large(number), right.large(number)
    # Two 2 MiB leaves, or one against nothing, are one row; all else is rows of 4 KiB.
    if _is_one_row(left, number) and _is_one_row(right, number):
        for difference in _differences(_where(base, first), one, other):
            yield first, difference
        return
    for difference in unequal(_where(base, first), "level", _level(one), _level(other)):
        yield first, difference
    for page in sorted(left.pages(number) | right.pages(number)):
        for difference in _differences(_where(base, page), left.page(page), right.page(page)):
            yield page, difference


def _is_one_row(view: LeafView, number: int) -> bool:
    return number not in view.regions or isinstance(view.regions[number], Leaf)


def _level(large: _Mapping | None) -> int:
    return 1 if large is None else 2


def _where(base: int, page: int) -> str:
    return f"leaf {base + page * PAGE_SIZE:#x}"


def _differences(where: str, left: _Mapping | None, right: _Mapping | None) -> Iterator[Difference]:
    if left is None or right is None:
        yield from unequal(where, "leaf", left, right)
        return
    yield from unequal(where, "flags", left.flags, right.flags)
    yield from unequal(where, "role", left.role, right.role)
