"""The guest programs that come with the project.

Promises: each program has a page of its own in virtual memory, so that all can be loaded at once; the same
name always gives the same Program. Importing this module assembles nothing: a program is built when it is
first asked for.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from firmware.load import load_program
from firmware.program import PAGE_SIZE, Argument, Program, Result

TEXT_BASE = 0xFFFFFFFF81000000
"""Virtual address of the first program's page; the others follow, a page each, in the order of
`PROGRAM_NAMES`."""


class UnknownProgram(KeyError):
    """A program was asked for that the catalog does not have; `str()` lists those it has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"there is no program {self.name!r}; there are: {', '.join(PROGRAM_NAMES)}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the catalog says about a program; `page` counts 4096-byte pages from TEXT_BASE."""

    file: str
    page: int
    question: str
    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]


_STRUCT_PAGE = Argument("page", "rdi", "address of the struct page", "virtual address")
_VALUE = Argument("value", "rsi", "value to store there", "64-bit word")


def _key(register: str) -> Argument:
    meaning = "address of the 64-bit word that stands for hugetlb_optimize_vmemmap_key; nonzero is enabled"
    return Argument("key", register, meaning, "virtual address")


def _nesting(register: str) -> Argument:
    return Argument("nesting", register, "address of this CPU's 64-bit RCU nesting word", "virtual address")


def _buffer(register: str, quadwords: str) -> Argument:
    return Argument("buffer", register, f"buffer of {quadwords}", "virtual address")


_FIRST_STRUCT_PAGE = Argument("first", "rdi", "address of the first struct page", "virtual address")
_STRUCT_PAGES = Argument("count", "rsi", "number of struct pages to look at; 0 looks at none", "struct pages")
_BUFFER_END = Result("buffer_end", "r8", "address behind the last quadword written")
_TAKEN = Result("taken", "rax", "1 if a reference was taken, 0 if not")


_ENTRIES: dict[str, _Entry] = {
    "read_tails": _Entry(
        file="read_tails.S",
        page=0,
        question="What does this CPU see in each vmemmap page of a folio while the kernel remaps them?",
        arguments=(
            Argument(
                "head",
                "rdi",
                "address of the folio's first struct page, the start of a vmemmap page",
                "virtual address",
            ),
            Argument(
                "pages", "rsi", "number of 4 KiB vmemmap pages to look at; 0 looks at none", "vmemmap pages"
            ),
            _buffer("rdx", "two quadwords a page: flags, then compound_head"),
        ),
        results=(Result("buffer_end", "rdx", "address behind the last quadword written"),),
    ),
    "read_twice": _Entry(
        file="read_twice.S",
        page=1,
        question="Can two loads of one word give two values although nobody stored to that word?",
        arguments=(Argument("word", "rdi", "address of the word", "virtual address"),),
        results=(
            Result("first", "rax", "the value of the first load"),
            Result("second", "rbx", "the value of the second load"),
        ),
    ),
    "write_head": _Entry(
        file="write_head.S",
        page=2,
        question="Does a store to the head struct page reach the frame that backs it when the remap is over?",
        arguments=(
            Argument("word", "rdi", "address of a word in a head struct page", "virtual address"),
            _VALUE,
        ),
        results=(),
    ),
    "write_tail": _Entry(
        file="write_tail.S",
        page=3,
        question="Does a store to a tail struct page that is mapped read-only fault with error code 3?",
        arguments=(
            Argument("word", "rdi", "address of a word in a tail struct page", "virtual address"),
            _VALUE,
        ),
        results=(),
    ),
    "read_then_write": _Entry(
        file="read_then_write.S",
        page=4,
        question="Do a load, a store and a load of one word by one CPU all reach the same frame?",
        arguments=(Argument("word", "rdi", "address of the word", "virtual address"), _VALUE),
        results=(
            Result("before", "rax", "the value before the store"),
            Result("after", "rbx", "the value read back after it"),
        ),
    ),
    "get_page_unless_zero": _Entry(
        file="get_page_unless_zero.S",
        page=5,
        question="Does taking a reference by PFN stay clear of the vmemmap pages the kernel is remapping?",
        arguments=(_STRUCT_PAGE, _key("rsi"), _nesting("rdx")),
        results=(_TAKEN,),
    ),
    "compound_head": _Entry(
        file="compound_head.S",
        page=6,
        question="Which head does compound_head() name for a struct page while its vmemmap page is remapped?",
        arguments=(_STRUCT_PAGE, _key("rsi")),
        results=(Result("head", "rax", "address of the head struct page"),),
    ),
    "walk_pfns": _Entry(
        file="walk_pfns.S",
        page=7,
        question="Which heads does a PFN walker find in a range of struct pages while they are remapped?",
        arguments=(
            _FIRST_STRUCT_PAGE,
            _STRUCT_PAGES,
            _key("rdx"),
            _nesting("rcx"),
            _buffer("r8", "one quadword a struct page: the address of its head"),
        ),
        results=(_BUFFER_END,),
    ),
    "get_page_unless_zero_v6_9": _Entry(
        file="get_page_unless_zero_v6_9.S",
        page=8,
        question="What did taking a reference by PFN look like before it knew of vmemmap that is remapped?",
        arguments=(_STRUCT_PAGE,),
        results=(_TAKEN,),
    ),
    "get_page_unless_zero_2025": _Entry(
        file="get_page_unless_zero_2025.S",
        page=9,
        question="Is taking a reference by PFN safe when the count is read before the fake-head test?",
        arguments=(_STRUCT_PAGE, _key("rsi"), _nesting("rdx")),
        results=(_TAKEN,),
    ),
    "kpageflags": _Entry(
        file="kpageflags.S",
        page=10,
        question="What does /proc/kpageflags say of struct pages while their vmemmap is remapped?",
        arguments=(
            _FIRST_STRUCT_PAGE,
            _STRUCT_PAGES,
            _key("rdx"),
            _buffer("r8", "one quadword a struct page: KPF_COMPOUND_HEAD, KPF_COMPOUND_TAIL and KPF_HUGE"),
        ),
        results=(_BUFFER_END, Result("tails", "r10", "how many struct pages were reported as tails")),
    ),
    "isolate_migratepages": _Entry(
        file="isolate_migratepages.S",
        page=11,
        question="Does compaction, which takes a reference on any page it comes to, stay clear of a remap?",
        arguments=(
            _FIRST_STRUCT_PAGE,
            _STRUCT_PAGES,
            _key("rdx"),
            _nesting("rcx"),
            _buffer(
                "r8", "one quadword a struct page: its flags, or all ones where no reference was to be had"
            ),
        ),
        results=(_BUFFER_END,),
    ),
    "gup_fast": _Entry(
        file="gup_fast.S",
        page=12,
        question=(
            "Does GUP-fast, which finds a folio in page tables without a lock, "
            "stay clear of one that is remapped?"
        ),
        arguments=(
            Argument(
                "entry",
                "rdi",
                "address of the page-table entry: a 64-bit word with the struct page's address, 0 if none",
                "virtual address",
            ),
            _key("rsi"),
            _nesting("rdx"),
        ),
        results=(Result("head", "rax", "address of the head a reference was taken on, 0 if none was"),),
    ),
}

PROGRAM_NAMES: tuple[str, ...] = tuple(_ENTRIES)
"""Names that `program` takes, in the order of their pages."""


@cache
def program(name: str) -> Program:
    """The program called `name`, assembled on the first call; raises UnknownProgram."""
    if name not in _ENTRIES:
        raise UnknownProgram(name)
    entry = _ENTRIES[name]
    return load_program(
        name,
        (files("firmware") / "programs" / entry.file).read_text(encoding="utf-8"),
        question=entry.question,
        arguments=entry.arguments,
        results=entry.results,
        origin=TEXT_BASE + entry.page * PAGE_SIZE,
    )


def programs() -> tuple[Program, ...]:
    """All programs of the catalog, in the order of `PROGRAM_NAMES`."""
    return tuple(program(name) for name in PROGRAM_NAMES)
