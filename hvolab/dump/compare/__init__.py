"""How two dumps differ in what matters to HVO: the module to import from. docs/dump-format.md has the
rules."""

from __future__ import annotations

from hvolab.dump.compare.difference import MISSING, Difference
from hvolab.dump.compare.rows import compare

__all__ = ["MISSING", "Difference", "compare"]
