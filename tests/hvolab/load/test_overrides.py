"""What overrides nothing, or cannot be called as the original is, is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from user_files import written

from hvolab.load.overrides import functions_of, overridden
from hvolab.load.user_file import load
from hvolab.subject.blame import LoadError
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap

REMAP = "vmemmap_remap_range"
OVER_THE_PORT = "from hvolab.api import *\nclass P(HugetlbVmemmap):\n"


class _Another(HugetlbVmemmap):
    async def vmemmap_remap_range(self, start: object, end: object, walk: object) -> int:  # type: ignore[override]
        return 0

    async def one_more(self) -> None: ...


def test_what_is_overridden_is_what_the_original_has() -> None:
    assert overridden(_Another, HugetlbVmemmap) == {REMAP}
    assert overridden(HugetlbVmemmap, HugetlbVmemmap) == frozenset()
    assert set(functions_of(_Another)) == {*functions_of(HugetlbVmemmap), "one_more"}
    assert set(functions_of(_Another, __name__)) == {REMAP, "one_more"}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            OVER_THE_PORT + "  def vmemmap_remap_range(self, a, b, c): pass",
            "mine.py:3: P.vmemmap_remap_range must be an async function, as the one it stands for",
        ),
        (
            OVER_THE_PORT + "  async def vmemmap_remap_range(self, a): pass",
            "mine.py:3: P.vmemmap_remap_range takes 1 arguments; it is called with 3",
        ),
        (
            "from hvolab.api import *\nclass P(FlushPolicy):\n  async def rely(self, ticket): pass",
            "mine.py: P has no dispatch",
        ),
        (
            "from hvolab.api import *\nclass P:\n  async def flush_tlb_all(self): pass",
            "mine.py: P is no flush policy: it has to be a class over FlushPolicy or UpstreamFlush",
        ),
        (OVER_THE_PORT + "  pass", "mine.py: P overrides nothing of HugetlbVmemmap"),
        (
            OVER_THE_PORT + "  async def vmemap_remap_range(self, a, b, c): pass",
            f"mine.py:3: P.vmemap_remap_range is no function of HugetlbVmemmap; did you mean {REMAP}?",
        ),
        (
            OVER_THE_PORT + "  async def vmemmap_remap_range(self, a, b, c, *, d): pass",
            "mine.py:3: P.vmemmap_remap_range needs d by name, which no caller gives",
        ),
        (OVER_THE_PORT + "  vmemmap_remap_range = None", "mine.py: P has no function vmemmap_remap_range"),
    ],
)
def test_a_class_that_cannot_stand_for_the_original_is_one_line(
    tmp_path: Path, source: str, said: str
) -> None:
    with pytest.raises(LoadError) as raised:
        load(str(written(tmp_path, source)))
    assert str(raised.value) == said
