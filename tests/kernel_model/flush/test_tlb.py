"""What the port says to a policy, place by place."""

from __future__ import annotations

import pytest
from hvo_lab import PAGE, REGION, Lab, lab_2m

from emu.cpu.ops import Annotate
from kernel_model.core.sites import FlushSite
from kernel_model.flush.policy import NamedPolicy, Pages, StaleRange, Ticket
from kernel_model.flush.upstream import UpstreamFlush


class Tells(UpstreamFlush):
    """As upstream, and puts into the trace what it is asked."""

    async def issue(self, stale: StaleRange) -> None:
        await Annotate(("issue", stale))

    async def dispatch(self, stale: StaleRange) -> Ticket:
        await Annotate(("dispatch", stale))
        return await super().dispatch(stale)

    async def release(self, ticket: Ticket | None, pages: Pages) -> None:
        await Annotate(("release", ticket is None))
        await super().release(ticket, pages)


TELLS = NamedPolicy("tells", "says what it is asked", Tells)


def asked(lab: Lab) -> list[tuple[str, object]]:
    """Verb, and what of the folio's PMD, (first, end) in pages; None: everywhere."""
    found: list[tuple[str, object]] = []
    pmd = lab.config.huge_pages[0].folio & ~(REGION - 1)
    for verb, what in lab.heard(tuple):
        if isinstance(what, StaleRange):
            pages = ((what.start - pmd) // PAGE, (what.end - pmd) // PAGE)
            found.append((verb, (what.site, None if what.everywhere else pages)))
        else:
            found.append((verb, what))
    return found


PMD, FOLIO = (0, 512), (256, 264)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "optimize",
            [
                ("dispatch", (FlushSite.SPLIT, PMD)),
                ("dispatch", (FlushSite.REMAP, FOLIO)),
                ("release", True),
            ],
        ),
        ("restore", [("dispatch", (FlushSite.RESTORE, FOLIO))]),
        (
            "optimize_list",
            [
                ("issue", (FlushSite.SPLIT_OF_BATCH, PMD)),
                ("dispatch", (FlushSite.BATCH_SPLIT, None)),
                ("issue", (FlushSite.REMAP_OF_BATCH, FOLIO)),
                ("dispatch", (FlushSite.BATCH_REMAPPED, None)),
                ("release", False),
            ],
        ),
        (
            "restore_list",
            [("issue", (FlushSite.RESTORE_OF_BATCH, FOLIO)), ("dispatch", (FlushSite.BATCH_RESTORED, None))],
        ),
    ],
)
def test_every_change_and_every_flush_of_the_file_is_told_by_its_place(
    call: str, told: list[tuple[str, object]]
) -> None:
    lab = lab_2m(cpus=2, policy=TELLS)
    huge = lab.config.huge_pages[0]
    if call == "restore":
        lab.optimize(huge)
    if call == "restore_list":
        lab.optimize_list()
    lab.mark()
    match call:
        case "optimize":
            lab.optimize(huge)
        case "restore":
            lab.restore(huge)
        case "optimize_list":
            lab.optimize_list()
        case _:
            lab.restore_list()
    assert asked(lab) == told
