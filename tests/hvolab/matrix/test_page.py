"""The page: every cell with what is behind it, in a browser too, and no text of a user's as markup."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hvolab.judge.verdict import Verdict
from hvolab.matrix.cell import Cell, CellCoverage, CellDone
from hvolab.matrix.page import page_of
from hvolab.matrix.view import letter
from hvolab.subject.costs import Costs

COVERED = CellCoverage("exhaustive over {schedule} at 2 CPUs: 7 schedules", "", 7, 20)
SAFE = CellDone(Cell("upstream", "flush-reader", "lazy", 2), "a", (), COVERED, Costs(1, 2, 3))
WRONG = CellDone(
    Cell("never", "flush-reader", "lazy", 2),
    "b",
    (Verdict.MISSED_FLUSH, Verdict.USE_AFTER_FREE),
    replace(COVERED, text="exhaustive, too"),
    Costs(1, 2),
    "hvolab run flush-reader --policy never --schedule 'v2 @1 0*3 1'",
)
OPEN = replace(
    SAFE, cell=Cell("latr", "flush-reader", "lazy", 2), coverage=replace(COVERED, stopped_by="3 s")
)
NOT_ASKED = CellDone(Cell("upstream", "big", "lazy", 1), "", reason="it has actors on 2 CPUs")
OTHER_CPU = replace(SAFE, cell=Cell("upstream", "flush-reader", "amd", 2))
ALL = (SAFE, WRONG, OPEN, NOT_ASKED, OTHER_CPU)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Links(HTMLParser):
    """What a cell's link says, and where links lead; the ids; what would be fetched from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self._href: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self._href = given.get("href") if tag == "a" else None
        self.ids += [given["id"] or ""] if "id" in given else []
        if tag in ("script", "link", "img", "iframe") or "src" in given:
            self.fetched.append(tag)

    def handle_data(self, data: str) -> None:
        if self._href is not None:
            self.cells.append((data, self._href))
            self._href = None


def test_each_cell_has_its_letter_and_leads_to_what_is_behind_it() -> None:
    page = Links(page_of(ALL, 5))
    assert sorted(letters for letters, _ in page.cells) == sorted(letter(done) for done in ALL)
    assert sorted(href for _, href in page.cells) == sorted(f"#{one}" for one in page.ids)
    assert len(set(page.ids)) == len(ALL)


def test_the_page_needs_no_other_file() -> None:
    assert Links(page_of(ALL, 5)).fetched == []


@pytest.mark.parametrize(
    "text",
    [
        "violation: missed-flush, violation: use-after-free",
        "hvolab run flush-reader --policy never --schedule 'v2 @1 0*3 1'",
        "exhaustive over {schedule} at 2 CPUs: 7 schedules",
        "it has actors on 2 CPUs",
        "1 RCU wait, 2 flushes, 3 interrupts taken",
        "Covered: 3 of 5 cells to their end; 1 stopped by 3 s.",
    ],
)
def test_what_is_behind_a_cell_is_told(text: str) -> None:
    assert text in page_of(ALL, 5)


def test_what_a_user_calls_his_policy_is_no_markup() -> None:
    name = "<b onclick=x>&amp;"
    page = page_of((replace(SAFE, cell=Cell(name, "flush-reader", "lazy", 2)),), 1)
    assert "b" not in Links(page).tags
    assert "&lt;b onclick=x&gt;&amp;amp;" in page


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="there is no Chromium to look at it with")
def test_a_browser_shows_a_row_for_each_policy_and_the_colour_of_each_cell(tmp_path: Path) -> None:
    browser = next(found for found in map(shutil.which, BROWSERS) if found is not None)
    asks = """<script>
    const links = [...document.querySelectorAll(".cells a")];
    const colours = links.map(one => one.textContent + getComputedStyle(one).color.replace(/ /g, ""));
    const wide = document.documentElement.scrollWidth <= innerWidth;
    document.title = [document.querySelectorAll(".cells tbody tr").length, wide, ...colours].join(" ");
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(page_of(ALL, 5).replace("</body>", asks + "</body>"), encoding="utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--window-size=800,600",
    )
    shown = subprocess.run(
        [browser, *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    title = shown.stdout.split("<title>")[1].split("</title>")[0].split()
    red, green, amber, grey = "rgb(198,40,40)", "rgb(46,125,50)", "rgb(178,106,0)", "rgb(136,136,136)"
    assert title[:2] == ["4", "true"], "rows of policies; nothing hangs over at 800 pixels"
    assert sorted(title[2:]) == sorted([f".{green}", f"F{red}", f"?{amber}", f"-{grey}", f".{green}"])
