"""The trace: numbers, and who is told."""

from __future__ import annotations

from machine_programs import one_load
from machine_rig import MachineRig


def test_a_number_is_the_place_in_the_trace() -> None:
    rig = MachineRig(2)
    numbers: list[int] = []
    rig.machine.trace.listen(lambda number, _event: numbers.append(number))
    rig.thread(0, one_load)
    rig.run()
    assert numbers == list(range(len(rig.events)))


def test_listeners_are_told_in_the_order_they_were_added() -> None:
    rig = MachineRig(1, listens=False)
    order: list[str] = []
    rig.machine.trace.listen(lambda _number, _event: order.append("first"))
    rig.machine.trace.listen(lambda _number, _event: order.append("second"))
    rig.thread(0, one_load)
    assert order == ["first", "second"]
