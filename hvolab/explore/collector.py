"""Python's collector of cycles, told to look less often: while exploring it finds next to nothing.

What is remembered of states, steps and histories is much, lives long, and is walked through each time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (50_000, 20, 100)


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Within the block. Afterwards it is as it was."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
