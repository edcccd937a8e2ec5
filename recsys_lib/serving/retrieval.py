"""The best k of many items for a user: exact search over float32 or 8-bit vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import as_array, check_choice, check_ids, check_k, check_number, check_type
from recsys_lib.files import read_file, reading, write_file

# Keeping more than this in order during the scan costs more than ordering all scores once.
_LARGEST_SCAN_K = 512
# Scores are float32: products of larger values could leave its range.
_LARGEST_VALUE, _LARGEST_DIM = 1e16, 1 << 16
_SCORES_AT_ONCE = 1 << 22  # 4 million float32, 16 MB
_BLOCK = 256
_TINY = 1e-32  # products below the range of float32 may be lost, up to 1e-37 each

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
_NO_IDS = np.empty(0, np.int64)


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

    item_ids: Ids
    scores: Floats
    rescored: Ids

    def __repr__(self) -> str:
        users, k = self.item_ids.shape
        mean = float(np.mean(self.rescored)) if users else 0.0
        plural = "" if users == 1 else "s"
        return f"SearchResult({users:,} user{plural}, k = {k}, rescored {mean:,.0f} a user)"


class TopKIndex:
    """Exact maximum inner product search.

    Both precisions give the same answer, which is that of float32 vectors; they differ in how many
    bytes a search reads. ``"int8"`` scans rounded vectors, drops what provably cannot be among the
    best, and scores the rest on float32 (:mod:`recsys_lib.serving.scan`). The first
    index of a process compiles the scan: seconds, once.

    A score is the inner product, summed in float64 and rounded to float32. Equal scores are in
    order of item id, lowest first. Item ids are row numbers of ``item_vectors``.

    Args:
        item_vectors: (num_items, embedding_dim) finite numbers; kept as float32. No items is fine.
        precision: "float32" or "int8".
        num_threads: threads that share the users of a batch ("int8"); one user takes one.

    Attributes:
        scanned_bytes: bytes that the search for one user reads, without the rescored vectors.

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
        self.precision = check_choice("precision", precision, ("float32", "int8"))
        self.num_threads = check_number("num_threads", num_threads, 1, integer=True)
        vectors = _as_vectors("item_vectors", item_vectors)
        self.num_items, self.embedding_dim = vectors.shape
        lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
        self._row_ids = np.argsort(-lengths, kind="stable")  # longest first
        self._rows = np.ascontiguousarray(vectors[self._row_ids])
        longest = float(lengths.max(initial=0.0))
        self._multiply = partial(_search_float, self._rows, self._row_ids, longest)
        self._scan: Callable[..., bool] | None = None
        self.scanned_bytes = self._rows.nbytes
        if precision == "int8":
            from recsys_lib.serving.item_codes import encode_items
            from recsys_lib.serving.scan import scan

            codes = encode_items(self._rows)
            self._scan = partial(scan, *codes, self._rows, self._row_ids)
            self.scanned_bytes = sum(part.nbytes for part in codes)

    def __repr__(self) -> str:
        return f"TopKIndex({self.num_items:,} items, d = {self.embedding_dim}, {self.precision})"

    def search(
        self, user_vectors: ArrayLike, k: int = 10, *, exclude: Sequence[ArrayLike] | None = None
    ) -> SearchResult:
        """Return the k items of highest inner product for each user.

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
        # A scan leaves cold caches behind, in which each call of NumPy costs microseconds: what is
        # done for one user is little, and the scan itself looks for NaN.
        k = check_k(k)
        queries = as_array("user_vectors", user_vectors)
        queries = queries[None] if queries.ndim == 1 else queries
        find = self._multiply if self._scan is None or k > _LARGEST_SCAN_K else self._scan
        ready = queries.dtype == np.float32 and queries.ndim == 2 and queries.flags.c_contiguous
        if find is self._multiply or not ready:
            queries = _as_vectors("user_vectors", queries)
        if queries.shape[1] != self.embedding_dim:
            came, expected = queries.shape[1], self.embedding_dim
            raise ValueError(f"user_vectors has dimension {came}: expected {expected}")
        b = len(queries)
        excluded, starts = _join_excluded(exclude, b, self.num_items)
        ids, scores = np.empty((b, k), np.int64), np.empty((b, k), np.float32)
        arrays = queries, scores, ids, np.empty(b, np.int64)
        threads = min(self.num_threads, b) if find is self._scan else 1
        if threads < 2:
            done = [find(excluded, starts, *arrays)]
        else:
            cuts = [b * t // threads for t in range(threads + 1)]

            def take(first: int, last: int) -> bool:
                return find(excluded, starts[first : last + 1], *(a[first:last] for a in arrays))

            with ThreadPoolExecutor(threads) as pool:
                done = list(pool.map(take, cuts[:-1], cuts[1:]))
        if not all(done):
            _as_vectors("user_vectors", queries)  # says which value it is
        return SearchResult(ids, scores, arrays[3])

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
        num_threads = check_number("num_threads", num_threads, 1, integer=True)
        kind, settings, arrays = read_file(path, ["TopKIndex"])
        with reading(path, kind):
            return cls(arrays["item_vectors"], settings["precision"], num_threads=num_threads)


def merge_top_k(
    results: Sequence[SearchResult], item_ids: Sequence[ArrayLike], k: int = 10
) -> SearchResult:
    """Return what one index of all items would find, from what the indexes of its parts found.

    Exact, ties included: an item among the best k of all is among the best k of its part, as fewer
    items stand before it there. The order is that of :class:`TopKIndex`: by score, then by id.

    Args:
        results: of each part, for the same users, each with k columns or more.
        item_ids: for each part, the item ids that its rows stand for, in rising order.
        k: how many, at least 1.

    Raises:
        TypeError: k is not an integer.
        ValueError: no part, not a list of ids for each, ids that are no whole numbers or do not
            rise (of those found), other users, or a part with fewer than k columns: item k of all
            could be missing.

    Example:
        >>> odd, even = TopKIndex([[2.0], [3.0]]), TopKIndex([[3.0], [1.0]])
        >>> found = [part.search([[1.0]], k=2) for part in (odd, even)]
        >>> merge_top_k(found, [[1, 3], [0, 2]], k=2).item_ids.tolist()
        [[0, 3]]
    """
    k, shapes = check_k(k), {found.item_ids.shape for found in results}
    if len(results) != len(item_ids) or len({users for users, _ in shapes}) != 1:
        raise ValueError("results, item_ids: expected one of each for a part, for the same users")
    if min(width for _, width in shapes) < k:
        raise ValueError(f"results have shapes {sorted(shapes)}: expected at least k = {k} columns")
    columns = []
    for found, part in zip(results, item_ids, strict=True):
        rows, own = found.item_ids, np.asarray(part)
        used = np.unique(rows[rows >= 0])
        if len(used) and (own.dtype.kind not in "iu" or used[-1] >= len(own)):
            raise ValueError(f"item_ids has {len(own)} {own.dtype}: expected an id for each row")
        if (np.diff(own[used], prepend=-1) <= 0).any():
            raise ValueError("item_ids fall: expected ids from 0 on in rising order")
        columns.append(np.where(rows < 0, -1, own[rows]) if len(used) else rows)
    ids, scores = np.hstack(columns), np.hstack([found.scores for found in results])
    order = np.lexsort((ids, -scores))[:, :k]
    ids, scores = (np.take_along_axis(values, order, axis=1) for values in (ids, scores))
    return SearchResult(ids, scores, np.sum([found.rescored for found in results], axis=0))


def _as_vectors(name: str, values: ArrayLike) -> Floats:
    """Return (n, d) float32: finite, and not too large to multiply."""
    vectors = as_array(name, values)
    if vectors.dtype.kind not in "fiu":
        raise TypeError(f"{name} is of type {vectors.dtype}: expected real numbers")
    if vectors.ndim != 2 or not 0 < vectors.shape[1] <= _LARGEST_DIM:
        raise ValueError(f"{name} has shape {vectors.shape}: expected (n, d), d <= {_LARGEST_DIM}")
    flat = vectors.reshape(-1).astype(np.result_type(vectors, np.float32), copy=False)
    # A sum of squares below the square of the limit says all in one fast pass; NaN fails it.
    if not (flat @ flat < _LARGEST_VALUE**2 or np.abs(flat).max(initial=0) < _LARGEST_VALUE):
        row, column = np.argwhere(~(np.abs(vectors) < _LARGEST_VALUE))[0]
        found, limit = vectors[row, column], f"{_LARGEST_VALUE:g}"
        raise ValueError(f"{name}[{row}] holds {found}: expected finite numbers below {limit}")
    return np.ascontiguousarray(vectors, np.float32)


def _join_excluded(
    exclude: Sequence[ArrayLike] | None, num_users: int, num_items: int
) -> tuple[Ids, Ids]:
    """Return the ids of all lists, sorted within each, and where the list of each user starts."""
    if exclude is None:
        return _NO_IDS, np.zeros(num_users + 1, np.int64)
    check_type("exclude", exclude, (Sized,), ", one list of ids a user")
    if len(exclude) != num_users:
        raise ValueError(f"exclude has {len(exclude)} lists: expected {num_users}, one a user")
    lists = [np.sort(check_ids(f"exclude[{u}]", x, num_items)) for u, x in enumerate(exclude)]
    starts = np.cumsum([0, *map(len, lists)])
    return np.concatenate([_NO_IDS, *lists]), starts


def _search_float(
    rows: Floats, row_ids: Ids, longest: float, excluded: Ids, starts: Ids, queries: Floats,
    scores: Floats, ids: Ids, rescored: Ids,
) -> bool:  # fmt: skip
    """Fill (b, k) ``scores`` and ``ids``, -inf and -1 where none is left; count ``rescored``.

    The float32 product may be off by ``(d + 2) * 2**-23 * |x| |q|``, in an order of summing that
    depends on the machine. So every row within twice that of the k-th score is scored again, in
    float64, and those scores are ordered: the answer is the same on all machines.
    """
    num_users, num_rows, k = len(queries), len(rows), min(ids.shape[1], len(rows))
    scores[:], ids[:], rescored[:] = -np.inf, -1, 0
    if num_rows == 0:
        return True
    place_of = np.argsort(row_ids) if len(excluded) else row_ids
    lengths = np.sqrt(np.einsum("bd,bd->b", queries, queries, dtype=np.float64))
    slack = (rows.shape[1] + 2) * 2.0**-22 * longest * lengths + _TINY
    users_at_once = max(1, _SCORES_AT_ONCE // num_rows)
    for first in range(0, num_users, users_at_once):
        batch = queries[first : first + users_at_once]
        product = batch @ rows.T
        for user, near in enumerate(product, start=first):
            near[place_of[excluded[starts[user] : starts[user + 1]]]] = -np.inf
            keep = np.flatnonzero(near >= _lower_bound(near, k) - slack[user])
            keep = keep[near[keep] > -np.inf]
            exact = np.einsum("nd,d->n", rows[keep], queries[user], dtype=np.float64)
            exact = exact.astype(np.float32)
            best = np.lexsort((row_ids[keep], -exact))[:k]
            ids[user, : len(best)] = row_ids[keep[best]]
            scores[user, : len(best)] = exact[best]
            rescored[user] = len(keep)
    return True


def _lower_bound(scores: Floats, k: int) -> np.float32:
    """Return a number that at least k scores reach, close to the k-th best."""
    num_blocks = len(scores) // _BLOCK
    if num_blocks < 4 * k:  # few blocks: order the scores themselves
        return np.partition(scores, len(scores) - k)[len(scores) - k]
    maxima = scores[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).max(axis=1)
    return np.partition(maxima, num_blocks - k)[num_blocks - k]
