"""What `hvolab list` tells, as plain values: index.json beside this is them, so that a list loads no machine.

`python -m hvolab.catalog.listing` writes what the file must hold; a test compares.
"""

from __future__ import annotations

import json
import sys

from hvolab.catalog import SCENARIOS
from hvolab.subject.axes import BUILT_IN, history_of, option_of
from hvolab.subject.scenario import Scenario

SCHEMA = 1


def listing() -> dict[str, object]:
    """As docs/json.md has it."""
    return {
        "schema": SCHEMA,
        "scenarios": [_scenario(one) for one in SCENARIOS],
        "variants": [
            {
                "name": one.name,
                "summary": one.summary,
                "effect": one.effect.name.lower(),
                "commit": None if (history := history_of(one)) is None else history.commit,
            }
            for one in BUILT_IN.variants.things
        ],
        "policies": [
            {
                "name": one.name,
                "summary": one.summary,
                "commit": None if (history := history_of(one)) is None else history.commit,
                "source": one.source,
                "obligation": one.obligation,
            }
            for one in BUILT_IN.policies.things
        ],
        "models": [
            {
                "name": one.name,
                "also": list(BUILT_IN.cpu_models.aliases_of(one.name)),
                "lazy": one.is_lazy,
                "summary": one.summary,
            }
            for one in BUILT_IN.cpu_models.things
        ],
    }


def _scenario(scenario: Scenario) -> dict[str, object]:
    return {
        "name": scenario.name,
        "group": scenario.group.name.lower(),
        "flush": scenario.is_flush_scenario,
        "question": scenario.question,
        "expected": scenario.expected,
        "verdicts": sorted(verdict.value for verdict in scenario.verdicts),
        "cpus_min": scenario.cpus_min,
        "deviations": [
            dict(zip(("option", "name"), option_of(one), strict=True))
            for one in (*(bug.deviation for bug in scenario.bugs), *scenario.costlier)
        ],
    }


def text() -> str:
    """The contents of the file."""
    return json.dumps(listing(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
