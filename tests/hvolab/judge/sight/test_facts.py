"""When a version is as good as a walk made now."""

from __future__ import annotations

import pytest

from emu.addr import Pfn
from emu.paging.walk import Rights
from hvolab.judge.sight.facts import VersionFacts
from hvolab.judge.sight.frames import Loss, Lost

RIGHTS = Rights(write=True, user=False, execute=False)
LEADS = (5, RIGHTS, True)
LOST = Lost(Loss.FREED, 1, 2)
NOW = VersionFacts(LEADS)


@pytest.mark.parametrize(
    ("version", "now", "as_good"),
    [
        (VersionFacts(LEADS), NOW, True),
        (VersionFacts(LEADS, ended=3), NOW, True),
        (VersionFacts((6, RIGHTS, True)), NOW, False),
        (VersionFacts((5, RIGHTS, False)), NOW, False),
        (VersionFacts(LEADS, lost=LOST), NOW, False),
        (VersionFacts(LEADS, table=(Pfn(7), LOST)), NOW, False),
        (VersionFacts(LEADS), NOW._replace(table=(Pfn(7), LOST)), False),
        (VersionFacts(LEADS), VersionFacts(None), False),
    ],
)
def test_it_is_where_it_leads_to_the_same_and_neither_reads_what_was_lost(
    version: VersionFacts, now: VersionFacts, as_good: bool
) -> None:
    assert version.is_as_good_as(now) is as_good
