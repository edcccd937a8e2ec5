"""The one step that alternating least squares repeats."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import scipy.sparse


def one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS to one thread for a loop of small solves.

    The systems are too small to divide, and on a busy machine its threads then spend their time
    waiting for each other: ten times slower has been seen.

    Example:
        >>> with one_blas_thread():
        ...     (np.eye(2) @ np.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def solve_rows(
    matrix: scipy.sparse.csr_matrix,
    features: NDArray[np.float32],
    ridge: NDArray[np.float32],
    common: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Fit one vector per row of a sparse matrix to the entries that the row has.

    For each row u, with ``F_u`` the features of its columns and ``t_u`` its values::

        x_u = (F_u' F_u + common + ridge[u] I)^-1 F_u' t_u

    by Cholesky decomposition, row by row: the matrix product ``F_u' F_u`` and the decomposition
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
    from scipy.linalg import lapack

    features = np.ascontiguousarray(features, np.float32)
    num_features = features.shape[1]
    solution = np.zeros((matrix.shape[0], num_features), np.float32)
    diagonal = np.diag_indices(num_features)
    starts, columns, targets = matrix.indptr, matrix.indices, matrix.data.astype(np.float32)
    for row in np.flatnonzero(np.diff(starts)):
        entries = slice(starts[row], starts[row + 1])
        chosen = features[columns[entries]]  # (entries, d)
        left = chosen.T @ chosen  # (d, d)
        if common is not None:
            left += common
        left[diagonal] += ridge[row]
        # Symmetric, so .T costs nothing and has the column order that LAPACK wants.
        _, vector, failed = lapack.sposv(left.T, targets[entries] @ chosen, overwrite_a=True)
        if failed:
            raise ValueError(
                f"row {row} has no unique solution: expected a larger l2 (or features that are "
                "finite and not linearly dependent)"
            )
        solution[row] = vector
    return solution
