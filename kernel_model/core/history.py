"""Where a deviation comes from, when it is one that Linux had."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class History:
    """The commit that mended it (12 digits of its id in Linux), its title, its release, and what was seen."""

    commit: str
    title: str
    release: str
    seen: str
