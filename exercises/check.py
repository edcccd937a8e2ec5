"""Check your solutions: python exercises/check.py [08 ...] [--student NAME].

Without a number all exercises are checked. With a name you also get your number for each exercise
that is right: the answer on data of your own, which your teacher can compare.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import hmac
import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from reference import CHECKS  # noqa: E402

TRIALS = 20
UNWRITTEN = "nothing is written yet"
ALLOWED = {"numpy", "math"}


def exercises(chosen: list[str]) -> list[str]:
    """Return the names of exercises that begin with one of the given numbers or names."""
    starts = [start if start.startswith("ex") else f"ex{start:0>2}" for start in chosen] or ["ex"]
    found = [name for name in CHECKS if name.startswith(tuple(starts))]
    if not found:
        raise SystemExit(f"no exercise {' '.join(chosen)}: expected one of {', '.join(CHECKS)}")
    return found


def read_function(path: Path) -> Any:
    """Return the function of an exercise: the name of the file after its number."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.split(".")[0] not in ALLOWED:
                raise ImportError(f"imports {name}: expected only {', '.join(sorted(ALLOWED))}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem.split("_", 1)[1])


def check(path: Path, seed: int = 0) -> tuple[float, str]:
    """Return the share of right answers, and what is wrong with the first wrong one."""
    try:
        function = read_function(path)
    except Exception as error:  # whatever a student's file may raise
        return 0.0, f"{type(error).__name__}: {error}"
    test, rng = CHECKS[path.stem], np.random.default_rng(seed)
    cases = list(test.special.items())
    cases += [(f"trial {n}", test.draw(rng)) for n in range(1, TRIALS + 1)]
    faults = [(label, _fault(function, test, arguments), arguments) for label, arguments in cases]
    wrong = [case for case in faults if case[1]]
    if not wrong:
        return 1.0, ""
    label, fault, arguments = wrong[0]
    score = 1 - len(wrong) / len(faults)
    if fault == UNWRITTEN:
        return score, fault
    shown = "".join(f"\n    argument {n}: {_short(a)}" for n, a in enumerate(arguments, 1))
    return score, f"{label}: {fault}{shown}"


def number(path: Path, seed: int) -> str:
    """Return one number for the answers of a function on data of a seed."""
    function, test, rng = read_function(path), CHECKS[path.stem], np.random.default_rng(seed)
    total = 0.0
    for _ in range(TRIALS):
        arguments = test.draw(rng)
        answer = test.view(function(*copy.deepcopy(arguments)), *arguments)
        total += sum(float(np.sum(part)) for part in _parts(answer))
    return f"{total:.6g}"


def seed_of(student: str, name: str, key: str = "") -> int:
    """Return the seed of a student's data; with a key nobody else can compute it."""
    text = f"{student.strip().lower()} {name}"
    return int.from_bytes(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()[:8])


def _parts(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _fault(function: Any, test: Any, arguments: tuple[Any, ...]) -> str:
    """Return what is wrong with one answer, or nothing."""
    given = copy.deepcopy(arguments)
    try:
        answer = function(*given)
    except NotImplementedError:
        return UNWRITTEN
    except Exception as error:  # whatever a student's function may raise
        return f"raised {type(error).__name__}: {error}"
    if repr(given) != repr(arguments):
        return "an argument was changed: expected a new array"
    try:
        got, right = _parts(test.view(answer, *arguments)), _parts(test.right(*arguments))
        if len(got) != len(right):
            return f"returned {len(got)} parts, expected {len(right)}"
        for n, (mine, expected) in enumerate(zip(got, right, strict=True), 1):
            which = f"part {n}: " if len(right) > 1 else ""
            if np.shape(mine) != np.shape(expected):
                return f"{which}shape {np.shape(mine)}, expected {np.shape(expected)}"
            if not np.allclose(np.asarray(mine, float), np.asarray(expected, float), 1e-5, 1e-7):
                return f"{which}{_short(mine)}\n    expected: {_short(np.asarray(expected))}"
    except Exception as error:  # an answer of another kind
        return f"returned {_short(answer)}, which cannot be read: {error}"
    return ""


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, threshold=30, edgeitems=2)
        return f"shape {value.shape}, {' '.join(text.split())}"
    return " ".join(str(value).split())[:200]


def main() -> int:
    """Check what was asked for, and print a line for each exercise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chosen", nargs="*", help="numbers of chapters, or names of exercises")
    parser.add_argument("--student", help="your name, for your numbers")
    options = parser.parse_args()
    missing = 0
    for name in exercises(options.chosen):
        score, fault = check(HERE / f"{name}.py")
        mine = ""
        if options.student and not fault:
            mine = f", your number: {number(HERE / f'{name}.py', seed_of(options.student, name))}"
        print(f"{name}: {fault or 'right' + mine}")
        missing += score < 1
    return int(missing > 0)


if __name__ == "__main__":
    raise SystemExit(main())
