"""Known findings: violations that exploration shows in the unmodified port, because the revision has them.

Or because a reader of another release runs against it: then `source` says so. They are results, not false
alarms; docs/findings.md analyses each under its name, which two may share. Tests fail on a finding of the
unmodified port that is not listed, and on a listed one that occurs no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvolab.verdict import Finding, Verdict


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """It shows in explorations of `scenario`, as `verdict`, in `code`. `source`: the kernel's lines."""

    name: str
    scenario: str
    verdict: Verdict
    code: str
    source: str
    fixed_by: str


KNOWN: tuple[KnownFinding, ...] = (
    KnownFinding(
        "fake-head test before the count",
        "unfreeze-get-page",
        Verdict.WRITE_PROTECT,
        "get_page_unless_zero",
        "include/linux/page_ref.h, page_ref_add_unless() of v6.10 to v6.14",
        "reading the count first, with acquire, then testing for a fake head (2025, page_count_writable())",
    ),
    KnownFinding(
        "new translation, then the old one",
        "optimize-compound-head",
        Verdict.WRONG_METADATA,
        "compound_head",
        "include/linux/page-flags.h, page_fixed_fake_head(): three loads that need not use one translation",
        "nothing in this revision; v7.1 has no fake heads",
    ),
    KnownFinding(
        "new translation, then the old one",
        "optimize-kpageflags",
        Verdict.WRONG_METADATA,
        "kpageflags",
        "fs/proc/page.c, stable_page_flags(): page_folio() of a page it has no reference on",
        "nothing in this revision; v7.1 has no fake heads",
    ),
    KnownFinding(
        "reader outside of RCU",
        "freeze-get-page-v6-9",
        Verdict.WRITE_PROTECT,
        "get_page_unless_zero_v6_9",
        "include/linux/page_ref.h, page_ref_add_unless() up to v6.9, on the port of v6.12",
        "bd225530a4c7 (v6.10): an RCU section and a fake-head test in the reader, an RCU wait in HVO",
    ),
)


def known(scenario: str, finding: Finding) -> KnownFinding | None:
    """The known finding that this one is, if it is one."""
    for one in KNOWN:
        if (one.scenario, one.verdict, one.code) == (scenario, finding.verdict, finding.where.code):
            return one
    return None
