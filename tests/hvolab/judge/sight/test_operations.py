"""Which operations are under way, and which have returned."""

from __future__ import annotations

from emu.addr import VirtAddr
from hvolab.judge.sight.operations import Operation, Operations
from kernel_model.core.events import OperationBegun, OperationReturned

FOLIO = VirtAddr(0x40)


def begun_on(operations: Operations, number: int, cpu: int, function: str = "f") -> Operation:
    return operations.begun(number, cpu, OperationBegun(function, (FOLIO,)))


def test_an_operation_is_under_way_from_its_begin_to_its_return() -> None:
    operations = Operations()
    assert (operations.under_way(), operations.current(0), operations.any_returned) == ([], None, False)
    begun = begun_on(operations, 10, 0)
    assert begun == Operation(10, 0, 0, "f", (FOLIO,))
    assert (operations.under_way(), operations.current(0), operations.current(1)) == ([begun], 10, None)
    returned = operations.returned(15, OperationReturned("f", 10, 0, (FOLIO,)))
    assert returned == operations[10] == Operation(10, 0, 0, "f", (FOLIO,), 15)
    assert (operations.under_way(), operations.current(0), operations.any_returned) == ([], None, True)


def test_the_innermost_operation_is_the_current_one() -> None:
    operations = Operations()
    begun_on(operations, 10, 0, "outer")
    begun_on(operations, 12, 0, "inner")
    assert operations.current(0) == 12
    operations.returned(14, OperationReturned("inner", 12, 0, ()))
    assert operations.current(0) == 10


def test_operations_are_counted_by_cpu() -> None:
    """A name made of that does not depend on the order in which CPUs run."""
    operations = Operations()
    begun = [begun_on(operations, number, cpu) for number, cpu in ((10, 0), (11, 1), (12, 0), (13, 1))]
    assert [(one.cpu, one.nth) for one in begun] == [(0, 0), (1, 0), (0, 1), (1, 1)]
