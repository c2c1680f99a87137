"""From a program text to a `Program`: the door for programs that do not come with the project.

Promises that a text that cannot be assembled ends in one AssemblyError, whose message is one line fit for a
user. Reads no file: whoever has the text says what to call it.
"""

from firmware.assemble import assemble
from firmware.program import Argument, Program, Result

USER_ORIGIN = 0xFFFFFFFF81100000
"""Virtual address a program is linked at when nobody says otherwise: a page that no program of the catalog
uses."""


def load_program(
    name: str,
    source: str,
    *,
    question: str = "",
    arguments: tuple[Argument, ...] = (),
    results: tuple[Result, ...] = (),
    origin: int = USER_ORIGIN,
) -> Program:
    """Assemble `source` into a Program linked at virtual address `origin`, the start of a 4096-byte page.

    `name` is what errors call the program; a file name will do. Raises AssemblyError, as
    `firmware.assemble.assemble` does, and ValueError when a description names an unknown register or one
    register twice.
    """
    assembled = assemble(source, origin, name)
    return Program(
        name=name,
        question=question,
        arguments=arguments,
        results=results,
        source=source,
        origin=origin,
        code=assembled.code,
        labels=assembled.labels,
    )
