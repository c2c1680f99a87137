"""Policies that do all there is to do where an entry changes: where Linux flushes, nothing is left."""

from __future__ import annotations

from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import FlushPolicy, StaleRange, Ticket


class FlushesAtTheChange(FlushPolicy):
    """Over another one, which flushes what is not of the file. `change` is for subclasses to say."""

    async def dispatch(self, stale: StaleRange) -> Ticket:
        if stale.site is FlushSite.ELSEWHERE:
            return await super().dispatch(stale)
        return Ticket(stale)

    async def rely(self, ticket: Ticket) -> None:
        if ticket.begun is not None:
            await super().rely(ticket)


def elsewhere(stale: StaleRange) -> StaleRange:
    """The same range, to be flushed at once."""
    return StaleRange(FlushSite.ELSEWHERE, stale.start, stale.end)
