"""Files as a user writes them, put into a directory."""

from __future__ import annotations

import textwrap
from pathlib import Path

PATCH = """
from hvolab.api import HugetlbVmemmap, WalkFlag, replace

class Patch(HugetlbVmemmap):
    async def vmemmap_remap_range(self, start, end, walk):
        walk = replace(walk, flags=walk.flags | WalkFlag.REMAP_NO_TLB_FLUSH)
        return await super().vmemmap_remap_range(start, end, walk)
"""


def written(directory: Path, source: str, name: str = "mine.py") -> Path:
    """The file, with that source."""
    path = directory / name
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return path


def overriding(body: str) -> str:
    """A variant whose vmemmap_remap_range() has that body."""
    indented = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    return (
        "import types\nfrom hvolab.api import *\n\n\nclass Patch(HugetlbVmemmap):\n"
        f"    async def vmemmap_remap_range(self, start, end, walk):\n{indented}\n"
    )
