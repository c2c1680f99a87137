"""Steps made at once leave behind what the same steps leave that are made one by one."""

from __future__ import annotations

from machine_rig import MachineRig
from paging_rig import FRAME, PAGE, RW, VA, leaf

from emu.addr import PhysAddr, VirtAddr, page_start
from emu.cpu.cpu import RoutineContext
from emu.cpu.ops import Copy, Count, FetchAdd, Load, StackRoom, Store
from emu.cpu.recall import HistoryNode, Recall, Recalled
from emu.cpu.repeat import Put, Repeated, StoreEvent, Through, in_a_row
from emu.events import Copied, MachineEvent, Stored, TlbFilled
from emu.paging.walk import Access, Privilege

AT = VirtAddr(VA + 8)
OTHER = VirtAddr(VA + PAGE)
STEPS = 4


async def works() -> None:
    await Load(AT)
    await Store(AT, 7)
    await Count("counted", 2)
    await StackRoom(64)
    await FetchAdd(AT, 1)
    await Copy(OTHER, VA, 16)
    await Load(OTHER)


def rig_of(recall: Recall) -> MachineRig:
    rig = MachineRig(1)
    rig.machine.routines = recall
    rig.thread(0, works)
    return rig


def top(rig: MachineRig) -> RoutineContext:
    context = rig.machine.cpus[0].top
    assert isinstance(context, RoutineContext)
    return context


def node_of(rig: MachineRig) -> HistoryNode:
    routine = top(rig).routine
    assert isinstance(routine, Recalled)
    return routine.node


def through(rig: MachineRig, va: VirtAddr, access: Access) -> Through:
    walked = (event for event in rig.events if isinstance(event, TlbFilled))
    entry = next(event.entry for event in walked if page_start(event.va) == page_start(va))
    return Through(0, va, access, entry.rights, dirty=entry.dirty)


def known(rig: MachineRig) -> Repeated:
    """What the first steps do, each put down by itself, out of a rig that has made them."""
    first, second = (event for event in rig.events if isinstance(event, Stored))
    (copied,) = (event for event in rig.events if isinstance(event, Copied))
    at, other = PhysAddr(FRAME * PAGE + 8), PhysAddr((FRAME + 1) * PAGE)
    read, write = through(rig, AT, Access.READ), through(rig, AT, Access.WRITE)
    stores = Put(0, at, b"\7" + bytes(7), first), Put(0, at, b"\x08" + bytes(7), second)
    copies = Put(0, other, bytes(8) + b"\x08" + bytes(7), copied)
    to, source = through(rig, OTHER, Access.WRITE), through(rig, VA, Access.READ)
    node = node_of(rig)
    return in_a_row(
        [
            Repeated(1, 1, (read,), (), 0, node),
            Repeated(1, 1, (write, stores[0]), (("counted", 2),), 64, node),
            Repeated(1, 1, (write, stores[1]), (), 0, node),
            Repeated(1, 1, (source, to, copies), (), 0, node),
        ]
    )


def test_in_a_row_each_page_is_gone_through_once_for_reads_and_once_for_writes() -> None:
    rig = rig_of(Recall())
    rig.step(0, STEPS)
    found = known(rig)
    assert (found.steps, found.events, found.stack, found.counters) == (4, 4, 64, (("counted", 2),))
    throughs = [(part.before, part.va, part.access) for part in found.done if isinstance(part, Through)]
    assert throughs == [(0, AT, Access.READ), (1, AT, Access.WRITE), (3, OTHER, Access.WRITE)]
    assert [part.before for part in found.done if isinstance(part, Put)] == [1, 2, 3]


def test_steps_made_at_once_leave_what_they_leave_one_by_one() -> None:
    recall = Recall()
    made, again = rig_of(recall), rig_of(recall)
    made.step(0, STEPS)
    told: list[tuple[int, StoreEvent]] = []
    assert again.machine.repeat(0, known(made), lambda number, event: told.append((number, event)))
    for rig in (made, again):
        rig.step(0)  # what comes next is what comes next of both
    one, other = made.machine, again.machine
    assert one.trace.next_number == other.trace.next_number
    assert (one.steps, one.counters, one.cpus[0].stack) == (other.steps, other.counters, other.cpus[0].stack)
    assert one.memory.journal.now == other.memory.journal.now
    assert one.memory.read(PhysAddr(FRAME * PAGE), 2 * PAGE) == other.memory.read(
        PhysAddr(FRAME * PAGE), 2 * PAGE
    )
    assert not other.enabled()
    assert numbered(made) == told


def numbered(rig: MachineRig) -> list[tuple[int, MachineEvent]]:
    """The stores; every event of the rig has been told, from the first on."""
    return [(at, event) for at, event in enumerate(rig.events) if isinstance(event, Stored | Copied)]


def test_a_walk_that_was_made_before_is_made_again_where_the_tlb_has_forgotten() -> None:
    """Of both pages there is one translation: the event of the walk comes where it belongs."""
    recall = Recall()
    made, again = rig_of(recall), rig_of(recall)
    made.step(0, STEPS)
    assert again.machine.repeat(0, known(made), lambda _number, _event: None)
    walked = [event.va for event in again.events if isinstance(event, TlbFilled)]
    assert [page_start(va) for va in walked] == [VA, OTHER]


def test_where_an_access_could_use_another_translation_nothing_is_done() -> None:
    recall = Recall()
    made, again = rig_of(recall), rig_of(recall)
    made.step(0, STEPS)
    again.machine.cpus[0].mmu.translate(AT, Access.READ, Privilege.SUPERVISOR)
    again.set(again.slot(VA, 1), leaf(FRAME + 2, RW))
    before = again.machine.trace.next_number
    assert not again.machine.repeat(0, known(made), lambda _number, _event: None)
    assert (again.machine.steps, again.machine.trace.next_number) == (0, before)
