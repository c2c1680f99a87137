"""What tells versions of a translation apart: what verdicts on a use of one can depend on."""

from __future__ import annotations

from typing import NamedTuple

from emu.addr import Pfn
from emu.memory import Moment
from emu.paging.walk import Rights
from hvolab.judge.sight.frames import Lost


class VersionFacts(NamedTuple):
    """What verdicts on a use can depend on, beside who makes it.

    `leads`: frame, rights, dirty. `lost`, `table`: the data frame, and a page-table page with its frame, that
    was lost meanwhile. `ended`: the store that ended the version, which says whose it was and what covers it.
    """

    leads: tuple[int, Rights, bool] | None
    lost: Lost | None = None
    table: tuple[Pfn, Lost] | None = None
    ended: Moment | None = None

    def is_as_good_as(self, now: VersionFacts) -> bool:
        """Whether it leads where a walk would, with its rights, and neither through what somebody has lost.

        Then it does not matter what ended it. A walk made now reads tables that an older one has read before
        they were lost.
        """
        mine, walks = (self.lost, self.table), now.table
        return self.leads == now.leads and mine == (None, None) and walks is None
