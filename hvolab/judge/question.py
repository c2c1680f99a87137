"""What a reader of struct pages asks: data of a scenario, looked at by the monitor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from emu.addr import VirtAddr


class PageQuestion(Enum):
    """By the kernel's names. The last three are answered 0 or 1, or with a number."""

    COMPOUND_HEAD = "compound_head"
    PAGE_HEAD = "PageHead"
    PAGE_TAIL = "PageTail"
    PAGE_COUNT = "page_count"


@dataclass(frozen=True, slots=True)
class Asks:
    """A guest program that answers `question` about `page`, with its answer in `register` at its end."""

    question: PageQuestion
    page: VirtAddr
    register: str
