"""Zeros that are neither stored nor multiplied: sparse layouts, and layers that skip them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_number, check_range, check_shape, check_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor

LAYOUTS = ("csr", "bitmap", "dense", "smallest")


class CSRTensor(EncodedTensor):
    """The nonzero numbers row by row, each with its column: compressed sparse rows.

    An array of more than two dimensions is stored as rows of all that shares the first index, one
    of one dimension as a single row. Columns and row lengths take the smallest of 1, 2, 4 and 8
    bytes that holds the largest of them, so that a number in a row of at most 256 costs 5 bytes
    instead of 4. Row lengths take less room than the usual row pointers, which are their running
    sum.

    Args:
        values: finite numbers, stored in float32.

    Example:
        >>> tensor = CSRTensor(np.float32([[0, 0, 5, 0], [0, 0, 0, 0], [6, 0, 0, 7]]))
        >>> {name: array.tolist() for name, array in tensor.arrays().items()}
        {'row_lengths': [1, 0, 2], 'columns': [2, 0, 3], 'values': [5.0, 6.0, 7.0]}
        >>> sum(array.nbytes for array in tensor.arrays().values())
        18
    """

    kind = "csr"

    def __init__(self, values: NDArray[np.float32]) -> None:
        matrix = values.reshape(_as_matrix(values.shape))
        rows, columns = np.nonzero(matrix)
        lengths = np.bincount(rows, minlength=len(matrix))
        arrays = {
            "row_lengths": lengths.astype(np.min_scalar_type(int(lengths.max()))),
            "columns": columns.astype(np.min_scalar_type(matrix.shape[1] - 1)),
            "values": matrix[rows, columns],
        }
        super().__init__({"shape": list(values.shape)}, arrays)

    def decode(self) -> NDArray[np.float32]:
        """Return the array; ValueError where the parts do not fit."""
        lengths, columns, values = (self._arrays[n] for n in ("row_lengths", "columns", "values"))
        dense = np.zeros(_as_matrix(self.shape), np.float32)
        found = len(lengths), int(lengths.sum()), len(columns)
        if found != (len(dense), len(values), len(values)):
            raise ValueError(f"arrays do not fit shape {self.shape} and each other")
        check_range("columns", columns, dense.shape[1])
        dense[np.repeat(np.arange(len(dense)), lengths), columns] = values
        return dense.reshape(self.shape)


class BitmapTensor(EncodedTensor):
    """One bit for each number, set where it is not zero, and the numbers that are not.

    Args:
        values: finite numbers, stored in float32.

    Example:
        >>> tensor = BitmapTensor(np.float32([[0, 0, 5, 0], [6, 0, 0, 7]]))
        >>> {name: array.tolist() for name, array in tensor.arrays().items()}
        {'bits': [41], 'values': [5.0, 6.0, 7.0]}
        >>> f"{41:08b}"
        '00101001'
    """

    kind = "bitmap"

    def __init__(self, values: NDArray[np.float32]) -> None:
        arrays = {"bits": np.packbits(values != 0), "values": values[values != 0]}
        super().__init__({"shape": list(values.shape)}, arrays)

    def decode(self) -> NDArray[np.float32]:
        """Return the array; ValueError where the parts do not fit."""
        bits, values = self._arrays["bits"], self._arrays["values"]
        dense = np.zeros(math.prod(self.shape), np.float32)
        if (len(bits), np.unpackbits(bits).sum()) != (-(-dense.size // 8), len(values)):
            raise ValueError(f"arrays do not fit shape {self.shape} and each other")
        dense[np.unpackbits(bits, count=dense.size).astype(bool)] = values
        return dense.reshape(self.shape)


def store_sparse(values: ArrayLike, layout: str = "smallest") -> EncodedTensor:
    """Return an array with many zeros in the form in which it is stored.

    Args:
        values: finite numbers.
        layout: "csr" (compressed sparse rows: the numbers that are not zero, with their columns),
            "bitmap" (one bit for each number, and those that are not zero), "dense", or the
            "smallest" of the three, by all bytes stored.

    Raises:
        TypeError: no floating-point numbers.
        ValueError: another layout, or NaN or infinity.

    Example:
        >>> values = np.zeros((100, 100), np.float32)
        >>> values[::50, ::10] = 1.0
        >>> store_sparse(values)
        CSRTensor(shape (100, 100), 221 bytes)
        >>> store_sparse(values, "bitmap").nbytes, store_sparse(values, "dense").nbytes
        (1351, 40041)
    """
    check_choice("layout", layout, LAYOUTS)
    array = check_weights("values", values)
    kinds = {"csr": CSRTensor, "bitmap": BitmapTensor, "dense": DenseTensor}
    if layout == "smallest":
        return min((kind(array) for kind in kinds.values()), key=lambda tensor: tensor.nbytes)
    return kinds[layout](array)


def break_even_sparsity(shape: tuple[int, int], layout: str) -> float:
    """Return the fraction of zeros from which a layout takes fewer bytes than dense float32.

    Headers are not counted; a row is taken to be possibly full.

    Args:
        shape: (rows, columns).
        layout: "csr" or "bitmap".

    Example:
        >>> round(break_even_sparsity((1000, 64), "csr"), 3)
        0.203
        >>> round(break_even_sparsity((1000, 64), "bitmap"), 3)
        0.031
    """
    check_choice("layout", layout, ("csr", "bitmap"))
    rows, columns = (check_number("shape", length, 1, integer=True) for length in shape)
    size = rows * columns
    if layout == "bitmap":
        fixed_bytes, bytes_per_number = -(-size // 8), 4
    else:
        fixed_bytes = rows * np.min_scalar_type(columns).itemsize
        bytes_per_number = 4 + np.min_scalar_type(columns - 1).itemsize
    return float(np.clip(1 - (4 * size - fixed_bytes) / (bytes_per_number * size), 0, 1))


class SparseMLP:
    """A stack of dense layers, ReLU between them, that multiplies by the nonzero weights only.

    A kernel with enough zeros is kept as compressed sparse rows and multiplied by SciPy, on one
    thread; any other one by NumPy. Activations are kept with one row for each unit, so that both
    read them in order. (A kernel of our own in Numba was no faster than SciPy's.)

    Args:
        layers: kernel (inputs, outputs) and bias (outputs,) of each layer, in order.
        sparse_from: least fraction of zeros from which a kernel is multiplied sparse: 0 for all
            kernels, 1 for none but those of zeros alone.

    Attributes:
        sparse: for each layer, whether it is multiplied sparse.

    Raises:
        ValueError: no layers, shapes that do not follow each other, NaN, a number out of [0, 1].

    Example:
        >>> layers = [(np.float32([[1, 0], [0, -2]]), np.float32([0, 1]))]
        >>> layers.append((np.float32([[3], [1]]), np.float32([0.5])))
        >>> SparseMLP(layers)([[1.0, 0.0], [2.0, -1.0]]).tolist()
        [[4.5], [9.5]]
    """

    def __init__(self, layers: Sequence[Any], *, sparse_from: float = 0.0) -> None:
        check_number("sparse_from", sparse_from, 0, 1)
        if not layers:
            raise ValueError("layers is empty: expected at least one kernel and bias")
        self._layers: list[tuple[Any, NDArray[np.float32]]] = []
        flags = []
        for number, (kernel, bias) in enumerate(layers):
            weights = check_weights(f"layers[{number}] kernel", kernel, ndim=2)
            offsets = check_weights(f"layers[{number}] bias", bias, ndim=1)
            width = self._layers[-1][0].shape[0] if number else len(weights)
            check_shape(f"layers[{number}] kernel", weights, (width, len(offsets)))
            flags.append(bool(np.mean(weights == 0) >= sparse_from))
            turned = np.ascontiguousarray(weights.T)  # (outputs, inputs)
            matrix = scipy.sparse.csr_matrix(turned) if flags[-1] else turned
            self._layers.append((matrix, offsets[:, None].copy()))
        self.sparse = tuple(flags)

    def __call__(self, inputs: ArrayLike) -> NDArray[np.float32]:
        """Return the outputs of the last layer: (n, inputs) to (n, outputs) float32."""
        values = np.asarray(inputs, np.float32)
        check_shape("inputs", values, (values.shape[0], self._layers[0][0].shape[1]))
        values = np.ascontiguousarray(values.T)  # (inputs, n)
        for number, (matrix, bias) in enumerate(self._layers):
            values = matrix @ values  # (outputs, n)
            values += bias
            if number < len(self._layers) - 1:
                np.maximum(values, 0, out=values)
        return np.ascontiguousarray(values.T)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))
