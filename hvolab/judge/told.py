"""What judges have said in one run. What was said before changes no verdict."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

from emu.addr import PAGE_MASK
from emu.kept import Kept
from hvolab.judge.verdict import Finding, Use


def _nobody_is_told() -> None: ...


class Told(Kept):
    """Findings and uses, each kind once: the first of its kind is kept."""

    kept = ("findings", "_uses", "_once")

    def __init__(self, telling: Callable[[], None] = _nobody_is_told) -> None:
        """`telling` is called when something is said."""
        self._telling = telling
        self.findings: list[Finding] = []
        self._uses: dict[tuple[object, ...], Use] = {}
        self._once: set[tuple[object, ...]] = set()

    def state(self) -> Hashable:
        """What keeps a finding from being told again. That a use is not the first of its kind is no loss:
        the first was told in this run.
        """
        findings = ((one.verdict, one.where, one.cause) for one in self.findings)
        return (frozenset(findings), frozenset(self._once))

    @property
    def uses(self) -> tuple[Use, ...]:
        """Those that were not simply right, with how often each was seen."""
        return tuple(self._uses.values())

    def use(self, use: Use) -> bool:
        """Count it with others like it. Returns whether it is the first."""
        self._telling()
        key = (use.verdict, use.also, use.where, use.access, use.pfn, use.current_pfn)
        known = self._uses.get(key)
        self._uses[key] = use if known is None else replace(known, times=known.times + 1)
        return known is None

    def finding(self, finding: Finding) -> None:
        self._telling()
        self.findings.append(finding)

    def once(self, finding: Finding) -> None:
        """What is told once a run for a cause, a CPU and an address: a broken invariant."""
        key = (finding.verdict, finding.cause, finding.where.cpu, finding.where.va)
        self._telling()
        if key not in self._once:
            self._once.add(key)
            self.findings.append(finding)

    def warning(self, finding: Finding) -> None:
        """What the kernel says once a run, whoever comes there first."""
        self._telling()
        if all(finding.cause != one.cause for one in self.findings):
            self.findings.append(finding)

    def unless_known(self, findings: Iterable[Finding]) -> None:
        """Those of a CPU and a page of which nothing has been told yet."""
        known = {(one.where.cpu, one.where.va & ~PAGE_MASK) for one in self.findings}
        for finding in findings:
            if (finding.where.cpu, finding.where.va & ~PAGE_MASK) not in known:
                self.once(finding)
