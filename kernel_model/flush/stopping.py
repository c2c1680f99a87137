"""The others stand still while an entry changes: nobody uses it in the middle, on any CPU.

stop_machine() of Linux, and what was proposed for HVO on arm64: CPUs are paused for each change, and hardware
tells their TLBs. A CPU stands still in its interrupt handler here, so one with interrupts off is waited for,
as upstream's flush waits for it.
"""

from __future__ import annotations

from emu.cpu.condition import Word, WordIs
from emu.cpu.ops import AddWords, Await, SendIpi, ThisCpu
from emu.cpu.software import Grain
from emu.paging.models import with_invlpgb
from kernel_model.core.smp import (
    CALL_FUNCTION_VECTOR,
    GO,
    STILL,
    FlushEverything,
    FlushPages,
    StandStill,
    SyncCore,
    csd_lock_wait,
    run_here,
)
from kernel_model.flush.at_change import FlushesAtTheChange, elsewhere
from kernel_model.flush.broadcast import BroadcastFlush
from kernel_model.flush.policy import (
    EntryChange,
    FlushPolicy,
    NamedPolicy,
    StaleRange,
    Ticket,
    announce,
    complete,
)
from kernel_model.flush.upstream import UpstreamFlush, call_for

STOPPING = Word("somebody stops the others")


class StopsOthers(FlushPolicy):
    """Who stops the others, one at a time, and lets them go on."""

    async def stop(self, then: FlushEverything | FlushPages | SyncCore) -> int:
        """What they do before they go on. Returns the request when all stand still."""
        await Await(WordIs(STOPPING, 0), then=((STOPPING, 1),))
        others = self._setup.online - {await ThisCpu()}
        request = await SendIpi(others, CALL_FUNCTION_VECTOR, StandStill(then))
        await Await(WordIs(STILL, len(others)))
        return request

    async def go_on(self, request: int) -> None:
        """Returns when all do."""
        await AddWords(((GO, 1),))
        await csd_lock_wait(request)
        await AddWords(((GO, -1), (STILL, 1 - len(self._setup.online)), (STOPPING, -1)))


class StopMachine(FlushesAtTheChange, UpstreamFlush, StopsOthers):
    """Each flushes its own TLB before it goes on."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        flush = call_for(stale, self._setup.ceiling)
        request = await self.stop(flush)
        await entry.make()
        begun = await announce(elsewhere(stale), self._setup.online)
        await run_here(flush)
        await self.go_on(request)
        await complete(Ticket(stale, begun))


class PauseRemote(FlushesAtTheChange, BroadcastFlush, StopsOthers):
    """Hardware has told every TLB before they go on."""

    async def change(self, stale: StaleRange, entry: EntryChange) -> None:
        request = await self.stop(SyncCore())
        await entry.make()
        await self.flush(elsewhere(stale))
        await self.go_on(request)


_OBLIGATION = "nobody goes on before the entry has changed and its TLB has forgotten the old one"
STOP_MACHINE = NamedPolicy(
    "stop-machine",
    "the others stand still while an entry changes, and flush before they go on",
    StopMachine,
    grain=Grain.STEPWISE,
    source="kernel/stop_machine.c",
    obligation=_OBLIGATION,
)
PAUSE_REMOTE = NamedPolicy(
    "pause-remote",
    "the others stand still while an entry changes and INVLPGB tells their TLBs",
    PauseRemote,
    grain=Grain.STEPWISE,
    source="arm64 series for HVO that pauses remote CPUs, 2024",
    obligation=_OBLIGATION,
    hardware=with_invlpgb,
)
