"""Non-uniform quantization: codes into a short list of values that k-means found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_weights, store_numbers
from recsys_lib.compression.quantization.kmeans import kmeans_scalar
from recsys_lib.compression.quantization.uniform import (
    FLOAT_DTYPES,
    Array,
    PackedTensor,
    fitting_dtype,
    pack_bits,
)


@dataclass(frozen=True)
class CodebookQuantization:
    """How to replace each number by the nearest of ``2 ** bits`` values that k-means chooses.

    With uniform quantization the steps are equal, and few values lie in the outer ones; here the
    steps are small where values are many ("weight sharing"). The mean squared error is never larger
    than that of the best uniform grid of as many values, up to local optima.

    Args:
        bits: of a code, from 1 to 8.
        columns_per_codebook: how many neighbouring columns (of the last axis) share a codebook;
            None for one codebook in all.
        dtype: in which the values of a codebook are stored, "float16" or "float32"; what float16
            has no number for is stored in float32.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Han, Mao & Dally, *Deep Compression*, ICLR 2016, section 3.

    Example:
        >>> CodebookQuantization(bits=9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected an integer from 1 to 8
    """

    bits: int = 4
    columns_per_codebook: int | None = None
    dtype: str = "float16"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "bits", high=8, integer=True)
        if self.columns_per_codebook is not None:
            store_numbers(self, 1, "columns_per_codebook", integer=True)
        check_choice("dtype", self.dtype, FLOAT_DTYPES)

    def encode(self, values: ArrayLike) -> CodebookTensor:
        """Return codes and codebooks for finite numbers of any shape.

        Raises:
            TypeError: not floating-point numbers.
            ValueError: NaN, infinity or nothing in ``values``.

        Example:
            >>> weights = np.float32([[0.1, 2.0], [0.1, -1.0]])
            >>> tensor = CodebookQuantization(bits=2, dtype="float32").encode(weights)
            >>> tensor.codes.tolist(), tensor.codebooks.tolist()
            ([[1, 2], [1, 0]], [[-1.0, 0.10000000149011612, 2.0]])
        """
        array = check_weights("values", values)
        columns = array.reshape(-1, array.shape[-1] if array.ndim else 1)  # (rows, columns)
        width = self.columns_per_codebook or columns.shape[1]
        parts = np.split(columns, range(width, columns.shape[1], width), axis=1)
        found = [kmeans_scalar(part.ravel(), 1 << self.bits) for part in parts]
        used = max(map(len, found))
        books = np.stack([np.pad(book, (0, used - len(book)), mode="edge") for book in found])
        books = books.astype(fitting_dtype(books, self.dtype))
        middles = (books[:, 1:].astype(np.float32) + books[:, :-1]) / 2
        codes = [np.searchsorted(*pair) for pair in zip(middles, parts, strict=True)]
        joined = np.hstack(codes).reshape(array.shape)
        return CodebookTensor(joined, books, self.bits, width)


class CodebookTensor(PackedTensor):
    """Codes of 1 to 8 bits and the values that they stand for.

    Args:
        codes: integers from 0 to ``2 ** bits - 1``, in the shape of the array.
        codebooks: (groups, values) float16 or float32; group g serves the columns from
            ``g * columns_per_codebook`` on.
        bits: of a code.
        columns_per_codebook: None for all.

    Example:
        >>> tensor = CodebookTensor(np.array([[0, 1], [1, 1]]), np.float32([[0.5, 2]]), bits=1)
        >>> tensor.decode().tolist()
        [[0.5, 2.0], [2.0, 2.0]]
    """

    kind = "codebook"
    settings = ("bits", "columns_per_codebook")

    def __init__(
        self, codes: Array, codebooks: Array, bits: int, columns_per_codebook: int | None = None
    ) -> None:
        columns = columns_per_codebook or (codes.shape[-1] if codes.ndim else 1)
        header = {"bits": bits, "shape": list(codes.shape), "columns_per_codebook": columns}
        super().__init__(header, {"codes": pack_bits(codes, bits), "codebooks": codebooks})

    def decode(self) -> NDArray[np.float32]:
        """Return the values of the codes."""
        num_columns = self.shape[-1] if self.shape else 1
        group = np.arange(num_columns) // self._header["columns_per_codebook"]
        return self.codebooks.astype(np.float32)[group, self.codes].reshape(self.shape)
