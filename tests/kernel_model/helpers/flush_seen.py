"""What was flushed in a lab, in short."""

from __future__ import annotations

from hvo_lab import PAGE, Lab

from emu.events import Invalidated
from emu.paging.tlb import InvalidateAll, Invlpg
from kernel_model.core.events import FlushBegun
from kernel_model.core.sites import FlushSite

EVERYWHERE = (0, 1 << 64)


def flushed(lab: Lab) -> list[tuple[FlushSite, int | None]]:
    """Each request by its place and how many pages it is for; None: for all."""
    return [
        (one.site, None if (one.start, one.end) == EVERYWHERE else (one.end - one.start) // PAGE)
        for one in lab.heard(FlushBegun)
    ]


def dropped(lab: Lab, cpu: int) -> list[int | None]:
    """What a CPU invalidates, in pages; None: everything."""
    told: list[int | None] = []
    for event in lab.seen(Invalidated):
        if event.cpu == cpu:
            match event.what:
                case InvalidateAll():
                    told.append(None)
                case Invlpg(pages=pages):
                    told.append(pages)
    return told
