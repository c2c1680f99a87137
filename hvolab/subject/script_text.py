"""Reads scripts from text, one constraint a line as `str(constraint)` has it; `#` begins a comment.

`parse_script("\\n".join(map(str, script))) == script`, always. What is no constraint is a ScriptError that
names the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from emu.addr import Pfn, VirtAddr
from emu.machine import MOST_CPUS
from hvolab.subject.pattern import (
    BeginsFlush,
    CopiesFrom,
    Finishes,
    Frees,
    Loads,
    Pattern,
    SendsIpi,
    SetsPte,
    Stores,
)
from hvolab.subject.script import (
    DEAD_ENDS,
    AsFar,
    Constraint,
    Decides,
    EndsDead,
    Interrupt,
    Makes,
    Script,
    ScriptError,
    ToEnd,
    Translates,
    Until,
)

_MOST_TIMES = 1_000_000

_LINE = re.compile(r"cpu(?P<cpu>\d{1,3}) (?P<what>.+)", re.ASCII)
_TIMES = re.compile(r"(?P<what>.+) (?P<times>\d{1,7}) times", re.ASCII)
_MAKES = re.compile(r"makes (?P<steps>\d{1,7}) steps?", re.ASCII)
_TRANSLATES = re.compile(
    r"translates (?P<page>0x[0-9a-f]{1,16}) to pfn (?P<pfn>0x[0-9a-f]{1,13}) (?P<rights>r[ow])", re.ASCII
)
_ENDS_DEAD = re.compile(
    r"walks (?P<page>0x[0-9a-f]{1,16}) from a remembered entry to (?P<lack>nothing|a reserved bit)"
    r" in pfn (?P<table>0x[0-9a-f]{1,13})",
    re.ASCII,
)
_DECIDES = re.compile(r"decides (?P<label>.+): (?P<outcome>\d{1,3})", re.ASCII)

_HEX = r"(0x[0-9a-f]{1,16})"
_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[str], Pattern]], ...] = (
    (re.compile(rf"Load\({_HEX}\)", re.ASCII), lambda text: Loads(_address(text))),
    (re.compile(rf"Store\({_HEX}\)", re.ASCII), lambda text: Stores(_address(text))),
    (re.compile(rf"set_pte_at\({_HEX}\)", re.ASCII), lambda text: SetsPte(_address(text))),
    (re.compile(rf"copy_page\(from {_HEX}\)", re.ASCII), lambda text: CopiesFrom(_address(text))),
    (re.compile(rf"free\(pfn {_HEX}\)", re.ASCII), lambda text: Frees(int(text, 16))),
    (re.compile(r"the end of (.+)"), Finishes),
    (re.compile(r"a (flush) begins"), lambda _text: BeginsFlush()),
    (re.compile(r"an (IPI) is sent"), lambda _text: SendsIpi()),
)


def parse_script(text: str) -> Script:
    """The script that the text describes. Raises ScriptError."""
    constraints: list[Constraint] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if words:
            constraints.append(_constraint(words, number))
    if not constraints:
        raise ScriptError("the script is empty")
    return tuple(constraints)


def _constraint(words: str, number: int) -> Constraint:
    line = _LINE.fullmatch(words)
    cpu = MOST_CPUS if line is None else int(line["cpu"])
    if line is None or cpu >= MOST_CPUS:
        raise ScriptError(f"line {number}: {words!r}: want 'cpu' and a number below {MOST_CPUS}, then what")
    what, times = line["what"], 1
    if what == "to its end":
        return ToEnd(cpu)
    if what == "as far as it goes":
        return AsFar(cpu)
    if what == "takes an interrupt":
        return Interrupt(cpu)
    if made := _MAKES.fullmatch(what):
        return Makes(cpu, int(made["steps"]))
    if repeated := _TIMES.fullmatch(what):
        what, times = repeated["what"], int(repeated["times"])
    found = _repeated(cpu, what, times)
    if found is None or not 0 < times <= _MOST_TIMES:
        raise ScriptError(f"line {number}: {words!r} is no constraint")
    return found


def _repeated(cpu: int, what: str, times: int) -> Constraint | None:
    if using := _TRANSLATES.fullmatch(what):
        page, pfn = VirtAddr(int(using["page"], 16)), Pfn(int(using["pfn"], 16))
        return Translates(cpu, page, pfn, using["rights"] == "rw", times)
    if walking := _ENDS_DEAD.fullmatch(what):
        page, table = VirtAddr(int(walking["page"], 16)), Pfn(int(walking["table"], 16))
        lack = next(lack for lack, words in DEAD_ENDS.items() if words == walking["lack"])
        return EndsDead(cpu, page, table, lack, times)
    if decided := _DECIDES.fullmatch(what):
        return Decides(cpu, decided["label"], int(decided["outcome"]), times)
    if what.startswith("until "):
        for shape, build in _PATTERNS:
            if found := shape.fullmatch(what.removeprefix("until ")):
                return Until(cpu, build(found[1]), times)
    return None


def _address(text: str) -> VirtAddr:
    return VirtAddr(int(text, 16))
