"""Non-uniform quantization: codes into a short list of values that k-means found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits, check_choice, check_number, check_weights
from recsys_lib.compression.quantization.kmeans import kmeans_scalar, nearest
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.tensors import EncodedTensor

_CODEBOOK_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class CodebookQuantization:
    """Choices of k-means quantization ("weight sharing").

    Args:
        bits: of a code, from 1 to 8: up to ``2 ** bits`` different values.
        columns_per_codebook: how many neighbouring columns (of the last axis) share a codebook;
            None for one codebook in all.
        init: start of k-means, "density", "quantile" or "linear", see :func:`kmeans_scalar`.
        dtype: in which the values of a codebook are stored, "float16" or "float32".
        iterations: of k-means, at most.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.

    Example:
        >>> CodebookQuantization(bits=9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected an integer from 1 to 8
    """

    bits: int = 4
    columns_per_codebook: int | None = None
    init: str = "density"
    dtype: str = "float16"
    iterations: int = 100

    def __post_init__(self) -> None:
        check_bits(self.bits, low=1)
        if self.columns_per_codebook is not None:
            check_number("columns_per_codebook", self.columns_per_codebook, 1, integer=True)
        check_choice("init", self.init, ("density", "quantile", "linear"))
        check_choice("dtype", self.dtype, _CODEBOOK_DTYPES)
        check_number("iterations", self.iterations, 1, integer=True)


class CodebookTensor(EncodedTensor):
    """Codes of 1 to 8 bits and the values that they stand for.

    Args:
        codes: integers from 0 to ``2 ** bits - 1``, in the shape of the array.
        codebooks: (groups, values) float16 or float32; group g serves the columns from
            ``g * columns_per_codebook`` on.
        bits: of a code.
        columns_per_codebook: None for all.

    Raises:
        ValueError: a code without a value, or other shapes than these.

    Example:
        >>> tensor = CodebookTensor(np.array([[0, 1], [1, 1]]), np.float32([[0.5, 2]]), bits=1)
        >>> tensor.decode().tolist()
        [[0.5, 2.0], [2.0, 2.0]]
    """

    kind = "codebook"

    def __init__(
        self,
        codes: NDArray[np.integer],
        codebooks: NDArray[Any],
        bits: int,
        columns_per_codebook: int | None = None,
    ) -> None:
        codes = np.asarray(codes)
        check_choice("codebooks.dtype", str(codebooks.dtype), _CODEBOOK_DTYPES)
        check_weights("codebooks", codebooks, ndim=2)
        if codes.size == 0 or codes.min() < 0 or codes.max() >= codebooks.shape[1]:
            raise ValueError(
                f"codes: expected integers from 0 to {codebooks.shape[1] - 1}, at least one"
            )
        if codebooks.shape[1] > 1 << bits:
            raise ValueError(f"codebooks has {codebooks.shape[1]} values: too many for {bits} bits")
        self.shape = codes.shape
        self.codes: NDArray[np.uint8] = codes.astype(np.uint8)
        self.codebooks = np.array(codebooks)
        self.bits = check_bits(bits, low=1)
        self.columns_per_codebook = columns_per_codebook or self._num_columns
        groups = -(-self._num_columns // self.columns_per_codebook)
        if len(codebooks) != groups:
            raise ValueError(f"codebooks has shape {codebooks.shape}: expected {groups} rows")

    @property
    def _num_columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    def header(self) -> dict[str, Any]:
        """Give bits, shape and the columns that share a codebook."""
        return {
            "bits": self.bits,
            "shape": list(self.shape),
            "columns_per_codebook": self.columns_per_codebook,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the packed codes and the codebooks."""
        return {"codes": pack_bits(self.codes, self.bits), "codebooks": self.codebooks}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        count = int(np.prod(header["shape"]))
        codes = unpack_bits(arrays["codes"], header["bits"], count).reshape(header["shape"])
        return cls(codes, arrays["codebooks"], header["bits"], header["columns_per_codebook"])

    def decode(self) -> NDArray[np.float32]:
        """Look the codes up."""
        group = np.arange(self._num_columns) // self.columns_per_codebook
        values = self.codebooks.astype(np.float32)[group, self.codes]
        return values.reshape(self.shape)


def quantize_codebook(values: ArrayLike, config: CodebookQuantization) -> CodebookTensor:
    """Replace each number by the nearest of ``2 ** bits`` values that k-means chooses.

    With uniform quantization the steps are equal, and few values lie in the outer ones; here the
    steps are small where values are many. The mean squared error is never larger than that of the
    best uniform grid of as many values, up to local optima.

    Args:
        values: finite floating-point numbers of any shape.
        config: choices.

    Returns:
        Codes and codebooks; ``decode()`` has the shape of ``values``.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: NaN, infinity or nothing in ``values``, or a value beyond the dtype.

    Source:
        Han, Mao & Dally, *Deep Compression*, ICLR 2016, section 3.

    Example:
        >>> weights = np.float32([[0.1, 2.0], [0.1, -1.0]])
        >>> tensor = quantize_codebook(weights, CodebookQuantization(bits=2, dtype="float32"))
        >>> tensor.codes.tolist(), tensor.codebooks.tolist()
        ([[1, 2], [1, 0]], [[-1.0, 0.10000000149011612, 2.0]])
    """
    array = check_weights("values", values)
    columns = array.reshape(-1, array.shape[-1] if array.ndim else 1)  # (rows, columns)
    width = config.columns_per_codebook or columns.shape[1]
    size = 1 << config.bits
    codes, books = [], []
    for first in range(0, columns.shape[1], width):
        part = columns[:, first : first + width]
        found = kmeans_scalar(part.ravel(), size, init=config.init, iterations=config.iterations)
        with np.errstate(over="ignore"):
            found = found.astype(config.dtype)
        if not np.isfinite(found).all():
            raise ValueError(f"values reach {np.abs(part).max():.3g}: too large for {config.dtype}")
        codes.append(nearest(part, found.astype(np.float32)))
        books.append(np.pad(found, (0, size - len(found)), mode="edge"))
    used = max(int(part.max()) for part in codes) + 1
    codebooks = np.stack(books)[:, :used]
    joined = np.hstack(codes).reshape(array.shape)
    return CodebookTensor(joined, codebooks, config.bits, width)
