"""`--trace FILE`: every event of a run, as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import click

from emu.trace import Listener
from hvolab.show.trace_json import TraceError, TraceWriter
from kernel_model.boot import System


def trace_listener(trace: Path | None, files: ExitStack) -> tuple[Callable[[System], Listener], ...]:
    """What writes to that file, open as long as `files` is. Raises BadParameter, TraceError."""
    if trace is None:
        return ()
    stream = files.enter_context(_trace_stream(trace))
    return (lambda _system: TraceWriter(stream),)


@contextmanager
def _trace_stream(trace: Path) -> Iterator[TextIO]:
    """The file to write to; what cannot be written, up to its closing, is one error."""
    try:
        stream = trace.open("w", encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"cannot write {trace}: {error.strerror}", param_hint="--trace") from None
    try:
        yield stream
    finally:
        try:
            stream.close()
        except OSError as error:
            raise TraceError(f"cannot write {trace}: {error.strerror}") from None
