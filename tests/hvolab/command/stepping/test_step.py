"""`hvolab step`: without a terminal, keys come from standard input."""

from __future__ import annotations

import io
import re
import sys

import pytest
from command_line import Printed, hvolab


def keyed(monkeypatch: pytest.MonkeyPatch, keys: str, *words: str) -> Printed:
    monkeypatch.setattr(sys, "stdin", io.StringIO(keys))
    return hvolab("step", *words)


def events(done: Printed) -> list[int]:
    assert (done.status, done.err) == (0, "")
    return [int(number) for number in re.findall(r" event (\d+) of ", done.out)]


def test_keys_go_forwards_and_backwards_and_to_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    done = keyed(monkeypatch, "nnp$p0q", "missed-cpu")
    last = int(re.findall(r" of (\d+), ", done.out)[0])
    assert events(done) == [0, 1, 2, 1, last, last - 1, 0]


def test_a_jump_leads_to_the_next_of_its_kind_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    done = keyed(monkeypatch, "fFfsv", "missed-cpu")
    parts = re.split(r"─+ event \d+ of \d+, cpu\d ─+", done.out)[1:]
    assert "flush_tlb_kernel_range begins" in parts[1]
    assert "no more of that" in parts[1]
    assert "is complete" in parts[2]
    assert "set_pte_at" in parts[3]
    assert "violation: missed-flush" in parts[4]
    assert "pfn 0x4200 ro nx 4K  pfn 0x7f01 rw nx 4K STALE" in parts[4]


def test_a_fault_is_gone_to_with_x(monkeypatch: pytest.MonkeyPatch) -> None:
    done = keyed(monkeypatch, "x", "tail-write")
    assert "#PF error code 3 at 0xffffea0000101028" in done.out
    assert "in write_tail 0xffffffff81003000: mov qword ptr [rdi], rsi" in done.out


def test_a_key_that_is_none_shows_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "n next  p back" in keyed(monkeypatch, "z", "stale-read").out


def test_one_event_can_be_asked_for_without_any_key() -> None:
    done = hvolab("step", "missed-cpu", "--at", "313")
    assert events(done) == [313]
    assert max(map(len, done.out.splitlines())) <= 80


def test_a_schedule_can_be_gone_through() -> None:
    replay = re.search(r"--schedule '(.*)'", hvolab("run", "missed-cpu").out)
    assert replay is not None
    assert events(hvolab("step", "missed-cpu", "--schedule", replay[1], "--at", "0")) == [0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("missed-cpu", "--at", "9999"), "9999 is after the last event, 315"),
        (("mised-cpu",), "there is no scenario 'mised-cpu'; did you mean missed-cpu?"),
    ],
)
def test_a_slip_is_one_line(words: tuple[str, ...], said: str) -> None:
    done = hvolab("step", *words)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err
