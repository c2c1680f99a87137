"""What is wrong with a file, or with what it says."""

from __future__ import annotations


class InputError(ValueError):
    """Input cannot be read, written or used; the message is one line saying where and what."""
