"""What a routine asked for once is looked up; where that is not so, it is said which and how."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_rig import MachineRig
from paging_rig import PAGE, VA
from property_settings import PROPERTY

from emu.addr import VirtAddr
from emu.cpu.ops import Annotate, Fill, Load, Op, Rewrite, Store
from emu.cpu.recall import Recall, Unrepeatable
from emu.cpu.routine import Code, ContextKilled, Root
from emu.cpu.software import TrapOutcome

ROOT = Root(0, "thread")


class Counting:
    """How often the code of a routine was begun."""

    def __init__(self, code: Callable[[], Code]) -> None:
        self.count = 0
        self._code = code

    def __call__(self) -> Code:
        self.count += 1
        return self._code()


async def adds() -> int:
    return await inner(await Load(VA)) + await Load(VA, 4)


async def inner(first: int) -> int:
    await Store(VA, first + 1)
    return first


def told(recall: Recall, code: Callable[[], Code], *results: object, root: Root = ROOT) -> list[object]:
    """What the routine asks for, given these results; its end as a string."""
    routine = recall.begin(root, code)
    asked: list[object] = []
    try:
        for result in (None, *results):
            asked.append(routine.send(result))
    except StopIteration as stop:
        asked.append(f"returned {stop.value}")
    except ContextKilled as killed:
        asked.append(f"killed {killed}")
    routine.close()
    return asked


def test_what_has_been_asked_is_not_run_again() -> None:
    recall, code = Recall(), Counting(adds)
    whole = [Load(VA), Store(VA, 6), Load(VA, 4), "returned 7"]
    assert [told(recall, code, 5, None, 2) for _ in range(3)] == [whole] * 3
    assert (code.count, recall.nodes) == (1, 5)
    assert told(recall, code, 5, None, 3)[-1] == "returned 8"
    assert (code.count, recall.nodes) == (2, 6), "made anew where another result comes, and given the others"
    assert told(recall, code, 5, None, 3)[-1] == "returned 8"
    assert code.count == 2


def test_the_functions_it_is_in_are_known_without_it() -> None:
    recall = Recall()
    told(recall, adds, 5, None, 2)
    routine = recall.begin(ROOT, adds)
    routine.send(None)
    functions = [routine.functions]
    routine.send(5)
    assert [*functions, routine.functions] == [("adds",), ("adds", "inner")]


async def dies() -> None:
    if await Load(VA):
        raise ContextKilled("BUG")
    raise ValueError("no end of a context")


def test_how_a_routine_is_killed_is_known_and_what_it_raises_else_is_raised_each_time() -> None:
    recall, code = Recall(), Counting(dies)
    assert [told(recall, code, 1)[-1] for _ in range(2)] == ["killed BUG"] * 2
    assert code.count == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="no end of a context"):
            told(recall, code, 0)
    assert code.count == 3


def test_routines_that_begin_otherwise_are_others() -> None:
    recall, code = Recall(), Counting(adds)
    for root in (ROOT, Root(1, "thread"), Root(0, "another"), Root(0, "thread", 1)):
        told(recall, code, 5, root=root)
    assert code.count == 4
    told(recall, code, 5, root=Root(0, "thread", ["cannot be hashed"]))
    told(recall, code, 5, root=Root(0, "thread", ["cannot be hashed"]))
    assert code.count == 6, "what cannot be looked up is begun anew"


class Changing:
    """Code whose next op is another one each time it is run: what no search could follow."""

    def __init__(self) -> None:
        self.times = 0

    async def code(self) -> None:
        await Load(VA)
        self.times += 1
        await self.deeper()

    async def deeper(self) -> None:
        await Store(VA, self.times)
        await Load(VA)


SAID = (
    r"^thread on cpu0, in deeper\(\): its next step depends on something outside the machine: "
    rf"Store\(va={VA:#x}, value=2, size=8\) after the results after which it was "
    rf"Store\(va={VA:#x}, value=1, size=8\)$"
)


def test_a_routine_is_run_beside_only_while_that_is_asked_for() -> None:
    """A run that goes back into one that was checked is not checked for that."""
    recall, code = Recall(), Counting(adds)
    told(recall, code, 5, None, 2)
    recall.checking = True
    routine = recall.begin(ROOT, code)
    recall.checking = False
    routine.send(None)
    assert code.count == 1


def test_another_op_after_the_same_results_is_said() -> None:
    changing, recall = Changing(), Recall()
    told(recall, changing.code, 0)
    told(recall, changing.code, 0)
    recall.checking = True
    with pytest.raises(Unrepeatable, match=SAID):
        told(recall, changing.code, 0)


def test_another_op_on_the_way_to_something_new_is_said() -> None:
    changing, recall = Changing(), Recall()
    told(recall, changing.code, 0)
    with pytest.raises(Unrepeatable, match=SAID):
        told(recall, changing.code, 0, None)


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (Fill(VA, bytearray(8)), f"Fill of va={VA:#x}, data=bytearray"),
        (Annotate({1, 2}), r"Annotate of payload=\{1, 2\}"),
        (Rewrite(VA, 8, (lambda kept: lambda _before: kept)(b"x" * 8)), "Rewrite of va="),
    ],
    ids=["a buffer that is used again", "a set", "a function over a variable of another"],
)
def test_an_op_that_can_change_after_it_was_awaited_is_refused(op: Op, said: str) -> None:
    """It is kept: changed, it would be another op in every later run."""

    async def awaits() -> None:
        await op

    with pytest.raises(Unrepeatable, match=rf"in awaits\(\): what it awaits can change after that: {said}"):
        told(Recall(), awaits)


def test_what_a_thread_returns_is_nobodys_affair_and_what_a_handler_does_is() -> None:
    recall, answers = Recall(), iter((object(), object(), TrapOutcome.RETRY, TrapOutcome.KILL))
    recall.checking = True

    async def returns() -> object:
        return next(answers)

    assert len([told(recall, returns) for _ in range(2)]) == 2
    told(recall, returns, root=Root(0, "trap"))
    with pytest.raises(Unrepeatable, match="its end after the results after which it was its end"):
        told(recall, returns, root=Root(0, "trap"))


def test_what_a_rewrite_makes_is_its_own_affair_but_not_where() -> None:
    recall, page = Recall(), VirtAddr(VA)

    async def rewrites() -> None:
        await Rewrite(page, 8, lambda before: before)

    recall.checking = True
    assert len({str(told(recall, rewrites, b"")[-1]) for _ in range(2)}) == 1
    page = VirtAddr(VA + 8)
    with pytest.raises(Unrepeatable):
        told(recall, rewrites)


# --- on a machine ---------------------------------------------------------------------------------------

OPS: tuple[Op, ...] = (Load(VA), Store(VA, 7), Load(VirtAddr(VA + PAGE)), Annotate("here"), Fill(VA, b"xyz"))


@settings(PROPERTY, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, len(OPS) - 1), max_size=6), min_size=2, max_size=2),
    st.lists(st.lists(st.integers(0, 1), max_size=14), min_size=2, max_size=5),
)
def test_a_machine_that_recalls_does_what_one_does_that_runs_it_all(
    programs: list[list[int]], orders: list[list[int]]
) -> None:
    """The same events, whatever was known before from runs in other orders."""

    def routine(cpu: int) -> Callable[[], Code]:
        async def thread() -> None:
            total = 0
            for number in programs[cpu]:
                result = await OPS[number]
                total += result if isinstance(result, int) else 1
                if total % 3 == 1:
                    await Store(VirtAddr(VA + 8), total)

        return thread

    def events(rig: MachineRig, order: list[int]) -> list[object]:
        rig.events.clear()
        rig.machine.trace.listen(lambda _number, event: rig.events.append(event))
        for cpu in (0, 1):
            rig.thread(cpu, routine(cpu))
        for cpu in order:
            if rig.machine.cpus[cpu].top is not None:
                rig.step(cpu)
        rig.run()
        rig.machine.reset()
        return list(rig.events)

    plain, recalling = MachineRig(2, listens=False), MachineRig(2, listens=False)
    recalling.machine.routines = Recall()
    for rig in (plain, recalling):
        rig.machine.mark_time_zero()
    for order in orders:
        assert events(recalling, order) == events(plain, order)


def test_while_checking_no_instruction_is_known() -> None:
    recall = Recall()
    known = recall.instructions
    recall.checking = True
    assert recall.instructions is None
    recall.checking = False
    assert recall.instructions is known is not None
