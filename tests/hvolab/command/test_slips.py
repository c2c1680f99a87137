"""What a student gets wrong: each is one line on standard error, and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import hvolab

SLIPS = [
    ("rnu stale-read", "No such command 'rnu'; did you mean run?"),
    ("run stale_read", "there is no scenario 'stale_read'; did you mean stale-read?"),
    ("run", "Missing argument 'NAME'."),
    ("run stale-read --cpu 2", "No such option '--cpu'."),
    ("run stale-read --cpus two", "'two' is not a valid integer range."),
    ("run stale-read --policy nver", "there is no flush policy 'nver'; did you mean never?"),
    ("run stale-read --variant upsteam", "there is no variant 'upsteam'; did you mean upstream?"),
    ("run stale-read --cpu-model lasy", "there is no CPU model 'lasy'; did you mean lazy?"),
    ("run stale-read --variant local-only-flush", "is no variant any more: --policy local-only"),
    ("run stale-read --program nofile.S", "cannot read nofile.S"),
    (
        "run stale-read --program typo.S",
        "typo.S, line 1: the assembler knows no such instruction: mvo rax, [rdi]",
    ),
    ("run stale-read --program sse.S", "there is no SSE, AVX or x87 here, so no xmm0"),
    ("run pool-up-and-down --program ok.S", "no guest program runs there"),
    ("run stale-read --script slip.txt", "line 1: 'cpu0 untill the end' is no constraint"),
    ("run stale-read --script cpu9.txt", "'cpu9 to its end': there is no such CPU, 2 are numbered from 0"),
    ("run stale-read --schedule nonsense", "a schedule begins with 'v2'"),
    ("explore stale-read --strategy bfs", "'bfs' is not one of 'exhaustive'"),
    ("explore stale-read --nondet everything", "'everything' is not one of schedule, irq, tlb, alloc"),
    ("run stale-read --load mine", "'mine' is no FILE.py or FILE.py:NAME"),
    ("run stale-read --load nothere.py", "cannot read nothere.py: No such file or directory"),
    ("explore --all", "--all goes with --load: it asks what your file changes"),
    ("explore", "Missing argument 'NAME': a scenario, or --all"),
    ("list scenario", "'scenario' is not one of 'scenarios', 'variants', 'policies', 'models'."),
    ("step stale-read --at -1", "-1 is not in the range x>=0."),
]
FILES = {
    "ok.S": "mov rax, [rdi]\nhlt\n",
    "typo.S": "mvo rax, [rdi]\n",
    "sse.S": "movdqu xmm0, [rdi]\nhlt\n",
    "slip.txt": "cpu0 untill the end\n",
    "cpu9.txt": "cpu9 to its end\n",
}


@pytest.mark.parametrize(("command", "said"), SLIPS, ids=[command for command, _ in SLIPS])
def test_a_slip_is_one_line_and_status_2(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, contents in FILES.items():
        (tmp_path / name).write_text(contents, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = hvolab(*command.split())
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("hvolab: ")
    assert said in done.err
    assert "Traceback" not in done.out + done.err
    assert len(done.err) < 250, "no list of everything there is"
