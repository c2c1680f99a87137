"""The generations of page_ref_add_unless() (include/linux/page_ref.h), each as a guest program.

Every reference that is taken without holding one already goes through it: get_page_unless_zero(),
folio_try_get(), GUP-fast. What it does before it writes is what HVO has to reckon with.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageRefGeneration:
    """`program` is its name in the catalog. `change` is the title of the commit that began it, None for the
    oldest; `commit` its id, where that was looked up in a kernel tree."""

    program: str
    releases: str
    order: str
    change: str | None
    commit: str | None


GENERATIONS: tuple[PageRefGeneration, ...] = (
    PageRefGeneration(
        "get_page_unless_zero_v6_9",
        "up to v6.9",
        "the count, then LOCK CMPXCHG",
        None,
        None,
    ),
    PageRefGeneration(
        "get_page_unless_zero",
        "v6.10 to v6.14",
        "in an RCU section: the fake-head test, the count, then LOCK CMPXCHG",
        "mm/hugetlb_vmemmap: fix race with speculative PFN walkers",
        "bd225530a4c7",
    ),
    PageRefGeneration(
        "get_page_unless_zero_2025",
        "since 2025",
        "in an RCU section: the count, the fake-head test, then LOCK CMPXCHG",
        "mm/hugetlb_vmemmap: fix memory loads ordering",
        None,
    ),
)
