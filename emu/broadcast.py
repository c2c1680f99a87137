"""INVLPGB and TLBSYNC: invalidations that hardware carries to all CPUs, with nobody interrupted (rule R14).

Between the INVLPGB and the TLBSYNC of the CPU that executed it, any CPU may have carried it out or not. So
it is carried out at the TLBSYNC, as of the moment of the INVLPGB: until then the old translations may be
used, as may the new ones (R1), and afterwards none that had ended before it was executed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from emu.events import BroadcastCompleted, BroadcastSent, Site
from emu.kept import Kept
from emu.mmu import Mmu
from emu.paging.tlb import Broadcast, Invlpg
from emu.trace import Trace


class _Sent(NamedTuple):
    """An INVLPGB. `begun`: its event; `places`: by CPU, where it stands among what that TLB carried out."""

    what: Broadcast
    begun: int
    places: tuple[int, ...]


class Broadcasts(Kept):
    """Those of the CPUs with these MMUs, which are all of one model."""

    kept = ("_pending",)

    def __init__(self, mmus: tuple[Mmu, ...], trace: Trace) -> None:
        self._mmus = mmus
        self._trace = trace
        self._pending: dict[int, list[_Sent]] = {}  # by the CPU that executed them

    def reset(self) -> None:
        """None is under way."""
        self._pending.clear()

    def state(self) -> Hashable:
        """Which are under way. When they were sent is seen in the past of the run."""
        return tuple((cpu, tuple(sent.what for sent in some)) for cpu, some in sorted(self._pending.items()))

    def send(self, cpu: int, site: Site, what: Broadcast) -> None:
        """INVLPGB. Raises ValueError on a CPU that has none, and for more pages than it takes at once."""
        most = self._mmus[cpu].model.invlpgb_count_max
        if not most:
            raise ValueError(f"cpu{cpu} ({self._mmus[cpu].model.name}) has no INVLPGB: #UD")
        if isinstance(what, Invlpg) and not 1 <= what.pages <= most:
            raise ValueError(f"INVLPGB of {what.pages} pages on a CPU that takes 1 to {most} at once: #GP")
        begun = self._trace.add(BroadcastSent(cpu, site, what))
        places = tuple(mmu.tlb.expect(begun) for mmu in self._mmus)
        self._pending.setdefault(cpu, []).append(_Sent(what, begun, places))

    def complete(self, cpu: int, site: Site) -> None:
        """TLBSYNC: all that this CPU has sent. Raises ValueError on a CPU that has none."""
        if not self._mmus[cpu].model.invlpgb_count_max:
            raise ValueError(f"cpu{cpu} ({self._mmus[cpu].model.name}) has no TLBSYNC: #UD")
        event = self._trace.next_number
        sent = self._pending.pop(cpu, [])
        for one in sent:
            for mmu, place in zip(self._mmus, one.places, strict=True):
                mmu.carry_out(one.what, place, event)
        begun = tuple(one.begun for one in sent)
        self._trace.add(BroadcastCompleted(cpu, site, begun, tuple(one.what for one in sent)))
