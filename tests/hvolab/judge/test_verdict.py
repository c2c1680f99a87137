"""Verdicts: their order, and which are violations."""

from __future__ import annotations

import re
from pathlib import Path

from hvolab.judge.verdict import RULES, Verdict

PAGE = Path(__file__).resolve().parents[3] / "docs" / "verdicts.md"


def test_a_violation_is_called_one_and_nothing_else_is() -> None:
    called = {verdict for verdict in Verdict if verdict.value.startswith("violation: ")}
    assert {verdict for verdict in Verdict if verdict.is_violation} == called
    assert len(called) == 9


def test_verdicts_are_tried_in_the_order_of_the_page() -> None:
    table = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [verdict.value for verdict in Verdict]


def test_every_verdict_has_a_rule_with_its_row() -> None:
    rows = [int(re.match(r"row (\d):", RULES[verdict])[1]) for verdict in Verdict]  # type: ignore[index]
    assert rows == sorted(rows)
    assert set(rows) == set(range(1, 10))
