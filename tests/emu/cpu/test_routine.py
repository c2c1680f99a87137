"""How routines begin, and which functions they are in."""

from __future__ import annotations

from paging_rig import VA

from emu.cpu.ops import Load
from emu.cpu.routine import Anew, Root, functions_of


async def outer() -> None:
    await Load(VA)
    await inner()


async def inner() -> None:
    await Load(VA)


def test_anew_is_the_coroutine_itself_each_time() -> None:
    made = [outer(), outer()]
    begun = [Anew().begin(Root(0, "thread"), lambda code=code: code) for code in made]
    assert begun == made
    for routine in begun:
        routine.close()


def test_the_functions_that_a_coroutine_is_in_are_named_outermost_first() -> None:
    code, seen = outer(), []
    for _ in range(2):
        code.send(None)
        seen.append(functions_of(code))
    code.close()
    assert seen == [("outer",), ("outer", "inner")]
    assert functions_of("no coroutine") == ()


def test_a_root_says_what_began_where() -> None:
    assert str(Root(3, "optimize", 7)) == "optimize on cpu3"
