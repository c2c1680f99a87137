"""Pictures of costs: every policy a line, nothing from elsewhere, the same every time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hvolab.cost.chart import Axis, Chart
from hvolab.cost.clock import Reckoned
from hvolab.cost.measure import CostRow
from hvolab.cost.plot import picture
from hvolab.cost.workload import Workload
from kernel_model.mm.hstate import HSTATE_2M


def row(policy: str, cpus: int, cycles: int) -> CostRow:
    return CostRow(policy, Workload(cpus, 1, HSTATE_2M), Reckoned(cycles, 0, 0, 0, 0, 0, 0))


ROWS = (row("one", 2, 3_000), row("<two>", 2, 0), row("one", 4, 6_000), row("<two>", 4, 9_000))
CHARTS = (Chart("a title", Axis.CPUS, ROWS), Chart("another", Axis.BATCH, ROWS[:2]))


def test_a_picture_is_one_svg_that_names_every_policy_and_axis() -> None:
    root = ElementTree.fromstring(picture(CHARTS).encode())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root) == 2
    words = {text.strip() for text in root.itertext()}
    assert {"a title", "another", "CPUs", "batch", "one", "<two>", "2", "4"} <= words


def test_a_picture_needs_nothing_from_elsewhere() -> None:
    text = picture(CHARTS)
    assert "<script" not in text
    links = set(re.findall(r'(?:href|src|url)[=(]"?([^")\s]+)', text))
    assert {link for link in links if not link.startswith("#")} == set()


def test_the_same_rows_make_the_same_picture() -> None:
    assert picture(CHARTS) == picture(CHARTS)
