"""What is waited for, beside an older checkout: `python -m benchmarks.beside CHECKOUT [KIND ...]`.

The kinds are `first`, what a new user meets, `explore`, whole explorations, and `search`, these without
starting Python; all, if none is named. Processor time of a process, the median of a few, its largest memory,
and lines printed; each here and there in turn. The checkout is run with this interpreter, so with the same
packages.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

HERE = Path(__file__).resolve().parents[1]
# (what is run there, what is run here, how often)
EXPLORED = ("optimize-reader", "restore-reader", "restore-neighbour", "missed-cpu")
PAIRS = {
    "first": (
        (("--help",), ("--help",), 7),
        (("list",), ("list",), 7),
        (("explore", "missed-cpu"), ("explore", "missed-cpu", "--first"), 3),
        (("demo",), ("demo",), 3),
    ),
    "explore": tuple((("explore", name, "--no-shrink", "--seconds", "900"),) * 2 + (3,) for name in EXPLORED),
}
SEARCH = """
import sys, time
from dataclasses import replace
from emu.paging.models import LAZY
from hvolab.catalog import scenario
from hvolab.explore.budget import Budget
from hvolab.explore.explorer import explore
from hvolab.explore.reduce.dpor import Reduced
from hvolab.explore.search.interface import Freedom
setup = scenario(sys.argv[1]).build(2)
setup = replace(setup, boot=replace(setup.boot, model=LAZY))
freedoms = frozenset({Freedom.SCHEDULE, Freedom.IRQ, Freedom.TLB})
begun = time.process_time()
assert explore(setup, Reduced(), freedoms, Budget(seconds=900)).coverage.complete
print(time.process_time() - begun)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process: processor time in seconds, most memory in KiB, lines on standard output."""

    seconds: float
    kib: int
    lines: int


def cost(checkout: Path, words: tuple[str, ...]) -> Cost:
    """Run `hvolab WORDS` of that checkout."""
    module = "hvolab.command.main" if (checkout / "hvolab" / "command").is_dir() else "hvolab.cli"
    program = f"import sys; sys.argv = ['hvolab', *sys.argv[1:]]; from {module} import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "80"}
    with TemporaryFile("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *words],
            env=environment,
            cwd=checkout,
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = 0
        out.seek(0)
        return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss, len(out.readlines()))


def searched(checkout: Path, name: str) -> float:
    """The complete exploration of that scenario by that checkout: processor time in seconds."""
    done = subprocess.run(
        [sys.executable, "-c", SEARCH, name],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def compare_searches(there: Path) -> None:
    """Print a line for each scenario."""
    for name in EXPLORED:
        pairs = [(searched(there, name), searched(HERE, name)) for _ in range(3)]
        old, new = (statistics.median(times) for times in zip(*pairs, strict=True))
        ratio = f"{new / old:.3f}, {old / new:.1f} times as fast"
        print(f"search of {name}: {new:.2f} s beside {old:.2f} s = {ratio}")


def compare_commands(there: Path, kind: str) -> None:
    """Print a line for each pair."""
    for old_words, new_words, times in PAIRS[kind]:
        pairs = [(cost(there, old_words), cost(HERE, new_words)) for _ in range(times)]
        old = statistics.median(before.seconds for before, _ in pairs)
        new = statistics.median(after.seconds for _, after in pairs)
        lines = (pairs[0][0].lines, pairs[0][1].lines)
        memory = max(after.kib for _, after in pairs) / max(before.kib for before, _ in pairs)
        print(
            f"hvolab {' '.join(new_words)}: {new:.3f} s beside {old:.3f} s = {new / old:.3f}; "
            f"memory {memory:.2f}; {lines[1]} lines beside {lines[0]} = {lines[1] / max(1, lines[0]):.4f}"
        )


def main() -> None:
    """Compare what is asked for."""
    known = [*PAIRS, "search"]
    kinds = sys.argv[2:] or known
    if len(sys.argv) < 2 or not (Path(sys.argv[1]) / "hvolab").is_dir() or not set(kinds) <= set(known):
        sys.exit(f"usage: python -m benchmarks.beside CHECKOUT [{'|'.join(known)}]")
    there = Path(sys.argv[1]).resolve()
    for kind in kinds:
        if kind == "search":
            compare_searches(there)
        else:
            compare_commands(there, kind)


if __name__ == "__main__":
    main()
