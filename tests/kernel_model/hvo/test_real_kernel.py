"""The port against what a real Linux 6.12 did: same frames, same folios, same struct pages, same order.

The fixtures come from three boots of one machine of 1 GiB. Its 2 MiB blocks of vmemmap are at the same frames
each time; the frames that are allocated on the way are not, and have only roles.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hvo_lab import (
    FIXTURES,
    FOLIO_LIST,
    LARGE,
    OPTIMIZED,
    PAGE,
    RO,
    RW,
    STRUCT,
    VMEMMAP,
    Lab,
    StructPage,
    fixture,
    huge_2m,
    lab_2m,
    pages_of,
    region_of,
    with_byte,
)

from emu.addr import Pfn, PhysAddr, VirtAddr
from emu.events import Annotated, MachineEvent, Stored
from hvolab.dump import Dump, FolioRow, Leaf, dump_of, read_dump, with_mappings
from hvolab.dump.compare import compare
from kernel_model.boot import BootConfig
from kernel_model.core.events import FlushBegun, GracePeriodBegun, PageFreed
from kernel_model.hvo.hugetlb_vmemmap import HugetlbVmemmap, VmemmapRemapWalk, WalkFlag
from kernel_model.mm.hstate import Hstate
from kernel_model.mm.pagewalk import PmdResult
from kernel_model.mm.pgtable import entry_get
from kernel_model.variants.named import NamedVariant

RAM = 1024 << 20
REAL_BLOCKS = range(0x3EE00, 0x3FE00)


def real(name: str) -> Dump:
    return read_dump(FIXTURES / f"{name}.json.gz")


def real_machine(*pfns: int, **options: Any) -> Lab:
    """A machine with vmemmap backed as the real one's was, and huge pages at these frames, in list order."""
    blocks = {VirtAddr(leaf.va): Pfn(leaf.pfn) for leaf in real("main0_before").leaves or ()}
    huge = tuple(huge_2m(pfn) for pfn in pfns)
    return Lab(BootConfig(RAM, 2, huge, vmemmap_blocks=blocks, **options))


def dump(lab: Lab, state: str) -> Dump:
    """The model's memory as a dump like those of the real kernel."""
    leaves = [Leaf(va, *leaf) for va, leaf in lab.vmemmap().items()]
    rows = []
    for huge in lab.config.huge_pages:
        head = lab.struct_page(huge.pfn)
        rows.append(
            FolioRow(
                huge.pfn,
                lab.struct_page(huge.pfn + 1).flags & 0xFF,
                huge.folio,
                lab.optimized(huge),
                head.private,
                head.flags,
                head.refcount,
                head.page_type,
            )
        )
    return dump_of(
        "model", state, RAM >> 20, VMEMMAP, leaves, with_mappings(rows, leaves), lab.counters(), lab.tables()
    )


# --- boot -------------------------------------------------------------------------------------------------


def test_vmemmap_is_mapped_at_boot_with_the_flags_the_real_kernel_uses() -> None:
    flags = {leaf.flags for leaf in real("main0_before").leaves or ()}
    assert flags == {LARGE}
    assert {leaf.flags for leaf in lab_2m().initial.values()} == flags


def test_the_same_blocks_give_the_same_leaves_and_counters() -> None:
    lab = real_machine()
    before = real("main0_before")
    assert [Leaf(va, *leaf) for va, leaf in lab.vmemmap().items()] == list(before.leaves or ())
    assert lab.counters() == before.counters
    assert compare(before, dump(lab, "before")) == ()


# --- 64 folios --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sixty_four() -> Lab:
    lab = real_machine(*(folio.pfn for folio in real("main1_alloc64").folios))
    lab.optimize_list()
    return lab


def test_optimizing_the_64_folios_maps_every_page_as_the_real_kernel_did(sixty_four: Lab) -> None:
    theirs = {leaf.va: leaf for leaf in real("main1_alloc64").leaves or ()}
    ours = sixty_four.vmemmap()
    assert len(theirs) == len(ours) == 1541
    fresh: dict[int, int] = {}
    for va, leaf in theirs.items():
        level, pfn, flags = ours[va]
        assert (level, flags) == (leaf.level, leaf.flags), hex(va)
        if leaf.pfn in REAL_BLOCKS:
            assert pfn == leaf.pfn, hex(va)
        else:
            # A fresh head: where they map one frame, so do we, and nowhere else.
            assert fresh.setdefault(leaf.pfn, pfn) == pfn, hex(va)
            assert pfn not in REAL_BLOCKS
    assert len(set(fresh.values())) == len(fresh) == 64


def test_the_64_folios_move_the_counters_as_the_real_ones_did(sixty_four: Lab) -> None:
    counters = real("main1_alloc64").counters
    assert counters == {"nr_memmap_boot_pages": 3584, "nr_memmap_pages": 64}
    assert sixty_four.counters() == counters


def test_the_dump_of_the_64_folios_does_not_differ(sixty_four: Lab) -> None:
    assert compare(real("main1_alloc64"), dump(sixty_four, "optimized")) == ()


def test_the_same_pmds_are_split_with_the_same_flags(sixty_four: Lab) -> None:
    split = {pmd.va: pmd.flags for pmd in real("main1_alloc64").pmds if pmd.kind == "split"}
    assert set(sixty_four.tables()) == set(split)
    assert set(split.values()) == {"P W U A D"}
    sixty_four.check_conservation()


def test_the_raw_bits_of_a_tail_are_those_of_page_kernel_ro(sixty_four: Lab) -> None:
    huge = sixty_four.config.huge_pages[0]
    table = sixty_four.tables()[region_of(huge.folio)]
    entry = sixty_four.table(table)[(huge.folio + PAGE) >> 12 & 511]
    assert (entry & 0xFFF, entry >> 63) == (0x121, 1)


# --- struct pages -----------------------------------------------------------------------------------------

# hugetlb_vmemmap_optimize_folios() was entered with folio 0x3e800 first on the list, 0x3e00 second.
LIST_ORDER = (0x3E800, 0x3E00)


@pytest.fixture(scope="module")
def struct_pages() -> dict[str, Any]:
    return fixture("exact_structpages_optimize")["optimize0"]


def decoded(rows: list[list[Any]], va: int, page0: list[StructPage]) -> list[StructPage]:
    """The 64 struct pages of one vmemmap page. Rows: number, times, words; two texts stand for addresses."""
    pages: list[StructPage] = []
    for first, times, *words in rows:
        for index in range(first, first + times):
            values = []
            for word in words:
                if word == "self":
                    values.append(va + index * STRUCT + 8)
                elif word == "page0[same i]":
                    values.append(page0[index].prev)
                else:
                    values.append(int(str(word), 0))
            pages.append(StructPage(*values))
    assert len(pages) == 64
    return pages


def real_pages(folio: dict[str, Any], side: str, list_head: int) -> list[bytes]:
    """The 8 vmemmap pages of a folio; the head of the list it is on is ours."""
    pages: list[bytes] = []
    page0: list[StructPage] = []
    assert folio[side]
    for row in folio[side]:
        structs = decoded(row["struct_pages"], int(row["va"], 16), page0)
        page0 = page0 or structs
        data = b"".join(page.pack() for page in structs)
        if "raw_hex" in row:
            assert data == bytes.fromhex(row["raw_hex"]), "the rows say what the bytes say"
        pages.append(data.replace(struct.pack("<Q", list_head), struct.pack("<Q", FOLIO_LIST)))
    return pages


def by_pfn(struct_pages: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {int(folio["pfn"], 16): folio for folio in struct_pages["folios"]}


@pytest.fixture(scope="module")
def with_real_bytes(struct_pages: dict[str, Any]) -> Lab:
    """The model with the real kernel's struct pages in it, both folios optimized as a list."""
    lab = real_machine(*LIST_ORDER)
    head = int(struct_pages["args"]["rsi"], 16)
    for huge in lab.config.huge_pages:
        pages = real_pages(by_pfn(struct_pages)[huge.pfn], "entry", head)
        for va, data in zip(pages_of(huge), pages, strict=True):
            lab.write(va, data)
    assert lab.linked(FOLIO_LIST) == [huge.folio for huge in lab.config.huge_pages]
    lab.optimize_list()
    return lab


@pytest.mark.parametrize("number", [0, 1])
def test_real_struct_pages_end_as_they_did_in_the_real_kernel(
    with_real_bytes: Lab, struct_pages: dict[str, Any], number: int
) -> None:
    lab = with_real_bytes
    huge = lab.config.huge_pages[number]
    folio, head = by_pfn(struct_pages)[huge.pfn], int(struct_pages["args"]["rsi"], 16)
    entered, left = real_pages(folio, "entry", head), real_pages(folio, "exit", head)
    ours = [lab.bytes_at(va, PAGE) for va in pages_of(huge)]
    assert ours == left
    assert ours[0] == with_byte(entered[0], 40, OPTIMIZED)
    assert folio["checks"]["head_page_byte_diffs"] == [[40, entered[0][40], ours[0][40]]] == [[40, 0, 16]]
    assert ours[1:] == [ours[0]] * 7, "every tail reads the head page"
    flags = [row["flags"] for row in folio["exit"]]
    assert [lab.leaf(va).flags for va in pages_of(huge)] == flags == [RW] + [RO] * 7


def test_a_folio_at_boot_has_the_real_struct_pages_but_for_list_words(struct_pages: dict[str, Any]) -> None:
    lab = real_machine(*LIST_ORDER)
    list_head = int(struct_pages["args"]["rsi"], 16)
    assert lab.config.huge_pages
    for huge in lab.config.huge_pages:
        theirs = [
            StructPage.parse(data[at : at + STRUCT])
            for data in real_pages(by_pfn(struct_pages)[huge.pfn], "entry", list_head)
            for at in range(0, PAGE, STRUCT)
        ]
        ours = [lab.struct_page(huge.pfn + index) for index in range(512)]
        assert _without_list_words(ours) == _without_list_words(theirs)
        # Where a tail was never on a list, its own address is there; those of folio 0x3e00 never were.
        if huge.pfn == 0x3E00:
            assert ours[1:] == theirs[1:]


def _without_list_words(pages: list[StructPage]) -> list[StructPage]:
    """Of the head both words of lru are, of a tail only the second: in the first it says compound_head."""
    head, *tails = pages
    kept = [tail._replace(prev=0) if tail.prev not in (0, (1 << 64) - 1) else tail for tail in tails]
    return [head._replace(next=0, prev=0), *kept]


def test_after_restore_real_tails_are_ordinary_again(struct_pages: dict[str, Any]) -> None:
    lab = real_machine(*LIST_ORDER)
    head = int(struct_pages["args"]["rsi"], 16)
    huge = lab.config.huge_pages[1]
    entered = real_pages(by_pfn(struct_pages)[huge.pfn], "entry", head)
    for va, data in zip(pages_of(huge), entered, strict=True):
        lab.write(va, data)
    lab.optimize(huge)
    lab.restore(huge)
    now = [lab.bytes_at(va, PAGE) for va in pages_of(huge)]
    assert now[0] == entered[0]
    # Tails are those of the head page again, which differ from what there was only in the second list word.
    pairs = list(zip(now[1:], entered[1:], strict=True))
    assert len(pairs) == 7
    for index, (data, before) in enumerate(pairs, start=1):
        for at in range(0, PAGE, STRUCT):
            restored, had = (
                StructPage.parse(data[at : at + STRUCT]),
                StructPage.parse(before[at : at + STRUCT]),
            )
            assert restored._replace(prev=0) == had._replace(prev=0), (index, at // STRUCT)


# --- the order of things ----------------------------------------------------------------------------------


def kprobes() -> list[tuple[str, dict[str, int]]]:
    """The real kernel's calls while two folios were optimized: event, arguments."""
    calls = []
    for _us, _task, event, *args in fixture("kprobe_trace_optimize")["optimize2_first"]:
        words = [word.split("=") for word in (args[0].split() if args else [])]
        calls.append((event, {name: int(value, 0) for name, value in words}))
        if event == "xof":
            break
    return calls


class Probed(HugetlbVmemmap):
    """The port with the same probes in the same functions."""

    calls: list[tuple[str, dict[str, int]]]

    def hit(self, event: str, **args: int) -> None:
        self.calls.append((event, args))

    async def hugetlb_vmemmap_optimize_folios(self, h: Hstate, folio_list: VirtAddr) -> None:
        self.hit("of")
        await super().hugetlb_vmemmap_optimize_folios(h, folio_list)
        self.hit("xof")

    async def vmemmap_should_optimize_folio(self, h: Hstate, folio: VirtAddr) -> bool:
        self.hit("sethuge", folio=folio)
        return await super().vmemmap_should_optimize_folio(h, folio)

    async def _optimize_folio(
        self, h: Hstate, folio: VirtAddr, vmemmap_pages: VirtAddr, flags: WalkFlag
    ) -> int:
        self.hit("oo", folio=folio, flags=int(flags))
        ret = await super()._optimize_folio(h, folio, vmemmap_pages, flags)
        self.hit("xoo", ret=ret)
        return ret

    async def vmemmap_remap_range(self, start: VirtAddr, end: VirtAddr, walk: VmemmapRemapWalk) -> int:
        remaps = int(walk.remap_pte is not None)
        self.hit(
            "range", start=start, end=end, remap_fn=remaps, reuse_addr=walk.reuse_addr, flags=int(walk.flags)
        )
        ret = await super().vmemmap_remap_range(start, end, walk)
        self.hit("xrange", ret=ret)
        return ret

    async def vmemmap_pmd_entry(self, pmd: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> PmdResult:
        self.hit("pmd", addr=addr, pmd=await entry_get(pmd))
        result = await super().vmemmap_pmd_entry(pmd, addr, walk)
        self.hit("xpmd", ret=result.error)
        return result

    async def vmemmap_pte_entry(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> int:
        self.hit("pte", addr=addr, pte=await entry_get(pte))
        return await super().vmemmap_pte_entry(pte, addr, walk)

    async def vmemmap_remap_pte(self, pte: PhysAddr, addr: VirtAddr, walk: VmemmapRemapWalk) -> None:
        self.hit("remap", addr=addr, pte=await entry_get(pte))
        await super().vmemmap_remap_pte(pte, addr, walk)

    async def free_vmemmap_page_list(self, pages: VirtAddr) -> None:
        self.hit("freelist")
        await super().free_vmemmap_page_list(pages)


def common(calls: list[tuple[str, dict[str, int]]]) -> Iterator[tuple[str, dict[str, int]]]:
    """What two machines can agree on: no pointers to code, stacks, tables and fresh pages."""
    for event, args in calls:
        kept = {name: value for name, value in args.items() if name not in ("h", "list", "reuse_page")}
        if "remap_fn" in kept:
            kept["remap_fn"] = int(kept["remap_fn"] != 0)
        if kept.get("pmd", 0) & 0xFFF == 0x067:
            kept["pmd"] = 0x067  # which page a page table is in differs
        yield event, kept


def test_every_call_comes_with_the_arguments_and_in_the_order_of_the_real_kernel() -> None:
    calls: list[tuple[str, dict[str, int]]] = []

    def build(primitives: Any) -> HugetlbVmemmap:
        probed = Probed(primitives)
        probed.calls = calls
        return probed

    lab = real_machine(*LIST_ORDER, variant=NamedVariant("probed", "with probes", build))

    def listen(_number: int, event: MachineEvent) -> None:
        match event:
            case Annotated(payload=GracePeriodBegun()):
                calls.append(("rcu", {}))
            case Annotated(payload=FlushBegun(function="flush_tlb_all")):
                calls.append(("tlball", {}))
            case Annotated(payload=FlushBegun()):
                calls.append(("tlbrange", {}))

    lab.machine.trace.listen(listen)
    lab.optimize_list()
    theirs = list(common(kprobes()))
    assert len(theirs) > 50
    assert list(common(calls)) == theirs


def test_the_trace_alone_tells_the_same_story() -> None:
    """Both reduced to: splits, full flushes, the grace period, remapped addresses, release of pages."""
    lab = real_machine(*LIST_ORDER)
    lab.optimize_list()
    tables = {table: region for region, table in lab.tables().items()}
    directory = {lab.pmd_address(region): region for region in lab.tables()}
    ours: list[tuple[str, int]] = []
    for event in lab.events:
        match event:
            case Stored(pa=pa) if pa in directory:
                ours.append(("split", directory[PhysAddr(pa)]))
            case Stored(pa=pa) if pa // PAGE in tables:
                ours.append(("remap", tables[pa // PAGE] + pa % PAGE // 8 * PAGE))
            case Annotated(payload=FlushBegun(function=function)):
                ours.append((function, 0))
            case Annotated(payload=GracePeriodBegun()):
                ours.append(("rcu", 0))
            case Annotated(payload=PageFreed()) if ours[-1] != ("release", 0):
                ours.append(("release", 0))
    theirs: list[tuple[str, int]] = []
    for event, args in kprobes():
        match event:
            case "pmd" if args["pmd"] & 0x80:
                theirs.append(("split", region_of(args["addr"])))
            case "remap":
                theirs.append(("remap", args["addr"]))
            case "tlball":
                theirs.append(("flush_tlb_all", 0))
            case "rcu":
                theirs.append(("rcu", 0))
            case "freelist":
                theirs.append(("release", 0))
    assert ours == theirs
