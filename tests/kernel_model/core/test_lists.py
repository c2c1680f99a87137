"""struct list_head: what is linked, and lib/list_debug.c's words about a list that is not.

The words are those of v6.12: every pointer is a %px, which is 16 digits.
"""

from __future__ import annotations

import pytest
from flat_cpu import FlatCpu
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.addr import VirtAddr
from emu.cpu.routine import ContextKilled
from kernel_model.core.events import KernelBug
from kernel_model.core.lists import LIST_POISON1, LIST_POISON2, DebugListChecks, ListChecks, Lists

HEAD = VirtAddr(0xFFFF_8880_0060_0040)
OTHER = VirtAddr(0xFFFF_8880_0060_0050)
A, B, C, D = (VirtAddr(0xFFFF_EA00_0010_0008 + 0x40 * n) for n in range(4))


@pytest.fixture
def cpu() -> FlatCpu:
    """With two empty lists, HEAD and OTHER."""
    cpu = FlatCpu()
    for head in (HEAD, OTHER):
        cpu.write(head, head)
        cpu.write(head + 8, head)
    return cpu


DEBUG, PLAIN = Lists(DebugListChecks()), Lists(ListChecks())


def entries(cpu: FlatCpu, head: int = HEAD) -> list[int]:
    """What is linked behind a head, the way back checked."""
    found, entry, before = [], cpu.read(head), head
    while entry != head:
        assert cpu.read(entry + 8) == before
        found.append(entry)
        entry, before = cpu.read(entry), entry
    assert cpu.read(head + 8) == before
    return found


# --- what they do -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lists", [DEBUG, PLAIN], ids=["checked", "unchecked"])
def test_add_puts_first_and_add_tail_last(cpu: FlatCpu, lists: Lists) -> None:
    cpu.run(lists.add(A, HEAD))
    cpu.run(lists.add(B, HEAD))
    cpu.run(lists.add_tail(C, HEAD))
    assert entries(cpu) == [B, A, C]


@pytest.mark.parametrize("before", [(), (C,), (C, D)])
def test_splice_init_puts_all_of_one_list_in_front_of_another(
    cpu: FlatCpu, before: tuple[VirtAddr, ...]
) -> None:
    for entry in (B, A):
        cpu.run(DEBUG.add(entry, OTHER))
    for entry in before:
        cpu.run(DEBUG.add_tail(entry, HEAD))
    cpu.run(DEBUG.splice_init(OTHER, HEAD))
    assert (entries(cpu), entries(cpu, OTHER)) == ([A, B, *before], [])
    cpu.run(DEBUG.splice_init(OTHER, HEAD))
    assert (entries(cpu), entries(cpu, OTHER)) == ([A, B, *before], [])


@pytest.mark.parametrize("lists", [DEBUG, PLAIN], ids=["checked", "unchecked"])
def test_a_deleted_entry_is_poisoned(cpu: FlatCpu, lists: Lists) -> None:
    for entry in (A, B, C):
        cpu.run(lists.add_tail(entry, HEAD))
    cpu.run(lists.delete(B))
    assert entries(cpu) == [A, C]
    assert (cpu.read(B), cpu.read(B + 8)) == (LIST_POISON1, LIST_POISON2)
    assert (LIST_POISON1, LIST_POISON2) == (0xDEAD_0000_0000_0100, 0xDEAD_0000_0000_0122)


def test_a_moved_entry_is_first_in_the_other_list_and_not_poisoned(cpu: FlatCpu) -> None:
    for entry in (A, B):
        cpu.run(DEBUG.add_tail(entry, HEAD))
    cpu.run(DEBUG.add(C, OTHER))
    cpu.run(DEBUG.move(A, OTHER))
    assert (entries(cpu), entries(cpu, OTHER)) == ([B], [A, C])


def test_an_initialized_head_is_empty(cpu: FlatCpu) -> None:
    cpu.run(DEBUG.add(A, HEAD))
    assert not cpu.run(DEBUG.empty(HEAD))
    cpu.run(DEBUG.init(HEAD))
    assert cpu.run(DEBUG.empty(HEAD))
    assert entries(cpu) == []


@pytest.mark.parametrize("kind", ["entries", "entries_safe"])
def test_walking_a_list(cpu: FlatCpu, kind: str) -> None:
    for entry in (A, B, C):
        cpu.run(DEBUG.add_tail(entry, HEAD))

    async def walk(head: VirtAddr) -> list[int]:
        return [entry async for entry in getattr(DEBUG, kind)(head)]

    assert cpu.run(walk(HEAD)) == [A, B, C]
    assert cpu.run(walk(OTHER)) == []


def test_a_safe_walk_may_delete_where_it_stands(cpu: FlatCpu) -> None:
    for entry in (A, B, C):
        cpu.run(DEBUG.add_tail(entry, HEAD))

    async def empty_it() -> list[int]:
        seen = []
        async for entry in DEBUG.entries_safe(HEAD):
            seen.append(entry)
            await DEBUG.delete(entry)
        return seen

    assert cpu.run(empty_it()) == [A, B, C]
    assert entries(cpu) == []


def test_a_plain_walk_reads_the_successor_after_the_body(cpu: FlatCpu) -> None:
    for entry in (A, B):
        cpu.run(DEBUG.add_tail(entry, HEAD))

    async def grow() -> list[int]:
        seen = []
        async for entry in DEBUG.entries(HEAD):
            seen.append(entry)
            if entry == B:
                await DEBUG.add_tail(C, HEAD)
        return seen

    assert cpu.run(grow()) == [A, B, C]


@settings(derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["add", "add_tail", "delete", "move"]), st.integers(0, 9))))
def test_two_lists_behave_as_lists_do(operations: list[tuple[str, int]]) -> None:
    cpu = FlatCpu()
    for head in (HEAD, OTHER):
        cpu.run(DEBUG.init(head))
    first: list[int] = []
    second: list[int] = []
    nodes = [VirtAddr(A + 0x40 * n) for n in range(10)]
    for operation, number in operations:
        node = nodes[number]
        linked = node in first or node in second
        if operation in ("add", "add_tail") and not linked:
            cpu.run(getattr(DEBUG, operation)(node, HEAD))
            first.insert(0 if operation == "add" else len(first), node)
        elif operation in ("delete", "move") and linked:
            (first if node in first else second).remove(node)
            if operation == "delete":
                cpu.run(DEBUG.delete(node))
            else:
                cpu.run(DEBUG.move(node, OTHER))
                second.insert(0, node)
    assert (entries(cpu), entries(cpu, OTHER)) == (first, second)
    assert cpu.announced == []


# --- what is said of a corrupted one ----------------------------------------------------------------------


def complaint(cpu: FlatCpu, routine: object) -> KernelBug:
    """The one BUG that the routine ended in."""
    with pytest.raises(ContextKilled):
        cpu.run(routine)  # type: ignore[arg-type]
    (bug,) = cpu.heard(KernelBug)
    return bug


def linked(cpu: FlatCpu, *nodes: VirtAddr) -> None:
    for node in nodes:
        cpu.run(DEBUG.add_tail(node, HEAD))


def test_deleting_an_entry_whose_predecessor_points_elsewhere(cpu: FlatCpu) -> None:
    linked(cpu, A, B, C)
    cpu.write(A, D)
    assert complaint(cpu, DEBUG.delete(B)) == KernelBug(
        "__list_del_entry_valid",
        f"list_del corruption. prev->next should be {B:016x}, but was {D:016x}. (prev={A:016x})",
    )
    assert cpu.read(C + 8) == B, "nothing was unlinked"


def test_deleting_an_entry_whose_successor_points_elsewhere(cpu: FlatCpu) -> None:
    linked(cpu, A, B, C)
    cpu.write(C + 8, D)
    assert complaint(cpu, DEBUG.delete(B)) == KernelBug(
        "__list_del_entry_valid",
        f"list_del corruption. next->prev should be {B:016x}, but was {D:016x}. (next={C:016x})",
    )


def test_a_zero_is_written_with_16_digits_as_percent_px_does(cpu: FlatCpu) -> None:
    linked(cpu, A, B, C)
    cpu.write(A, 0)
    assert complaint(cpu, DEBUG.delete(B)).message == (
        f"list_del corruption. prev->next should be {B:016x}, but was 0000000000000000. (prev={A:016x})"
    )


def test_deleting_twice(cpu: FlatCpu) -> None:
    linked(cpu, A, B)
    cpu.run(DEBUG.delete(A))
    assert complaint(cpu, DEBUG.delete(A)) == KernelBug(
        "__list_del_entry_valid", f"list_del corruption, {A:016x}->next is LIST_POISON1 (dead000000000100)"
    )


def test_deleting_an_entry_with_a_poisoned_prev(cpu: FlatCpu) -> None:
    linked(cpu, A, B)
    cpu.write(A + 8, LIST_POISON2)
    assert complaint(cpu, DEBUG.delete(A)) == KernelBug(
        "__list_del_entry_valid", f"list_del corruption, {A:016x}->prev is LIST_POISON2 (dead000000000122)"
    )


@pytest.mark.parametrize(("offset", "name"), [(0, "next"), (8, "prev")])
def test_deleting_an_entry_that_was_never_linked(cpu: FlatCpu, offset: int, name: str) -> None:
    linked(cpu, A, B)
    cpu.write(A + offset, 0)
    assert complaint(cpu, DEBUG.delete(A)) == KernelBug(
        "__list_del_entry_valid", f"list_del corruption, {A:016x}->{name} is NULL"
    )


def test_adding_where_next_does_not_point_back(cpu: FlatCpu) -> None:
    linked(cpu, A)
    cpu.write(A + 8, D)
    assert complaint(cpu, DEBUG.add(B, HEAD)) == KernelBug(
        "__list_add_valid",
        f"list_add corruption. next->prev should be prev ({HEAD:016x}), but was {D:016x}. (next={A:016x}).",
    )
    assert cpu.read(HEAD) == A, "nothing was linked"


def test_adding_where_prev_does_not_point_on(cpu: FlatCpu) -> None:
    linked(cpu, A)
    cpu.write(A, D)
    assert complaint(cpu, DEBUG.add_tail(B, HEAD)) == KernelBug(
        "__list_add_valid",
        f"list_add corruption. prev->next should be next ({HEAD:016x}), but was {D:016x}. (prev={A:016x}).",
    )


def test_adding_what_is_first_already(cpu: FlatCpu) -> None:
    linked(cpu, A)
    assert complaint(cpu, DEBUG.add(A, HEAD)) == KernelBug(
        "__list_add_valid", f"list_add double add: new={A:016x}, prev={HEAD:016x}, next={A:016x}."
    )


def test_adding_to_a_head_that_was_never_initialized(cpu: FlatCpu) -> None:
    assert complaint(cpu, DEBUG.add(A, D)) == KernelBug(
        "__list_add_valid", "list_add corruption. next is NULL."
    )


def test_adding_last_to_a_head_that_was_never_initialized(cpu: FlatCpu) -> None:
    assert complaint(cpu, DEBUG.add_tail(A, D)) == KernelBug(
        "__list_add_valid", "list_add corruption. prev is NULL."
    )


def test_moving_checks_both_lists(cpu: FlatCpu) -> None:
    linked(cpu, A, B)
    cpu.write(OTHER + 8, D)
    assert "list_add corruption. next->prev should be prev" in complaint(cpu, DEBUG.move(A, OTHER)).message
    assert entries(cpu) == [B], "it had left the first list by then"


def test_without_debug_list_nobody_looks(cpu: FlatCpu) -> None:
    linked(cpu, A, B, C)
    cpu.write(A, D)
    cpu.run(PLAIN.delete(B))
    assert cpu.announced == []
    assert cpu.read(A) == C, "the corruption is overwritten"
