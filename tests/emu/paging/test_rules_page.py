"""The page of rules: every number, every flag, and a test for each rule that is modelled."""

from __future__ import annotations

import re
from pathlib import Path

from emu.paging.tlb import Rule

RULES_TESTS = sorted(Path(__file__).parent.glob("test_rules_of_*.py"))
RULES_PAGE = Path(__file__).resolve().parents[3] / "docs" / "hardware-rules.md"


def rows() -> dict[str, str]:
    """The rows of the tables of rules, by number."""
    found = re.findall(r"^\| ([RL]\d+) \| (.*) \|$", RULES_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_page_of_rules_has_every_number_and_every_flag() -> None:
    page = rows()
    assert list(page) == [f"R{n}" for n in range(1, 20)] + [f"L{n}" for n in range(1, 8)]
    for rule in Rule:
        numbers = re.findall(r"R\d+", rule.value.split(":")[0])
        assert numbers, rule
        for number in numbers:
            assert f"`{rule.name}`" in page[number], (rule, number)


def test_every_rule_that_is_modelled_has_a_test_with_its_number() -> None:
    tested = {
        number
        for path in RULES_TESTS
        for name in re.findall(r"^def test_(r\d+(?:_r\d+)*)_", path.read_text(encoding="utf-8"), re.MULTILINE)
        for number in name.split("_")
    }
    modelled = {
        number.lower()
        for number, row in rows().items()
        if number.startswith("R") and not row.split(" | ")[-1].startswith("not modelled")
    }
    assert modelled <= tested
    assert modelled == {f"r{n}" for n in range(1, 19)}
