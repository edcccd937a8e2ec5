"""For teachers: hand the exercises out, and grade what comes back.

python exercises/grade.py hand-out FOLDER           copy the exercises, without solutions
python exercises/grade.py grade FOLDER [-o FILE]    a subfolder for each student; writes a CSV
python exercises/grade.py one FILE --student NAME   one file of one student
python exercises/grade.py numbers FILE [-o FILE]    a CSV of student, exercise, number

`grade` and `one` run what students wrote, on data that follow from the name of the student and the
variable EXERCISES_SECRET: do so in a container. `numbers` compares the numbers that students got
from check.py --student, and runs nothing of theirs.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from check import CHECKS, HERE, check, number, seed_of

SECONDS = 60
HANDED_OUT = ("README.md", "check.py", "reference.py")


def hand_out(folder: Path) -> None:
    """Copy the stubs and what checks them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*HANDED_OUT, *(f"{name}.py" for name in CHECKS)):
        shutil.copy(HERE / name, folder)


def scores(files: dict[str, Path], student: str, secret: str) -> dict[str, tuple[float, str]]:
    """Return for each exercise the share of right answers on hidden data, and what is wrong.

    The files of a student run in one process. What stops it costs one exercise, not the others.
    """
    safe = {key: value for key, value in os.environ.items() if key != "EXERCISES_SECRET"}
    points = dict.fromkeys(files, (0.0, "no file"))
    left = [name for name, path in files.items() if path.exists()]
    while left:
        tasks = [f"{files[name].resolve()}={seed_of(student, name, secret)}" for name in left]
        command = [sys.executable, str(HERE / "grade.py"), "run", *tasks]
        try:
            run = subprocess.run(command, env=safe, capture_output=True, timeout=SECONDS)
            output, reason = run.stdout, "ended the program"
        except subprocess.TimeoutExpired as stopped:
            output, reason = stopped.stdout or b"", f"took more than {SECONDS} seconds"
        for line in output.decode(errors="replace").splitlines():
            if left and line.startswith(f"score of {left[0]}: "):
                share, _, fault = line.split(": ", 1)[1].partition(" ")
                points[left.pop(0)] = float(share), fault
        if left:
            points[left.pop(0)] = 0.0, reason
    return points


def run_tasks(tasks: list[str]) -> None:
    """Print a line for each task, which is a file and a seed."""
    for task in tasks:
        path, _, seed = task.rpartition("=")
        share, fault = check(Path(path), int(seed))
        line = f"{share:.2f} {fault.splitlines()[0] if fault else ''}"
        print(f"\nscore of {Path(path).stem}: {line}", flush=True)


def grade(folder: Path, secret: str) -> list[dict[str, object]]:
    """Return a row for each student and exercise."""
    rows: list[dict[str, object]] = []
    for student in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = {name: student / f"{name}.py" for name in CHECKS}
        for name, (points, fault) in scores(files, student.name, secret).items():
            row = {"student": student.name, "exercise": name, "score": points, "fault": fault}
            rows.append(row)
    return rows


def compare_numbers(path: Path) -> list[dict[str, object]]:
    """Return the rows of a CSV with the right number beside each."""
    rows: list[dict[str, object]] = []
    for row in csv.DictReader(path.read_text("utf-8").splitlines()):
        name = row["exercise"].strip()
        right = number(HERE / "solutions" / f"{name}.py", seed_of(row["student"], name))
        try:
            close = abs(float(row["number"]) - float(right)) <= 1e-4 * max(1, abs(float(right)))
        except ValueError:
            close = False
        rows.append({**row, "expected": right, "score": int(close)})
    return rows


def main() -> None:
    """Do what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["hand-out", "grade", "one", "numbers", "run"])
    parser.add_argument("path", nargs="+")
    parser.add_argument("--student", default="")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    path, secret = Path(options.path[0]), os.environ.get("EXERCISES_SECRET", "")
    if options.action in {"grade", "one"} and not secret:
        raise SystemExit("EXERCISES_SECRET is empty: expected a secret text of yours")
    if options.action == "hand-out":
        return hand_out(path)
    if options.action == "run":
        return run_tasks(options.path)
    if options.action == "one":
        points, fault = scores({path.stem: path}, options.student, secret)[path.stem]
        return print(f"{options.student} {path.stem}: {points} {fault}")
    rows = grade(path, secret) if options.action == "grade" else compare_numbers(path)
    with (
        options.output.open("w", newline="") if options.output else nullcontext(sys.stdout) as file
    ):
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["student"])
        writer.writeheader()
        writer.writerows(rows)
    return None


if __name__ == "__main__":
    main()
