"""Run tests, or notebooks, side by side on the cores; then those that need more of them.

Tests that time things come alone; chapters that start processes, beside each other only.

Usage: run_tests.py [--notebooks [--shaken]] [options of pytest ...]

With --shaken every score moves by a unit in its last place before it is ranked, as another
processor's would.

The last line counts both parts; the exit status is that of the first part that failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=900"]
# Chapters with processes of their own, which take more than a core: after the others.
MANY_PROCESSES = ("18", "20")
# They begin first, so that none is left for the end, when the other cores have nothing to do.
LONGEST = ("06", "13", "23", "12", "08", "14", "17", "07", "09", "24")
# A test that names one of these is marked `alone`, see tests/conftest.py.
CLOCKS = {"perf_counter", "process_time", "monotonic", "measure_latency", "compare_latency"}
WORKERS = min(4, os.cpu_count() or 1)
SIDE_BY_SIDE = ["-n", str(WORKERS), "--dist", "loadfile"]
# A worker has a core to itself: more threads would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def parts_of_tests(options: list[str]) -> tuple[list[str], list[str]]:
    """Return the options for the tests that may run side by side, and for the others."""
    marks = "alone"
    if "-m" in options:
        at = options.index("-m")
        marks = f"({options[at + 1]}) and alone"
        options = options[:at] + options[at + 2 :]
    together = [*options, "-m", marks.replace("alone", "not alone")]
    if not any(Path(option.partition("::")[0]).exists() for option in options):
        # Only files that may hold one: to import all of them takes as long as to run these.
        texts = ((path, path.read_text("utf-8")) for path in (ROOT / "tests").rglob("test_*.py"))
        options = [*options, *(str(path) for path, text in texts if _may_be_alone(path, text))]
    return together, [*options, "-m", marks]


def _may_be_alone(path: Path, text: str) -> bool:
    return "site" not in path.parts and any(word in text for word in CLOCKS | {"mark.alone"})


def parts_of_notebooks(options: list[str]) -> tuple[list[str], list[str]]:
    """Return the options for the notebooks of one process, and for those of several."""
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    paths.sort(key=lambda path: not path.name.startswith(LONGEST))
    several = [str(path) for path in paths if path.name.startswith(MANY_PROCESSES)]
    others = [str(path) for path in paths if str(path) not in several]
    keep_order = ["--no-loadscope-reorder"]
    # Chapter 20 waits for half of its time; the processes of chapter 18 use it.
    return [*NBVAL, *keep_order, *options, *others], [*NBVAL, *SIDE_BY_SIDE, *options, *several]


def run(options: list[str], environment: dict[str, str], counts: Counter[str]) -> int:
    """Run pytest, show what it prints, add its last line up; return its exit status."""
    command = [sys.executable, "-u", "-m", "pytest", "-q", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        last = ""
        while piece := process.stdout.readline():
            print(piece, end="", flush=True)
            last = piece if piece.strip() else last
    for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)", last):
        counts[kind.removesuffix("s")] += int(number)
    return 0 if process.returncode == 5 else process.returncode  # 5: nothing of this kind


def main() -> int:
    """Run both parts, whatever the first one gives."""
    options, started = sys.argv[1:], time.monotonic()
    if "--notebooks" in options:
        options.remove("--notebooks")
        if "--shaken" in options:
            options.remove("--shaken")
            paths = [str(ROOT / "tests" / "shaken"), os.environ.get("PYTHONPATH", "")]
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        together, alone = parts_of_notebooks(options)
    else:
        together, alone = parts_of_tests(options)
    counts: Counter[str] = Counter()
    first = run([*SIDE_BY_SIDE, *together], ONE_THREAD, counts)
    if first == 2:  # interrupted
        return first
    second = run(alone, {}, counts)
    summary = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    print(f"Together: {summary or 'nothing ran'} in {time.monotonic() - started:.0f} s")
    return first or second or (not counts)


if __name__ == "__main__":
    raise SystemExit(main())
