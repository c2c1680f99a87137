"""Addresses at the edge of the lower half."""

from __future__ import annotations

from paging_rig import VA

FIRST_NOT = 0x0000_8000_0000_0000
STACK = int(VA) + 0x800
