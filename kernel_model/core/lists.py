"""struct list_head in guest memory, through the MMU, with the checks of CONFIG_DEBUG_LIST (lib/list_debug.c).

A list head is two words: next, then prev. A corrupted list is a BUG (CONFIG_BUG_ON_DATA_CORRUPTION).
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from emu.addr import VirtAddr
from emu.cpu.ops import Load, Store
from kernel_model.core.bug import bug

LIST_POISON1 = 0xDEAD_0000_0000_0100
LIST_POISON2 = 0xDEAD_0000_0000_0122
LIST_HEAD_BYTES = 16


def _prev(entry: VirtAddr) -> VirtAddr:
    return VirtAddr(entry + 8)


class Lists:
    """List operations of a kernel built with or without CONFIG_DEBUG_LIST."""

    def __init__(self, checks: ListChecks) -> None:
        self._checks = checks

    async def init(self, head: VirtAddr) -> None:
        """INIT_LIST_HEAD"""
        await Store(head, head)
        await Store(_prev(head), head)

    async def empty(self, head: VirtAddr) -> bool:
        """list_empty"""
        return await Load(head) == head

    async def add(self, new: VirtAddr, head: VirtAddr) -> None:
        """list_add: `new` becomes the first."""
        following = VirtAddr(await Load(head))
        await self._checks.before_add(new, head, following)
        await Store(_prev(following), new)
        await Store(new, following)
        await Store(_prev(new), head)
        await Store(head, new)

    async def add_tail(self, new: VirtAddr, head: VirtAddr) -> None:
        """list_add_tail: `new` becomes the last."""
        last = VirtAddr(await Load(_prev(head)))
        await self._checks.before_add(new, last, head)
        await Store(_prev(head), new)
        await Store(new, head)
        await Store(_prev(new), last)
        await Store(last, new)

    async def delete(self, entry: VirtAddr) -> None:
        """list_del: unlink and poison."""
        await self._unlink(entry)
        await Store(entry, LIST_POISON1)
        await Store(_prev(entry), LIST_POISON2)

    async def move(self, entry: VirtAddr, head: VirtAddr) -> None:
        """list_move: out of its list, first in another."""
        await self._unlink(entry)
        await self.add(entry, head)

    async def splice_init(self, source: VirtAddr, head: VirtAddr) -> None:
        """list_splice_init: all of `source` becomes the beginning of another list. Nothing is checked."""
        if await self.empty(source):
            return
        first, last = VirtAddr(await Load(source)), VirtAddr(await Load(_prev(source)))
        following = VirtAddr(await Load(head))
        await Store(_prev(first), head)
        await Store(head, first)
        await Store(last, following)
        await Store(_prev(following), last)
        await self.init(source)

    async def entries(self, head: VirtAddr) -> AsyncIterator[VirtAddr]:
        """list_for_each: each entry's successor is read after the body has run."""
        entry = VirtAddr(await Load(head))
        while entry != head:
            yield entry
            entry = VirtAddr(await Load(entry))

    async def entries_safe(self, head: VirtAddr) -> AsyncIterator[VirtAddr]:
        """list_for_each_safe: each entry's successor is read before the body runs."""
        entry = VirtAddr(await Load(head))
        while entry != head:
            following = VirtAddr(await Load(entry))
            yield entry
            entry = following

    async def _unlink(self, entry: VirtAddr) -> None:
        following, before = VirtAddr(await Load(entry)), VirtAddr(await Load(_prev(entry)))
        await self._checks.before_delete(entry, before, following)
        await Store(_prev(following), before)
        await Store(before, following)


class ListChecks:
    """CONFIG_DEBUG_LIST off: no checks."""

    async def before_add(self, new: VirtAddr, before: VirtAddr, following: VirtAddr) -> None:
        """__list_add_valid"""

    async def before_delete(self, entry: VirtAddr, before: VirtAddr, following: VirtAddr) -> None:
        """__list_del_entry_valid"""


class DebugListChecks(ListChecks):
    """CONFIG_DEBUG_LIST on. The messages are those of lib/list_debug.c; addresses have 16 digits (%px)."""

    async def before_add(self, new: VirtAddr, before: VirtAddr, following: VirtAddr) -> None:
        if not before:
            await _corrupt_add("list_add corruption. prev is NULL.")
        if not following:
            await _corrupt_add("list_add corruption. next is NULL.")
        found = await Load(_prev(following))
        if found != before:
            await _corrupt_add(
                f"list_add corruption. next->prev should be prev ({before:016x}), but was {found:016x}. "
                f"(next={following:016x})."
            )
        found = await Load(before)
        if found != following:
            await _corrupt_add(
                f"list_add corruption. prev->next should be next ({following:016x}), but was {found:016x}. "
                f"(prev={before:016x})."
            )
        if new in (before, following):
            await _corrupt_add(
                f"list_add double add: new={new:016x}, prev={before:016x}, next={following:016x}."
            )

    async def before_delete(self, entry: VirtAddr, before: VirtAddr, following: VirtAddr) -> None:
        if not following:
            await _corrupt_del(f"list_del corruption, {entry:016x}->next is NULL")
        if not before:
            await _corrupt_del(f"list_del corruption, {entry:016x}->prev is NULL")
        if following == LIST_POISON1:
            await _corrupt_del(
                f"list_del corruption, {entry:016x}->next is LIST_POISON1 ({LIST_POISON1:016x})"
            )
        if before == LIST_POISON2:
            await _corrupt_del(
                f"list_del corruption, {entry:016x}->prev is LIST_POISON2 ({LIST_POISON2:016x})"
            )
        found = await Load(before)
        if found != entry:
            await _corrupt_del(
                f"list_del corruption. prev->next should be {entry:016x}, but was {found:016x}. "
                f"(prev={before:016x})"
            )
        found = await Load(_prev(following))
        if found != entry:
            await _corrupt_del(
                f"list_del corruption. next->prev should be {entry:016x}, but was {found:016x}. "
                f"(next={following:016x})"
            )


async def _corrupt_add(message: str) -> None:
    await bug("__list_add_valid", message)


async def _corrupt_del(message: str) -> None:
    await bug("__list_del_entry_valid", message)
