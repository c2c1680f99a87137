"""SIGINT while an exploration runs: noted once, and not to be ignored twice."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import pytest

from hvolab.explore.interrupts import held_interrupts


def test_the_first_is_noted_and_the_second_interrupts() -> None:
    with held_interrupts() as interrupts:
        assert not interrupts.asked
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_afterwards_the_handler_is_the_one_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with held_interrupts() as interrupts:
        assert signal.getsignal(signal.SIGINT) == interrupts.note
    assert signal.getsignal(signal.SIGINT) == before
    with suppress(ZeroDivisionError), held_interrupts():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) == before


def test_in_another_thread_nothing_changes() -> None:
    seen: list[object] = []

    def work() -> None:
        with held_interrupts() as interrupts:
            seen.extend([signal.getsignal(signal.SIGINT), interrupts.asked])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), False]
