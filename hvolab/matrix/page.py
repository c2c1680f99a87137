"""A matrix as one HTML file that needs nothing else: a cell a square, and what is behind it.

Built as a tree of elements, so that no text of a user's file becomes markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from hvolab.matrix.cell import CellDone
from hvolab.matrix.view import NOTHING, cost_rows, coverage_of, legend, letter

_STYLE = """
:root { color-scheme: light dark; --ok: #2e7d32; --bad: #c62828; --open: #b26a00; --line: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .2rem .5rem; text-align: left; }
.cells td { text-align: center; border: 1px solid var(--line); }
.cells thead th { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: normal; }
.cells a, .cells span { display: block; min-width: 1.2rem; font-weight: bold; text-decoration: none; }
.ok { color: var(--ok); } .bad { color: var(--bad); } .open { color: var(--open); } .none { color: #888; }
.numbers td { text-align: right; font-variant-numeric: tabular-nums; }
code { display: block; overflow-x: auto; padding: .4rem; background: #8882; white-space: pre; }
article { border-left: 3px solid var(--line); padding-left: .8rem; margin: 1rem 0; }
article:target { border-color: currentColor; }
"""


def page_of(cells: Sequence[CellDone], asked: int) -> str:
    """Of those cells, in the order of `asked` for."""
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    SubElement(head, "title").text = "Flush policies"
    SubElement(head, "style").text = _STYLE
    body = SubElement(html, "body")
    SubElement(body, "h1").text = "Flush policies beside scenarios"
    SubElement(body, "p").text = f"Covered: {coverage_of(cells, asked)}."
    _add_legend(body, cells)
    for model in dict.fromkeys(done.cell.cpu_model for done in cells):
        _add_model(body, model, [done for done in cells if done.cell.cpu_model == model])
    _add_costs(body, cells)
    _add_details(body, cells)
    return "<!doctype html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _class(done: CellDone) -> str:
    if done.verdicts or done.failed:
        return "bad"
    if done.reason:
        return "none"
    return "ok" if letter(done) == NOTHING else "open"


def _anchor(done: CellDone) -> str:
    cell = done.cell
    return f"{cell.cpu_model}/{cell.policy}/{cell.scenario}"


def _add_legend(body: Element, cells: Sequence[CellDone]) -> None:
    table = SubElement(body, "table")
    for one, means in legend(cells):
        row = SubElement(table, "tr")
        SubElement(row, "th").text = one
        SubElement(row, "td").text = means


def _add_model(body: Element, model: str, cells: Sequence[CellDone]) -> None:
    SubElement(body, "h2").text = f"CPUs: {model}"
    table = SubElement(SubElement(body, "div", {"class": "wide"}), "table", {"class": "cells"})
    scenarios = [*dict.fromkeys(done.cell.scenario for done in cells)]
    by_place = {(done.cell.policy, done.cell.scenario): done for done in cells}
    top = SubElement(SubElement(table, "thead"), "tr")
    SubElement(top, "td")
    for scenario in scenarios:
        SubElement(top, "th", scope="col").text = scenario
    rows = SubElement(table, "tbody")
    for policy in dict.fromkeys(done.cell.policy for done in cells):
        row = SubElement(rows, "tr")
        SubElement(row, "th", scope="row").text = policy
        for scenario in scenarios:
            place = SubElement(row, "td")
            done = by_place.get((policy, scenario))
            if done is not None:
                said = {"class": _class(done), "href": f"#{_anchor(done)}", "title": done.verdict}
                SubElement(place, "a", said).text = letter(done)


def _add_costs(body: Element, cells: Sequence[CellDone]) -> None:
    SubElement(body, "h2").text = "What it costs, counted in one run of each scenario"
    table = SubElement(SubElement(body, "div", {"class": "wide"}), "table", {"class": "numbers"})
    for number, texts in enumerate(cost_rows(cells)):
        row = SubElement(table, "tr")
        for place, text in enumerate(texts):
            SubElement(row, "th" if number == 0 or place == 0 else "td").text = text


def _add_details(body: Element, cells: Sequence[CellDone]) -> None:
    SubElement(body, "h2").text = "Cell by cell"
    for done in cells:
        article = SubElement(body, "article", id=_anchor(done))
        title = f"{done.cell.policy} on {done.cell.scenario}, {done.cell.cpus} CPUs ({done.cell.cpu_model})"
        SubElement(article, "strong").text = title
        for text in _told(done):
            SubElement(article, "div").text = text
        if done.replay:
            SubElement(article, "code").text = done.replay


def _told(done: CellDone) -> Iterator[str]:
    if done.failed or done.reason:
        yield done.error or done.reason
        return
    yield ", ".join(verdict.value for verdict in done.verdicts) or done.verdict
    yield done.coverage.text
    yield str(done.costs)
