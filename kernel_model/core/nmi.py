"""Interrupts that nothing can mask: they come in the middle of other interrupts' handlers too.

Where a thread runs, what an NMI's handler does might as well be done by the thread: that is another order of
the same. So only handlers are beset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emu.choice import About
from emu.cpu.ops import Decide
from emu.cpu.routine import Code

Handler = Callable[[int, object], Code]


@dataclass(frozen=True, slots=True)
class Nmi:
    """What the handler of an NMI does, on whichever CPU it comes. It must not wait."""

    name: str
    routine: Callable[[], Code]


def beset(handler: Handler, nmi: Nmi) -> Handler:
    """The same handler, where one may come before each of its ops."""

    async def interrupted(request: int, payload: object) -> None:
        code: Any = handler(request, payload)
        result: object = None
        try:
            while True:
                op = code.send(result)
                if await Decide(nmi.name, about=About.ARRIVAL):
                    await nmi.routine()
                result = await op
        except StopIteration:
            pass  # it has ended
        finally:
            code.close()

    return interrupted
