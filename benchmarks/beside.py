"""What a new user waits for, beside an older checkout: `python -m benchmarks.beside CHECKOUT`.

Processor time of a process, the median of a few, and lines printed; each command here and there in turn. The
checkout is run with this interpreter, so with the same packages.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
# (what is run there, what is run here, how often)
PAIRS = (
    (("--help",), ("--help",), 7),
    (("list",), ("list",), 7),
    (("explore", "missed-cpu"), ("explore", "missed-cpu", "--first"), 3),
    (("demo",), ("demo",), 3),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: processor time in seconds, lines on standard output."""

    seconds: float
    lines: int


def cost(checkout: Path, words: tuple[str, ...]) -> Cost:
    """Run `hvolab WORDS` of that checkout."""
    module = "hvolab.command.main" if (checkout / "hvolab" / "command").is_dir() else "hvolab.cli"
    program = f"import sys; sys.argv = ['hvolab', *sys.argv[1:]]; from {module} import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "80"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environment,
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, len(done.stdout.splitlines()))


def main() -> None:
    """Print a line for each pair."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "hvolab").is_dir():
        sys.exit("usage: python -m benchmarks.beside CHECKOUT")
    there = Path(sys.argv[1]).resolve()
    for old_words, new_words, times in PAIRS:
        pairs = [(cost(there, old_words), cost(HERE, new_words)) for _ in range(times)]
        old = statistics.median(before.seconds for before, _ in pairs)
        new = statistics.median(after.seconds for _, after in pairs)
        lines = (pairs[0][0].lines, pairs[0][1].lines)
        print(
            f"hvolab {' '.join(new_words)}: {new:.3f} s beside {old:.3f} s = {new / old:.3f}; "
            f"{lines[1]} lines beside {lines[0]} = {lines[1] / max(1, lines[0]):.4f}"
        )


if __name__ == "__main__":
    main()
