"""Verdicts, and what decides each: the vocabulary of every finding (docs/verdicts.md).

A *use* is one CPU's access to one 4 KiB page. It is *stale* when the version of the translation it used is
not the current one. The first verdict below that holds is the verdict of a use; others are `also`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from emu.paging.tlb import TlbEntry


class Verdict(Enum):
    """In the order in which they are tried."""

    MODEL_ERROR = "model error"
    TLB_MULTIHIT = "violation: tlb-multihit"
    LIVE_CHANGE = "violation: live-change"
    MISSED_FLUSH = "violation: missed-flush"
    USE_AFTER_FREE = "violation: use-after-free"
    LOST_UPDATE = "violation: lost-update"
    WRITE_PROTECT = "violation: write-protect"
    SPURIOUS = "spurious"
    OWN_TEXT = "the program's own text"
    WRONG_METADATA = "violation: wrong-metadata"
    KERNEL = "violation: kernel"
    OWN_JUDGE = "violation: own judge"
    EQUIVALENT = "equivalent"
    LEGAL = "legal"

    @property
    def is_violation(self) -> bool:
        """Whether the kernel, or the CPU, is at fault: not the emulation, and not nobody."""
        return self not in _NO_VIOLATION


_NO_VIOLATION = frozenset(
    {Verdict.MODEL_ERROR, Verdict.SPURIOUS, Verdict.OWN_TEXT, Verdict.EQUIVALENT, Verdict.LEGAL}
)


@dataclass(frozen=True, slots=True)
class Where:
    """Who and where: the CPU, its code, and the address. `rip` is None in kernel routines."""

    cpu: int
    va: int
    code: str
    instruction: str | None
    rip: int | None


@dataclass(frozen=True, slots=True)
class Use:
    """A use that was not simply right, with what made it so. `times`: how often the same was seen.

    `used` is the translation, that of the first of them.
    """

    verdict: Verdict
    also: tuple[Verdict, ...]
    where: Where
    event: int
    access: str
    pfn: int
    current_pfn: int | None
    why: tuple[str, ...]
    times: int = 1
    used: TlbEntry | None = None


@dataclass(frozen=True, slots=True)
class TlbRow:
    """One translation beside the page table, for display. `cpu` is None for the page table's own."""

    cpu: int | None
    page: int
    text: str
    stale: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong (a violation, a model error) or worth showing (spurious, legal).

    `cr2` and `error_code` are there for page faults, `lines` where the kernel logged something, `cause` is
    one sentence, `why` the steps behind it, `tlbs` the translations of the page at that moment, `used` the
    translation that was used, `guilty` who made the store that ended it: several findings may have one.
    """

    verdict: Verdict
    also: tuple[Verdict, ...]
    where: Where
    event: int
    cause: str
    why: tuple[str, ...]
    pfn: int | None = None
    cr2: int | None = None
    error_code: int | None = None
    lines: tuple[str, ...] = ()
    tlbs: tuple[TlbRow, ...] = ()
    used: TlbEntry | None = None
    guilty: str = ""


RULES: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.MODEL_ERROR: "row 1: an invalidation on this CPU must have removed the entry (R4, R8 to R12)",
        Verdict.TLB_MULTIHIT: "row 2: two sizes cached for one address, which this CPU model forbids (R5)",
        Verdict.LIVE_CHANGE: (
            "row 2: an entry in use got another frame or size without having been made not present, and "
            "flushed, before, which this CPU model forbids"
        ),
        Verdict.MISSED_FLUSH: (
            "row 3: a flush that began after the store and has the page in its range is complete, or the "
            "operation that owed one has returned without it (L1), and the entry is still used"
        ),
        Verdict.USE_AFTER_FREE: "row 4: the frame was freed after the translation used was installed",
        Verdict.LOST_UPDATE: (
            "row 5: the store went to a frame after it was copied, or after it stopped backing the address, "
            "and its value is not there when the operation ends"
        ),
        Verdict.WRITE_PROTECT: "row 6: a write fault on read-only vmemmap, as the handler's walk says (L4)",
        Verdict.SPURIOUS: "row 6: a write fault that the handler's walk does not confirm (L4, R12)",
        Verdict.OWN_TEXT: "row 6: a guest program stored to where programs are, which is read-only",
        Verdict.WRONG_METADATA: "row 7: the answer was true at no instant from the first to the last access",
        Verdict.KERNEL: "row 8: the kernel's own checks, an Oops elsewhere, or a deadlock",
        Verdict.OWN_JUDGE: "row 8: a judge that came with a file named by --load says so",
        Verdict.EQUIVALENT: "row 9: stale, but the same frame with the same rights",
        Verdict.LEGAL: "row 9: stale, and no flush that covers the use is complete (R1, R3)",
    }
)
