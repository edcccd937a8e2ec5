"""What lies between the matrix products of a candidate scorer, compiled: one pass for each layer.

NumPy goes over the activations once for the lookup, once for the sum and once for ReLU; here all of
it is one loop. The products stay with NumPy, whose library is as fast as the processor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"nnan", "nsz"},  # weights are finite
}


def _compile(function: Any) -> Any:
    """Compile, and keep the machine code on disk where there is a place to write."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder that can be written
        return njit(**_OPTIONS)(function)


@_compile
def add_rows_relu(
    item_half: Floats,
    item_ids: NDArray[np.int64],
    user_halves: Floats,
    user_rows: NDArray[np.int64],
    result: Floats,
) -> None:
    """Set ``result[n] = relu(item_half[item_ids[n]] + user_halves[user_rows[n]])``.

    Example:
        >>> result = np.empty((2, 1), np.float32)
        >>> half = np.array([[1.0], [-3.0]], np.float32)
        >>> add_rows_relu(half, np.array([1, 0]), half[:1], np.array([0, 0]), result)
        >>> result.tolist()
        [[0.0], [2.0]]
    """
    for n in range(item_ids.shape[0]):
        a, b, row = item_half[item_ids[n]], user_halves[user_rows[n]], result[n]
        for j in range(row.shape[0]):
            row[j] = max(a[j] + b[j], np.float32(0.0))


@_compile
def add_bias_relu(values: Floats, bias: Floats) -> None:
    """Set ``values = relu(values + bias)`` for (n, width) values and (width,) bias.

    Example:
        >>> values = np.array([[1.0, -2.0]], np.float32)
        >>> add_bias_relu(values, np.array([1.0, 1.0], np.float32))
        >>> values.tolist()
        [[2.0, 0.0]]
    """
    for n in range(values.shape[0]):
        row = values[n]
        for j in range(row.shape[0]):
            row[j] = max(row[j] + bias[j], np.float32(0.0))
