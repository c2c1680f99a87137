"""Random bytes in the shape of instructions."""

from __future__ import annotations

import random

_PREFIXES = (
    b"", b"", b"", b"", b"\x48", b"\x48", b"\x66", b"\xf0", b"\xf0\x48", b"\xf3", b"\xf2", b"\xf3\x48",
    b"\x41", b"\x4c", b"\x65", b"\x64",
)  # fmt: skip
LONGEST = 15


def random_code(rng: random.Random) -> bytes:
    """Fifteen bytes: often a prefix, often the two-byte escape, then anything."""
    escape = b"\x0f" if rng.random() < 0.4 else b""
    return (rng.choice(_PREFIXES) + escape + rng.randbytes(12)).ljust(LONGEST, b"\x90")[:LONGEST]
