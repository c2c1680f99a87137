"""Policies that are a table: what is flushed at each place where Linux flushes, or leaves that for later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import assert_never

from kernel_model.core.sites import FlushSite
from kernel_model.core.smp import FlushEverything, RemoteCall
from kernel_model.flush.policy import FlushPolicy, PolicySetup, StaleRange, Ticket, announce
from kernel_model.flush.upstream import UpstreamFlush


class What(Enum):
    """What is flushed, on all CPUs."""

    AS_LINUX = "what Linux flushes there"
    EVERYTHING = "everything"
    NOTHING = "nothing, and the kernel relies on it"
    SETTLED = "nothing: it has been before"


class TableFlush(UpstreamFlush):
    """As upstream where the table says nothing else: earlier than Linux, more, or not at all."""

    def __init__(self, setup: PolicySetup, at: Mapping[FlushSite, What]) -> None:
        super().__init__(setup)
        self._at = at

    def what(self, stale: StaleRange) -> What:
        """Linux flushes nothing where it defers."""
        return self._at.get(stale.site, What.SETTLED if stale.site.defers else What.AS_LINUX)

    def call(self, stale: StaleRange) -> RemoteCall:
        return FlushEverything() if self.what(stale) is What.EVERYTHING else super().call(stale)

    async def issue(self, stale: StaleRange) -> None:
        await self.flush(stale)

    async def dispatch(self, stale: StaleRange) -> Ticket:
        match self.what(stale):
            case What.AS_LINUX | What.EVERYTHING:
                return await super().dispatch(stale)
            case What.NOTHING:
                return Ticket(stale, await announce(stale, frozenset()))
            case What.SETTLED:
                return Ticket(stale)
            case never:
                assert_never(never)


def table(at: Mapping[FlushSite, What]) -> Callable[[PolicySetup], FlushPolicy]:
    """How to make a policy of that table."""
    return lambda setup: TableFlush(setup, at)
