"""`AssemblyError`: why a program text could not be assembled, in one line.

Promises that `str(error)` is a single printable line of bounded length whatever the program text held.
"""

_LONGEST_PART = 120


def _one_line(text: str) -> str:
    """`text` with unprintable characters shown as escapes, cut to a length that still reads as one line."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return shown if len(shown) <= _LONGEST_PART else shown[: _LONGEST_PART - 3] + "..."


class AssemblyError(ValueError):
    """A program text was refused.

    `program` is its name, `reason` says what is wrong; `line` (counted from 1) and `text` (that line
    without comment and indentation) are None where the fault is the whole program's.
    """

    def __init__(self, program: str, reason: str, line: int | None = None, text: str | None = None) -> None:
        self.program = program
        self.reason = reason
        self.line = line
        self.text = text
        place = _one_line(program) + ("" if line is None else f", line {line}")
        quote = "" if text is None else f": {_one_line(text)}"
        super().__init__(f"{place}: {_one_line(reason)}{quote}")
