"""Residual quantization: a row as a sum of codewords, each for what the earlier ones left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_weights, store_numbers
from recsys_lib.compression.quantization.kmeans import kmeans
from recsys_lib.compression.quantization.uniform import (
    FLOAT_DTYPES,
    Array,
    Floats,
    PackedTensor,
    fitting_dtype,
    pack_bits,
)

_ROWS_PER_BLOCK = 4096
_ROWS_PER_CODEWORD = 256  # to learn from, as in faiss


@dataclass(frozen=True)
class ResidualQuantization:
    """How to write rows as sums of ``num_stages`` codewords of full length.

    The first codebook is the k-means of the rows, the next that of what the first leaves, and so
    on. Where product quantization cuts a row into pieces, here each codeword speaks of the whole
    row, so that what columns have in common is said once. A row is then written with the ``beam``
    best sums kept from stage to stage: the nearest codeword now need not be the best start.

    Codebooks are ``num_stages * 2 ** bits`` rows of full length, and they count. On a catalogue of
    a few thousand items, 256 codewords a stage take more bytes than the codes do.

    Args:
        num_stages: codewords of a row, which then takes ``num_stages * bits / 8`` bytes.
        bits: of a code, from 1 to 8.
        beam: sums that are kept, from 1.
        dtype: of the codebooks, "float16" or "float32".
        iterations: of k-means, at most.
        seed: of k-means.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Chen, Guan & Wang, *Approximate Nearest Neighbor Search by Residual Vector Quantization*,
        Sensors 2010; sums of codewords found by beam search: Babenko & Lempitsky, *Additive
        Quantization for Extreme Vector Compression*, CVPR 2014, section 3.2.

    Example:
        >>> ResidualQuantization(num_stages=0)
        Traceback (most recent call last):
        ValueError: num_stages is 0: expected an integer of at least 1
    """

    num_stages: int
    bits: int = 4
    beam: int = 5
    dtype: str = "float16"
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        store_numbers(self, 1, "bits", high=8, integer=True)
        store_numbers(self, 1, "num_stages", "beam", "iterations", integer=True)
        store_numbers(self, 0, "seed", integer=True)
        check_choice("dtype", self.dtype, FLOAT_DTYPES)

    def encode(self, values: ArrayLike) -> ResidualTensor:
        """Return codes and codebooks.

        Args:
            values: (rows, columns) finite floating-point numbers.

        Raises:
            TypeError: not floating-point numbers.
            ValueError: not a matrix, or NaN or infinity.

        Example:
            >>> table = np.float32([[0, 0], [0, 1], [8, 0], [8, 1]])
            >>> stored = ResidualQuantization(2, bits=1).encode(table)
            >>> stored.codes.shape, bool((stored.decode() == table).all())
            ((4, 2), True)
        """
        table = check_weights("values", values, ndim=2)
        left, books = self._sample(table), []
        for stage in range(self.num_stages):
            seed = self.seed + stage
            book, near = kmeans(left, 1 << self.bits, seed=seed, iterations=self.iterations)
            books.append(book.astype(fitting_dtype(book, self.dtype)))
            left = left - books[-1].astype(np.float32)[near]
        codebooks = np.stack([book.astype(np.result_type(*books)) for book in books])
        blocks = range(0, len(table), _ROWS_PER_BLOCK)
        wide = codebooks.astype(np.float32)
        codes = [_beam_search(table[n : n + _ROWS_PER_BLOCK], wide, self.beam) for n in blocks]
        return ResidualTensor(np.concatenate(codes), codebooks, self.bits)

    def _sample(self, table: Floats) -> Floats:
        """Return rows enough to learn the codebooks from."""
        most = _ROWS_PER_CODEWORD << self.bits
        if len(table) <= most:
            return table
        return table[np.random.default_rng(self.seed).choice(len(table), most, replace=False)]


class ResidualTensor(PackedTensor):
    """Codes of codewords whose sum is the row.

    Args:
        codes: (rows, m) integers from 0 to k - 1.
        codebooks: (m, k, columns) float16 or float32.
        bits: of a code.

    Example:
        >>> books = np.float32([[[0, 0], [8, 8]], [[0, 1], [1, 0]]])
        >>> ResidualTensor(np.array([[1, 0], [0, 1]]), books, bits=1).decode().tolist()
        [[8.0, 9.0], [1.0, 0.0]]
    """

    kind = "residual"
    settings = ("bits",)
    by_row = True

    def __init__(self, codes: Array, codebooks: Array, bits: int) -> None:
        header = {"bits": bits, "shape": [len(codes), codebooks.shape[2]]}
        super().__init__(header, {"codes": pack_bits(codes, bits), "codebooks": codebooks})

    def decode(self) -> Floats:
        """Return the sums of the codewords."""
        rows = np.zeros(self.shape, np.float32)
        for code, book in zip(self.codes.T, self._arrays["codebooks"], strict=True):
            rows += book.astype(np.float32)[code]
        return rows


def _beam_search(rows: Floats, books: Floats, beam: int) -> NDArray[np.int64]:
    """Return the codes (n, m) of the best sum for each row (n, d) among those that are kept."""
    n, d = rows.shape
    left = rows[:, None]  # (n, b, d), what b sums leave
    squares = (left**2).sum(axis=2)  # (n, b)
    codes = np.zeros((n, 1, 0), np.int64)
    for book in books:
        # |x - c|² for each of b residuals and k codewords, (n, b * k)
        products = (left.reshape(-1, d) @ book.T).reshape(n, -1, len(book))
        flat = (squares[:, :, None] - 2 * products + (book**2).sum(axis=1)).reshape(n, -1)
        keep = min(beam, flat.shape[1])
        best = np.argpartition(flat, keep - 1, axis=1)[:, :keep]
        old, new = np.divmod(best, len(book))
        squares = np.take_along_axis(flat, best, axis=1)
        left = np.take_along_axis(left, old[:, :, None], axis=1) - book[new]
        codes = np.take_along_axis(codes, old[:, :, None], axis=1)
        codes = np.concatenate([codes, new[:, :, None]], axis=2)
    return codes[np.arange(n), squares.argmin(axis=1)]
