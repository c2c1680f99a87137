"""Known findings: violations that exploration shows in the unmodified port, because the revision has them.

Or because a reader of another release runs against it: then `source` says so. They are results, not false
alarms; docs/findings.md analyses each under its name, which two may share. Tests fail on a finding of the
unmodified port that is not listed, and on a listed one that occurs no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from hvolab.judge.verdict import Finding, Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """It shows in explorations of `scenario`, as `verdict`, in `code` ("" for what is found at rest)."""

    scenario: str
    verdict: Verdict
    code: str


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """A weakness of the revision. `source`: the kernel's lines.

    `seen_on`: the releases on whose real kernels it was brought about, in a guest, by holding one CPU where
    the order needs it. Empty: not seen there, because it was not tried or could not be.

    `shown` is empty for what only random programs of pool operations show
    (tests/hvolab/variants/test_pool_property).
    """

    name: str
    source: str
    fixed_by: str
    shown: tuple[Shown, ...]
    seen_on: tuple[str, ...] = ()


KNOWN: tuple[KnownFinding, ...] = (
    KnownFinding(
        "fake-head test before the count",
        "include/linux/page_ref.h, page_ref_add_unless() of v6.10 to v6.14",
        "reading the count first, with acquire, then testing for a fake head (2025, page_count_writable())",
        (Shown("unfreeze-get-page", Verdict.WRITE_PROTECT, "get_page_unless_zero"),),
        ("6.12.95",),
    ),
    KnownFinding(
        "new translation, then the old one",
        "include/linux/page-flags.h, page_fixed_fake_head(), and fs/proc/page.c, stable_page_flags(): loads"
        " of one page that need not use one translation",
        "nothing in this revision; v7.1 has no fake heads",
        (
            Shown("optimize-compound-head", Verdict.WRONG_METADATA, "compound_head"),
            Shown("optimize-kpageflags", Verdict.WRONG_METADATA, "kpageflags"),
        ),
    ),
    KnownFinding(
        "a fake head that becomes a tail between two loads",
        "include/linux/page-flags.h, compound_head(): the word +8, then page_fixed_fake_head() and the flags",
        "nothing in this revision; v7.1 has no fake heads",
        (Shown("key-restore", Verdict.WRONG_METADATA, "compound_head"),),
        ("6.12.95",),
    ),
    KnownFinding(
        "reader outside of RCU",
        "include/linux/page_ref.h, page_ref_add_unless() up to v6.9, on the port of v6.12",
        "bd225530a4c7 (v6.10): an RCU section and a fake-head test in the reader, an RCU wait in HVO",
        (Shown("freeze-get-page-v6-9", Verdict.WRITE_PROTECT, "get_page_unless_zero_v6_9"),),
    ),
    KnownFinding(
        "a memory error between the copy and the flush",
        "mm/hugetlb_vmemmap.c, vmemmap_remap_free(): the head page is copied, then remapped, then flushed;"
        " mm/memory-failure.c, __get_huge_page_for_hwpoison(): MF_NO_RETRY keeps the error with a busy folio",
        "nothing known",
        (
            Shown("grow-memory-failure", Verdict.LOST_UPDATE, "folio_set_hugetlb_hwpoison"),
            Shown("grow-memory-failure", Verdict.KERNEL, ""),
            Shown("error-while-growing", Verdict.LOST_UPDATE, "folio_set_hugetlb_hwpoison"),
            Shown("error-while-growing", Verdict.KERNEL, ""),
            Shown("demote-memory-failure", Verdict.LOST_UPDATE, "folio_set_hugetlb_hwpoison"),
        ),
        ("6.12.95",),
    ),
    KnownFinding(
        "a memory error in a page that is being demoted",
        "mm/hugetlb.c, demote_free_hugetlb_folios() of v6.12: prep_compound_page(), then"
        " init_new_hugetlb_folio(), without hugetlb_lock",
        "nothing known",
        (
            Shown("demote-memory-failure", Verdict.KERNEL, ""),
            Shown("demote-memory-failure", Verdict.LOST_UPDATE, "memory_failure"),
            Shown("demote-memory-failure", Verdict.WRITE_PROTECT, "memory_failure"),
        ),
        ("6.12.95",),
    ),
    KnownFinding(
        "a memory error in a block that is allocated and not hugetlb yet",
        "mm/memory-failure.c: what is not hugetlb under the lock is marked in its own struct page, later",
        "nothing known",
        (),
        ("6.12.95",),
    ),
    KnownFinding(
        "a surplus page is demoted",
        "mm/hugetlb.c, demote_pool_huge_page() of v6.12: remove_hugetlb_folio(src, folio, false)",
        "nothing known",
        (),
        ("6.12.95", "6.12.117", "7.3.4"),
    ),
    KnownFinding(
        "a page without HVO is restored",
        "mm/hugetlb.c, bulk_vmemmap_restore_error(): restores also what is hugetlb no more",
        "nothing known",
        (),
        ("6.12.95",),
    ),
)


def known(scenario: str, finding: Finding) -> KnownFinding | None:
    """The known finding that this one is, if it is one."""
    shown = Shown(scenario, finding.verdict, finding.where.code)
    return next((one for one in KNOWN if shown in one.shown), None)


def known_in(scenario: str) -> tuple[KnownFinding, ...]:
    """Those that a scenario shows."""
    return tuple(one for one in KNOWN if any(shown.scenario == scenario for shown in one.shown))
