"""Costs as a picture: a line for each policy, against CPUs and against the size of the batch."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pygal
from pygal.style import CleanStyle

from hvolab.cost.chart import Chart
from hvolab.cost.documented import CYCLES_A_MICROSECOND

_SCRIPTS = re.compile(r"<!--.*?-->|<script.*?</script>", re.DOTALL)
_WIDTH, _HEIGHT = 900, 520  # of one chart, in pixels


def picture(charts: Sequence[Chart]) -> str:
    """An SVG of them, below each other. The y axis is logarithmic: microseconds of all CPUs together."""
    placed = "".join(
        f'<svg y="{number * _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}">{_drawn(number, chart)}</svg>'
        for number, chart in enumerate(charts)
    )
    size = f'width="{_WIDTH}" height="{_HEIGHT * len(charts)}"'
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f'{head}\n<svg xmlns="http://www.w3.org/2000/svg" {size}>{placed}</svg>\n'


def _drawn(number: int, chart: Chart) -> str:
    # No script: it is looked at without a network as well. Nothing of chance or date: the same rows, the same
    # file.
    line = pygal.Line(
        js=[],
        style=CleanStyle,
        logarithmic=True,
        explicit_size=True,
        width=_WIDTH,
        height=_HEIGHT,
        title=chart.title,
        x_title=chart.axis.value,
        y_title="µs of all CPUs",
        legend_at_bottom=True,
        disable_xml_declaration=True,
        no_prefix=True,
    )
    line.uuid = f"costs-{number}"
    places = sorted({chart.place(row) for row in chart.rows})
    line.x_labels = [str(place) for place in places]
    for policy in dict.fromkeys(row.policy for row in chart.rows):
        total = {chart.place(row): row.reckoned.total for row in chart.rows if row.policy == policy}
        # A logarithm has no place for nothing.
        found = [total.get(place, 0) / CYCLES_A_MICROSECOND or None for place in places]
        line.add(policy, found)
    return _SCRIPTS.sub("", str(line.render(is_unicode=True)))
