"""What `--json` prints, schema 1 (hvolab/schema/*.json). Addresses and frame numbers are hexadecimal text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from hvolab.dump.compare import Difference
from hvolab.explore.explorer import Exploration
from hvolab.explore.retell.shrink import switches
from hvolab.judge.verdict import Finding, Use
from hvolab.judge.why import Explanation
from hvolab.show.report import Invocation
from hvolab.subject.outcome import Run

SCHEMA = 1


def run_json(invocation: Invocation, run: Run) -> dict[str, object]:
    replay = invocation.replay(run.schedule)
    return {
        "schema": SCHEMA,
        "scenario": invocation.scenario.name,
        "policy": run.system.config.policy.name,
        "variant": run.system.config.variant.name,
        "cpu_model": run.system.config.model.name,
        "cpus": invocation.cpus,
        "schedule": str(run.schedule),
        "replay": replay,
        "outcome": str(run.outcome),
        "costs": asdict(run.costs),
        "uses": [_use(use) for use in run.uses],
        "findings": [_finding(finding, replay) for finding in run.findings],
    }


def explore_json(invocation: Invocation, done: Exploration) -> dict[str, object]:
    coverage = done.coverage
    return {
        "schema": SCHEMA,
        "scenario": invocation.scenario.name,
        "coverage": {
            "text": str(coverage),
            "extent": coverage.extent,
            "complete": coverage.complete,
            "stopped_by": coverage.stopped_by,
            "freedoms": sorted(freedom.value for freedom in coverage.freedoms),
            "cpus": coverage.cpus,
            "actors": sorted(coverage.actors),
            "schedules": coverage.schedules,
            "seen_before": coverage.seen_before,
            "states": coverage.remembered.states,
            "steps": coverage.steps,
            "saved": coverage.saved,
            "longest": coverage.longest,
            "cut_off": coverage.cut_off,
            "cut_at": coverage.cut_at,
            "no_progress": coverage.no_progress,
            "deadlocks": coverage.deadlocks,
            "redundant": coverage.redundant,
            "learning": coverage.learning,
            "distinct_schedules": coverage.distinct_schedules,
            "distinct_states": coverage.distinct_states,
        },
        "findings": [
            {
                **_finding(one.finding, invocation.replay(one.schedule)),
                "at_run": one.at_run,
                "switches": switches(one.schedule),
                "script": [str(constraint) for constraint in one.script],
            }
            for one in done.found
        ],
        "warnings": list(done.warnings),
    }


def why_json(invocation: Invocation, explained: Sequence[Explanation], replay: str) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "scenario": invocation.scenario.name,
        "replay": replay,
        "findings": [_explanation(one) for one in explained],
    }


def _explanation(one: Explanation) -> dict[str, object]:
    ender = one.ended_by
    return {
        "verdict": one.told.verdict.value,
        "event": one.told.event,
        "cpu": one.told.where.cpu,
        "va": f"{one.told.where.va:#x}",
        "rule": one.rule,
        "version": one.version,
        "window_since": one.window,
        "ended_by": None
        if ender is None
        else {
            "event": ender.event,
            "cpu": ender.cpu,
            "where": ender.where,
            "before": f"{ender.before:#x}",
            "after": f"{ender.after:#x}",
        },
        "flushes": [
            {
                "function": flush.function,
                "cpu": flush.cpu,
                "begun": flush.begun,
                "completed": flush.completed,
                "covers": flush.covers,
                "because": flush.because,
            }
            for flush in one.flushes
        ],
    }


def compare_json(differences: Sequence[Difference]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "differences": [
            {"where": one.where, "field": one.field, "left": one.left, "right": one.right}
            for one in differences
        ],
    }


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _use(use: Use) -> dict[str, object]:
    return {
        "verdict": use.verdict.value,
        "also": [verdict.value for verdict in use.also],
        "cpu": use.where.cpu,
        "va": hex(use.where.va),
        "access": use.access,
        "event": use.event,
        "pfn": hex(use.pfn),
        "current_pfn": _hex(use.current_pfn),
        "code": use.where.code,
        "instruction": use.where.instruction,
        "rip": _hex(use.where.rip),
        "times": use.times,
        "why": list(use.why),
    }


def _finding(finding: Finding, replay: str) -> dict[str, object]:
    return {
        "verdict": finding.verdict.value,
        "also": [verdict.value for verdict in finding.also],
        "cpu": finding.where.cpu,
        "va": hex(finding.where.va),
        "cr2": _hex(finding.cr2),
        "error_code": finding.error_code,
        "pfn": _hex(finding.pfn),
        "code": finding.where.code,
        "instruction": finding.where.instruction,
        "rip": _hex(finding.where.rip),
        "event": finding.event,
        "cause": finding.cause,
        "guilty": finding.guilty or None,
        "why": list(finding.why),
        "log": list(finding.lines),
        "replay": replay,
    }
