"""A file of trials, so that a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.data import Split
from recsys_lib.models.factors import Factors
from recsys_lib.recipe.steps import Recipe

_FORMAT = "recsys_lib recipe search 1"


class TrialLog:
    """Trials by recipe, in memory and in a file of one JSON line each.

    A line that was cut off when the process died is left out, and the file goes on without it.

    Args:
        path: of the file, None for memory alone; it is made if it is not there.
        mark: of the search, see :func:`fingerprint`.

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
        first, *lines = content.split(b"\n")
        if _parse(first).get("format") != _FORMAT:
            raise ValueError(f"checkpoint is {self._path}: expected the file of a search")
        if _parse(first).get("search") != mark:
            raise ValueError(
                f"checkpoint is {self._path}, the file of a search with another model, other data "
                "or settings: expected its own, or a name that is not taken"
            )
        for line in lines:
            entry = _parse(line)
            if "recipe" in entry:
                time = float("nan") if entry["p50_us"] is None else entry["p50_us"]
                self._known[entry["recipe"]] = (entry["change"], entry["file_bytes"], time)
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with self._path.open("r+b") as file:
                file.truncate(len(whole))

    def get(self, recipe: Recipe) -> tuple[float, int, float] | None:
        """Give change, bytes and median latency of a recipe, or None if it is not known."""
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


def fingerprint(factors: Factors, data: Split, *settings: object) -> str:
    """Give a text that differs for another model, other data or other settings.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> factors = Factors(np.ones((2, 1), np.float32), np.ones((2, 1), np.float32))
        >>> split = Split(*Interactions([0, 0, 1], [0, 1, 1], num_users=2).split_leave_one_out())
        >>> fingerprint(factors, split, 1) == fingerprint(factors, split, 2)
        False
    """
    digest = hashlib.sha256(repr((factors, factors.how_to_fold_in, *settings)).encode())
    tables = [factors.item_vectors, factors.user_vectors, data.negatives]
    for part in (data.train, data.test):
        tables += [part.user_ids, part.item_ids]
    for table in tables:
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
