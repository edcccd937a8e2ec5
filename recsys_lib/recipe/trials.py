"""A file of trials, so that a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.compression import named_weights
from recsys_lib.data import Split
from recsys_lib.models.factors import Factors
from recsys_lib.recipe.steps import Recipe
from recsys_lib.training.checkpoint import fingerprint

_FORMAT = "recsys_lib recipe search 1"


class TrialLog:
    """Trials by recipe, in memory and in a file of one JSON line each.

    A line that was cut off when the process died is left out, and the file goes on without it.

    Args:
        path: of the file, None for memory alone; it is made if it is not there.
        mark: of the search, see :func:`search_mark`.

    Raises:
        ValueError: a file of another search, or no such file at all.

    Example:
        >>> log = TrialLog(None, "")
        >>> log.add([], -0.01, 123, 4.5)
        >>> log.get([])
        (-0.01, 123, 4.5)
    """

    def __init__(self, path: str | os.PathLike[str] | None, mark: str) -> None:
        self._path = None if path is None else Path(path)
        self._known: dict[str, tuple[float, int, float]] = {}
        if self._path is None:
            return
        if not self._path.exists():
            self._write({"format": _FORMAT, "search": mark}, "x")
            return
        content = self._path.read_bytes()
        whole, _, _ = content.rpartition(b"\n")
        header, *entries = [_parse(line) for line in whole.split(b"\n")]
        if header.get("format") != _FORMAT:
            raise ValueError(f"checkpoint is {self._path}: expected the file of a search")
        if header.get("search") != mark:
            raise ValueError(
                f"checkpoint is {self._path}, the file of a search with another model, other data "
                "or settings: expected its own, or a name that is not taken"
            )
        for place, entry in enumerate(entries):
            if entry.keys() != {"recipe", "change", "file_bytes", "p50_us"}:
                raise ValueError(
                    f"checkpoint is {self._path}, whose line {place + 2} is damaged: expected a "
                    "trial on each line"
                )
            time = float("nan") if entry["p50_us"] is None else entry["p50_us"]
            self._known[entry["recipe"]] = (entry["change"], entry["file_bytes"], time)
        os.truncate(self._path, len(whole) + 1)

    def get(self, recipe: Recipe) -> tuple[float, int, float] | None:
        """Return change, bytes and median latency of a recipe, or None if it is not known."""
        return self._known.get(_key(recipe))

    def add(self, recipe: Recipe, change: float, file_bytes: int, p50_us: float) -> None:
        """Note a trial, in the file before it counts."""
        entry = {"recipe": _key(recipe), "change": change, "file_bytes": file_bytes}
        self._write(entry | {"p50_us": None if np.isnan(p50_us) else p50_us}, "a")
        self._known[_key(recipe)] = (change, file_bytes, p50_us)

    def _write(self, entry: dict[str, object], mode: str) -> None:
        if self._path is not None:
            with self._path.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())


def search_mark(factors: Factors, data: Split, *settings: object) -> str:
    """Return a text that differs for another model, other data or other settings.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> factors = Factors(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
        >>> split = Split(*Interactions([0, 0, 1], [0, 1, 1], num_users=2).split_leave_one_out())
        >>> search_mark(factors, split, 1) == search_mark(factors, split, 2)
        False
    """
    known = (factors.how_to_fold_in, fingerprint(data.train), fingerprint(data.test), *settings)
    digest = hashlib.sha256(repr((factors, known)).encode())
    for table in (*named_weights(factors).values(), data.negatives):
        if table is not None:
            digest.update(np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def _key(recipe: Recipe) -> str:
    return repr(list(recipe))


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
