"""Zeros that are not stored: compressed sparse rows, and a bitmap with the values that remain."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_number, check_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor

SPARSE_LAYOUTS = ("csr", "bitmap")
LAYOUTS = (*SPARSE_LAYOUTS, "dense", "smallest")


class CSRTensor(EncodedTensor):
    """The nonzero numbers row by row, each with its column: compressed sparse rows.

    An array of more than two dimensions is stored as rows of all that shares the first index, one
    of one dimension as a single row. Columns and row lengths take the smallest of 1, 2, 4 and 8
    bytes that holds the largest of them, so that a number in a row of at most 256 costs 5 bytes
    instead of 4. Row lengths take less room than the usual row pointers, which are their running
    sum.

    Args:
        values: finite numbers, stored in float32.

    Raises:
        ValueError: NaN or infinity, or nothing to store.

    Example:
        >>> tensor = CSRTensor(np.float32([[0, 0, 5, 0], [0, 0, 0, 0], [6, 0, 0, 7]]))
        >>> {name: array.tolist() for name, array in tensor.arrays().items()}
        {'row_lengths': [1, 0, 2], 'columns': [2, 0, 3], 'values': [5.0, 6.0, 7.0]}
        >>> sum(array.nbytes for array in tensor.arrays().values())
        18
    """

    kind = "csr"

    def __init__(self, values: NDArray[Any]) -> None:
        array = check_weights("values", values)
        rows, columns = np.nonzero(array.reshape(_as_matrix(array.shape)))
        lengths = np.bincount(rows, minlength=_as_matrix(array.shape)[0])
        self.shape = array.shape
        self._row_lengths = _as_small(lengths, lengths.max())
        self._columns = _as_small(columns, _as_matrix(array.shape)[1] - 1)
        self._values = array[array != 0]

    def header(self) -> dict[str, Any]:
        """Give the shape."""
        return {"shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give row lengths (rows,), columns (nonzeros,) and values (nonzeros,)."""
        return {
            "row_lengths": self._row_lengths,
            "columns": self._columns,
            "values": self._values,
        }

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again; ValueError where they do not fit."""
        shape = tuple(header["shape"])
        lengths, columns = arrays["row_lengths"], arrays["columns"]
        num_rows, num_columns = _as_matrix(shape)
        counts = len(lengths), int(lengths.sum()), len(columns)
        _check_parts(shape, counts, (num_rows, len(arrays["values"]), len(arrays["values"])))
        if columns.size and columns.max() >= num_columns:
            raise ValueError(f"columns reach {columns.max()}: expected less than {num_columns}")
        dense = np.zeros((num_rows, num_columns), np.float32)
        dense[np.repeat(np.arange(num_rows), lengths), columns] = arrays["values"]
        return cls(dense.reshape(shape))

    def decode(self) -> NDArray[np.float32]:
        """Give the array."""
        dense = np.zeros(_as_matrix(self.shape), np.float32)
        rows = np.repeat(np.arange(len(dense)), self._row_lengths)
        dense[rows, self._columns] = self._values
        return dense.reshape(self.shape)


class BitmapTensor(EncodedTensor):
    """One bit for each number, set where it is not zero, and the numbers that are not.

    Args:
        values: finite numbers, stored in float32.

    Raises:
        ValueError: NaN or infinity, or nothing to store.

    Example:
        >>> tensor = BitmapTensor(np.float32([[0, 0, 5, 0], [6, 0, 0, 7]]))
        >>> {name: array.tolist() for name, array in tensor.arrays().items()}
        {'bits': [41], 'values': [5.0, 6.0, 7.0]}
        >>> f"{41:08b}"
        '00101001'
    """

    kind = "bitmap"

    def __init__(self, values: NDArray[Any]) -> None:
        array = check_weights("values", values)
        self.shape = array.shape
        self._bits = np.packbits(array != 0)
        self._values = array[array != 0]

    def header(self) -> dict[str, Any]:
        """Give the shape."""
        return {"shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give bits (ceil(size / 8),), the first in the highest place, and values (nonzeros,)."""
        return {"bits": self._bits, "values": self._values}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again; ValueError where they do not fit."""
        shape = tuple(header["shape"])
        size = math.prod(shape)
        set_bits = int(np.unpackbits(arrays["bits"]).sum())
        counts = len(arrays["bits"]), set_bits
        _check_parts(shape, counts, (-(-size // 8), len(arrays["values"])))
        return cls(_spread(arrays["bits"], arrays["values"], shape))

    def decode(self) -> NDArray[np.float32]:
        """Give the array."""
        return _spread(self._bits, self._values, self.shape)


def store_sparse(values: ArrayLike, layout: str = "smallest") -> EncodedTensor:
    """Store an array with many zeros.

    Args:
        values: finite numbers.
        layout: "csr", "bitmap", "dense", or the smallest of the three, by all bytes stored.

    Raises:
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
    """Give the fraction of zeros from which a layout takes fewer bytes than dense float32.

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
    check_choice("layout", layout, SPARSE_LAYOUTS)
    rows, columns = (check_number("shape", length, 1, integer=True) for length in shape)
    size = rows * columns
    if layout == "bitmap":
        fixed_bytes, bytes_per_number = -(-size // 8), 4
    else:
        fixed_bytes = rows * np.min_scalar_type(columns).itemsize
        bytes_per_number = 4 + np.min_scalar_type(columns - 1).itemsize
    return float(np.clip(1 - (4 * size - fixed_bytes) / (bytes_per_number * size), 0, 1))


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return (1, math.prod(shape)) if len(shape) < 2 else (shape[0], math.prod(shape[1:]))


def _as_small(values: NDArray[Any], largest: int) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(largest)))


def _spread(
    bits: NDArray[np.uint8], values: NDArray[Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    dense = np.zeros(math.prod(shape), np.float32)
    dense[np.unpackbits(bits, count=dense.size).astype(bool)] = values
    return dense.reshape(shape)


def _check_parts(shape: tuple[int, ...], found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(
            f"arrays do not fit shape {shape} and each other: counts {found}, expected {expected}"
        )
