"""The one step that alternating least squares repeats: exactly, or a few steps nearer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.checks import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_PARTS_PER_THREAD = 8  # so that no thread waits long for another at the end
_limit_lock = threading.Lock()
_limits: list[Any] = []  # one entry for each block that runs; the first one holds the limit


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS to one thread for a loop of small solves, in whatever thread that runs.

    The systems are too small to divide, and on a busy machine its threads then spend their time
    waiting for each other: ten times slower has been seen. The limit counts for the whole process,
    so blocks that overlap share it, and the last one to end lifts it.

    Example:
        >>> with one_blas_thread():
        ...     (np.eye(2) @ np.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    from threadpoolctl import threadpool_limits

    with _limit_lock:
        _limits.append(_limits[0] if _limits else threadpool_limits(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _limit_lock:
            limit = _limits.pop()
            if not _limits:
                limit.restore_original_limits()


def solve_rows(
    matrix: csr_matrix, features: Floats, ridge: Floats, common: Floats | None = None
) -> Floats:
    """Fit one vector per row of a sparse matrix to the entries that the row has.

    For each row u, with ``X_u`` the features of its columns and ``y_u`` its values::

        a_u = (X_u' X_u + common + ridge[u] I)^-1 X_u' y_u

    by Cholesky decomposition, row by row: the matrix product ``X_u' X_u`` and the decomposition
    are each one call of BLAS/LAPACK, next to which the loop itself costs little. Rows without
    entries get zeros.

    Args:
        matrix: (rows, columns) with targets as values; stored zeros count as entries.
        features: (columns, d).
        ridge: (rows,) what is added to the diagonal.
        common: (d, d) what is added for every row, or None.

    Returns:
        (rows, d) float32.

    Raises:
        ValueError: a system has no unique solution.

    Source:
        Hu, Koren & Volinsky, *Collaborative Filtering for Implicit Feedback Datasets*, ICDM 2008,
        equation 4.

    Example:
        >>> import scipy.sparse
        >>> matrix = scipy.sparse.csr_matrix(np.float32([[2, 4]]))
        >>> solve_rows(matrix, np.float32([[1], [1]]), ridge=np.float32([0])).round(3).tolist()
        [[3.0]]
    """
    from scipy.linalg.lapack import sposv

    solution = np.zeros((matrix.shape[0], features.shape[1]), np.float32)
    diagonal = np.diag_indices(features.shape[1])
    starts, columns, targets = matrix.indptr, matrix.indices, matrix.data
    with one_blas_thread():
        for row in np.flatnonzero(np.diff(starts)):
            entries = slice(starts[row], starts[row + 1])
            chosen = features[columns[entries]]  # (entries, d)
            left = chosen.T @ chosen  # (d, d)
            if common is not None:
                left += common
            left[diagonal] += ridge[row]
            # Symmetric, so .T costs nothing and has the column order that LAPACK wants; the lower
            # half is decomposed a third sooner than the upper one.
            right = targets[entries] @ chosen
            _, solution[row], failed = sposv(left.T, right, lower=True, overwrite_a=True)
            if failed:
                raise ValueError(f"row {row} has no unique solution: expected a larger l2")
    return solution


def improve_rows(
    matrix: csr_matrix,
    features: Floats,
    ridge: Floats,
    common: Floats | None,
    start: Floats,
    steps: int = 3,
    threads: int | None = None,
) -> Floats:
    """Take some steps of conjugate gradients from ``start`` to what :func:`solve_rows` returns.

    No (d, d) matrix is built for a row: a step costs ``d² + 2 d`` times its entries, a
    decomposition ``d³ / 3 + d²`` times its entries. A few steps are enough where the other side has
    moved little since ``start`` was solved for.

    Args:
        matrix: (rows, columns) with targets as values; stored zeros count as entries.
        features: (columns, d).
        ridge: (rows,) what is added to the diagonal.
        common: (d, d) what is added for every row, or None.
        start: (rows, d) from where; stays as it is.
        steps: how many; after d of them the solution is exact up to rounding.
        threads: how many, None for all that the process may use; they change nothing but time.

    Returns:
        (rows, d) float32, zeros for rows without entries.

    Source:
        Takács, Pilászy & Tikk, *Applications of the Conjugate Gradient Method for Implicit Feedback
        Collaborative Filtering*, RecSys 2011.

    Example:
        >>> import scipy.sparse
        >>> matrix = scipy.sparse.csr_matrix(np.float32([[2, 4]]))
        >>> none = np.zeros((1, 1), np.float32)
        >>> improve_rows(matrix, np.float32([[1], [1]]), none[0], None, none, steps=1).tolist()
        [[3.0]]
    """
    import numba

    threads = threads or numba.config.NUMBA_NUM_THREADS
    solution = np.array(start, np.float32, order="C")
    starts, columns = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32, copy=False)
    shared = np.empty((0, 0), np.float32) if common is None else common
    arrays = [np.ascontiguousarray(a, np.float32) for a in (matrix.data, features, shared)]
    bounds = np.searchsorted(starts, np.linspace(0, starts[-1], threads * _PARTS_PER_THREAD + 1))
    bounds[0], bounds[-1] = 0, len(solution)

    def work(first: int, last: int) -> None:
        rows = solution[first:last], starts[first : last + 1], ridge[first:last]
        _compiled()(*rows, columns, *arrays, steps)

    # Threads of Python around code that holds no lock, and none of Numba's: those stop the process
    # when two threads of the caller meet in them, or after a fork.
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, bounds[:-1].tolist(), bounds[1:].tolist()))
    return solution


@cache
def _compiled() -> Callable[..., None]:
    """Compile the loop over rows, which improves ``solution`` in place."""
    import numba

    options = {"nogil": True, "fastmath": True}
    try:
        return numba.njit(**options, cache=True)(_conjugate_gradients)
    except RuntimeError:  # no folder to keep the compiled code in
        return numba.njit(**options)(_conjugate_gradients)


def _conjugate_gradients(
    solution: Any,
    starts: Any,
    ridge: Any,
    columns: Any,
    targets: Any,
    features: Any,
    common: Any,
    steps: int,
) -> None:
    zero, size = np.float32(0), features.shape[1]
    for row in range(len(solution)):
        x = solution[row]
        direction, residual, length = x, x, zero
        if starts[row] == starts[row + 1]:
            x[:] = 0
            continue
        for step in range(steps + 1):  # the first one finds the residual of where we start
            product = ridge[row] * direction  # of the row's matrix with the direction
            for i in range(len(common)):
                total = zero
                for j in range(size):
                    total += common[i, j] * direction[j]
                product[i] += total
            begin, end = starts[row], starts[row + 1]
            fours = begin + (end - begin) // 4 * 4
            for e in range(begin, fours, 4):  # four entries at a time, a sixth sooner than one
                a, b = features[columns[e]], features[columns[e + 1]]
                c, d = features[columns[e + 2]], features[columns[e + 3]]
                at = bt = ct = dt = zero
                if step == 0:
                    at, bt, ct, dt = -targets[e], -targets[e + 1], -targets[e + 2], -targets[e + 3]
                for j in range(size):
                    at += a[j] * direction[j]
                    bt += b[j] * direction[j]
                    ct += c[j] * direction[j]
                    dt += d[j] * direction[j]
                for j in range(size):
                    product[j] += at * a[j] + bt * b[j] + ct * c[j] + dt * d[j]
            for e in range(fours, end):
                feature = features[columns[e]]
                total = zero if step else -targets[e]
                for j in range(size):
                    total += feature[j] * direction[j]
                for j in range(size):
                    product[j] += total * feature[j]
            before = length
            if step == 0:
                residual = -product
            else:
                curvature = (direction * product).sum()
                if curvature <= 0:
                    break
                rate = before / curvature
                x += rate * direction
                residual -= rate * product
            length = (residual * residual).sum()
            if length < 1e-20:
                break
            direction = residual + (length / before if step else zero) * direction
