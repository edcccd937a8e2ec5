"""The best k of many items for a user: exact search over float32, 8-bit or 4-bit vectors."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_k
from recsys_lib.files import read_file, write_file
from recsys_lib.serving.float_search import search_float
from recsys_lib.serving.item_codes import ItemCodes, encode_items
from recsys_lib.serving.vector_checks import check_exclude, check_queries, check_vectors

PRECISIONS = {"float32": 32, "int8": 8, "int4": 4}
# Keeping more than this in order during the scan costs more than ordering all scores once.
_LARGEST_SCAN_K = 512


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found, best first.

    Args:
        item_ids: (b, k) int64, -1 where no item is left.
        scores: (b, k) float32 inner products, -inf where no item is left.
        rescored: (b,) int64, how many items were scored on their float32 vectors.

    Example:
        >>> TopKIndex(np.eye(3)).search([0.0, 2.0, 1.0], k=2)
        SearchResult(1 user, k = 2, rescored 2 a user)
    """

    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    rescored: NDArray[np.int64]

    def __repr__(self) -> str:
        users, k = self.item_ids.shape
        mean = float(np.mean(self.rescored)) if users else 0.0
        plural = "" if users == 1 else "s"
        return f"SearchResult({users:,} user{plural}, k = {k}, rescored {mean:,.0f} a user)"


class TopKIndex:
    """Exact maximum inner product search.

    All precisions give the same answer, which is that of float32 vectors; they differ in how many
    bytes a search reads. ``"int8"`` and ``"int4"`` scan rounded vectors, drop what provably cannot
    be among the best, and score the rest on float32 (:mod:`recsys_lib.serving.scan`); they need
    Numba (``pip install recsys-lib[serving]``), and without it search float32 after a warning.
    The first index of a process compiles the scan: seconds, once.

    A score is the inner product, summed in float64 and rounded to float32. Equal scores are in
    order of item id, lowest first. Item ids are row numbers of ``item_vectors``.

    Args:
        item_vectors: (num_items, embedding_dim) finite numbers; kept as float32. No items is fine.
        precision: "float32", "int8" or "int4".
        num_threads: threads that share the users of a batch (int8, int4); one user takes one.

    Raises:
        TypeError: item_vectors are not real numbers.
        ValueError: not two dimensions, no dimension, NaN, infinity or values of 1e16 and more, or
            an unknown precision.

    Example:
        >>> index = TopKIndex([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
        >>> result = index.search([[2.0, 1.0]], k=3)
        >>> result.item_ids.tolist(), result.scores.tolist()
        ([[2, 3, 0]], [[3.0, 3.0, 2.0]])
        >>> index.search([[2.0, 1.0]], k=3, exclude=[[0, 2]]).item_ids.tolist()
        [[3, 1, -1]]
    """

    def __init__(
        self, item_vectors: ArrayLike, precision: str = "float32", *, num_threads: int = 1
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}: expected one of {sorted(PRECISIONS)}")
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise ValueError(f"num_threads is {num_threads!r}: expected an integer of at least 1")
        vectors = check_vectors("item_vectors", item_vectors)
        self.precision, self.num_threads = precision, num_threads
        self.num_items, self.embedding_dim = vectors.shape
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        self._row_ids = np.argsort(-lengths, kind="stable")  # longest first
        self._rows = np.ascontiguousarray(vectors[self._row_ids])
        self._longest = float(lengths.max(initial=0.0))
        self._codes: ItemCodes | None = None
        if precision != "float32" and _has_numba():
            from recsys_lib.serving.scan import scan

            codes = encode_items(self._rows, PRECISIONS[precision])
            table = (codes.bits, codes.blocks, codes.bounds, self._rows, self._row_ids)
            self._codes, self._scanner = codes, partial(scan, *table)

    def __repr__(self) -> str:
        return f"TopKIndex({self.num_items:,} items, d = {self.embedding_dim}, {self.precision})"

    @property
    def scanned_bytes(self) -> int:
        """Bytes that the search for one user reads, apart from the vectors of the rescored."""
        return self._rows.nbytes if self._codes is None else self._codes.nbytes

    def search(
        self, user_vectors: ArrayLike, k: int = 10, *, exclude: Sequence[ArrayLike] | None = None
    ) -> SearchResult:
        """Give the k items of highest inner product for each user.

        Args:
            user_vectors: (b, embedding_dim), or (embedding_dim,) for one user.
            k: how many, at least 1; where fewer items are left, -1 fills up.
            exclude: b lists of item ids that are not to be found, such as those already seen.

        Returns:
            (b, k) ids and scores.

        Raises:
            TypeError: k or ids are not integers, or vectors not real numbers.
            ValueError: k below 1, a wrong dimension, NaN, infinity or values of 1e16 and more, an
                unknown item id, or as many lists in exclude as there are not users.
        """
        check_k(k)
        queries = check_queries(user_vectors, self.embedding_dim)
        excluded, starts = check_exclude(exclude, len(queries), self.num_items)
        width = min(k, self.num_items)
        if self._codes is None or width > _LARGEST_SCAN_K:
            found = search_float(
                self._rows, self._row_ids, self._longest, queries, width, excluded, starts
            )
        else:
            found = self._scan(queries, width, excluded, starts)
        return SearchResult(_pad(found[0], k, -1), _pad(found[1], k, -np.inf), found[2])

    def _scan(
        self,
        queries: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.int64],
        starts: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
        num_users = len(queries)
        ids = np.empty((num_users, k), np.int64)
        scores = np.empty((num_users, k), np.float32)
        rescored = np.empty(num_users, np.int64)
        threads = min(self.num_threads, num_users)
        if threads < 2:
            self._scanner(queries, excluded, starts, scores, ids, rescored)
            return ids, scores, rescored

        def take(first: int, last: int) -> None:
            part = slice(first, last)
            own = starts[first : last + 1]
            self._scanner(queries[part], excluded, own, scores[part], ids[part], rescored[part])

        cuts = np.linspace(0, num_users, threads + 1).astype(int).tolist()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(take, cuts[:-1], cuts[1:]))
        return ids, scores, rescored

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the vectors and settings to one file: whole, or not at all.

        Codes are not stored: they are made again when the file is opened, so that no file can hold
        codes that do not fit its vectors.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            FileNotFoundError: the folder does not exist.
        """
        vectors = np.empty_like(self._rows)
        vectors[self._row_ids] = self._rows
        write_file(path, "TopKIndex", {"precision": self.precision}, {"item_vectors": vectors})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, num_threads: int = 1) -> Self:
        """Read an index written by :meth:`save`; no code is run from the file.

        Args:
            path: of the file.
            num_threads: as in the constructor.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, foreign, or not an index.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     TopKIndex(np.eye(3)).save(f"{folder}/items")
            ...     TopKIndex.load(f"{folder}/items")
            TopKIndex(3 items, d = 3, float32)
        """
        _, settings, arrays = read_file(path, ["TopKIndex"])
        return cls(arrays["item_vectors"], settings["precision"], num_threads=num_threads)


def _pad(values: NDArray[Any], k: int, filler: float) -> NDArray[Any]:
    missing = k - values.shape[1]
    if missing == 0:
        return values
    return np.pad(values, ((0, 0), (0, missing)), constant_values=filler)


def _has_numba() -> bool:
    if importlib.util.find_spec("numba") is not None:
        return True
    warnings.warn(
        "Numba is not installed: TopKIndex searches float32 vectors, with the same answers but "
        "slower; for 8 and 4 bits install recsys-lib[serving]",
        stacklevel=3,
    )
    return False
