"""Product quantization: a row as a few codes, each for a whole piece of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import Ids, check_choice, check_shape, check_weights, store_numbers
from recsys_lib.compression.quantization.kmeans import kmeans
from recsys_lib.compression.quantization.uniform import (
    FLOAT_DTYPES,
    Array,
    Floats,
    PackedTensor,
    fitting_dtype,
    pack_bits,
)

_SMALLEST_SHARE = 1e-6  # of the largest eigenvalue: below, a direction counts as that much


@dataclass(frozen=True)
class ProductQuantization:
    """How to cut rows into pieces and replace each piece by one of ``2 ** bits`` centroids.

    By default the centroids minimise the squared error of the rows. What a recommender feels is
    the error of its scores: over all users u, item h that became g is off by
    ``sum_u <a_u, h - g>² = (h - g)' G (h - g)`` with the Gram matrix ``G = A'A``. Where G is
    diagonal, as in principal axes, that is a weight for each column, which takes no bytes: it goes
    into the centroids. See ``weighting`` of :func:`quantize`.

    Args:
        num_subspaces: pieces of a row, all of the same length; must divide the columns. A row then
            takes ``num_subspaces * bits / 8`` bytes.
        bits: of the code of a piece, from 1 to 8: each piece has ``2 ** bits`` centroids.
        rotation: of the rows before they are cut: "none" or "principal" (principal axes, dealt out
            to the pieces such that all have much the same to say). A rotation is stored,
            ``columns ** 2`` numbers.
        dtype: in which centroids and rotation are stored, "float16" or "float32"; what float16 has
            no number for is stored in float32.
        iterations: of k-means, at most.
        seed: of k-means.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Jégou, Douze & Schmid, *Product Quantization for Nearest Neighbor Search*, 2011; rotations:
        Ge, He, Ke & Sun, *Optimized Product Quantization*, CVPR 2013, section 3.2.

    Example:
        >>> ProductQuantization(num_subspaces=0)
        Traceback (most recent call last):
        ValueError: num_subspaces is 0: expected an integer of at least 1
    """

    num_subspaces: int
    bits: int = 8
    rotation: str = "none"
    dtype: str = "float16"
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        store_numbers(self, 1, "bits", high=8, integer=True)
        store_numbers(self, 1, "num_subspaces", "iterations", integer=True)
        store_numbers(self, 0, "seed", integer=True)
        check_choice("rotation", self.rotation, ("none", "principal"))
        check_choice("dtype", self.dtype, FLOAT_DTYPES)

    def encode(self, values: Any, counts: Any = None, column_weights: Any = None) -> ProductTensor:
        """Return codes, centroids and what turns them back.

        Args:
            values: (rows, columns) finite floating-point numbers.
            counts: (rows,) how much the error of a row counts, not negative; None for 1 each.
            column_weights: (columns,) how much the squared error of a column counts, above 0;
                None for 1 each.

        Raises:
            TypeError: not floating-point numbers.
            ValueError: NaN or infinity, or shapes that do not fit each other.

        Example:
            >>> table = np.float32([[1, 1, 0, 5], [1, 1, 9, 9], [7, 8, 9, 9]])
            >>> stored = ProductQuantization(2, bits=1).encode(table)
            >>> stored.codes.shape, bool((stored.decode() == table).all())
            ((3, 2), True)
        """
        array = check_weights("values", values, ndim=2)
        rows, columns = array.shape
        if columns % self.num_subspaces:
            raise ValueError(f"num_subspaces is {self.num_subspaces}: expected to divide {columns}")
        weights = None if counts is None else _importance("counts", counts, rows)
        scale = np.ones(columns, np.float32)
        if column_weights is not None:
            energy = _importance("column_weights", column_weights, columns)
            floor = _SMALLEST_SHARE * energy.max()
            scale = np.sqrt(np.maximum(energy, floor) / energy.mean())
        points = array * scale
        rotation = _rotation(points, self, weights)
        codes, books = _fit_pieces(np.asarray(points @ rotation, np.float32), self, weights)
        back = None
        if self.rotation == "none":
            books = books / scale.reshape(self.num_subspaces, 1, -1)
        else:
            back = rotation.T / scale
            back = back.astype(fitting_dtype(back, self.dtype))
        books = books.astype(fitting_dtype(books, self.dtype))
        return ProductTensor(codes, books, self.bits, back)


class ProductTensor(PackedTensor):
    """Codes of pieces of rows, the centroids they stand for, and how to turn the rows back.

    Args:
        codes: (rows, m) integers from 0 to k - 1.
        codebooks: (m, k, columns / m) centroids, float16 or float32.
        bits: of a code.
        back: (columns, columns) by which rows of centroids are multiplied, or None.

    Example:
        >>> books = np.float32([[[1], [2]], [[5], [9]]])
        >>> ProductTensor(np.array([[0, 1], [1, 1]]), books, bits=1).decode().tolist()
        [[1.0, 9.0], [2.0, 9.0]]
    """

    kind = "product"
    settings = ("bits",)
    by_row = True

    def __init__(self, codes: Array, codebooks: Array, bits: int, back: Any = None) -> None:
        pieces, _, width = codebooks.shape
        stored = {"codes": pack_bits(codes, bits), "codebooks": codebooks}
        header = {"bits": bits, "shape": [len(codes), pieces * width]}
        super().__init__(header, stored if back is None else stored | {"back": back})

    def decode(self) -> Floats:
        """Return the codewords side by side, rotated back."""
        pieces = self.codebooks.astype(np.float32)[np.arange(len(self.codebooks)), self.codes]
        rows, back = pieces.reshape(self.shape), self._arrays.get("back")  # from (rows, m, width)
        return rows if back is None else rows @ back.astype(np.float32)


def _importance(name: str, values: ArrayLike, count: int) -> Floats:
    weights = check_weights(name, np.asarray(values, np.float32))
    check_shape(name, weights, (count,))
    if weights.min() < 0 or weights.sum() == 0:
        raise ValueError(f"{name} has {weights.min():g}: expected none negative, and not all 0")
    return weights


def _rotation(points: Floats, config: ProductQuantization, weights: Floats | None) -> Floats:
    columns = points.shape[1]
    if config.rotation == "none":
        return np.eye(columns, dtype=np.float32)
    mass = np.ones(len(points), np.float32) if weights is None else weights
    weighted = points * mass[:, None]
    mean = weighted.sum(axis=0) / mass.sum()
    variances, axes = np.linalg.eigh(points.T @ weighted / mass.sum() - np.outer(mean, mean))
    return axes[:, deal_out(variances, config.num_subspaces)].astype(np.float32)


def deal_out(variances: NDArray[np.floating], num_subspaces: int) -> NDArray[np.int64]:
    """Deal axes out, largest first, each to the piece whose product of variances is smallest.

    Source:
        Ge et al., *Optimized Product Quantization*, CVPR 2013, section 3.2 ("eigenvalue
        allocation").

    Example:
        >>> deal_out(np.array([8.0, 4.0, 2.0, 1.0]), 2).tolist()
        [0, 3, 1, 2]
    """
    room = len(variances) // num_subspaces
    floored = np.maximum(variances, _SMALLEST_SHARE * variances.max() + 1e-30)
    logs = np.log(floored / floored.min())  # none negative
    pieces: list[list[int]] = [[] for _ in range(num_subspaces)]
    for axis in np.argsort(-logs, kind="stable"):
        not_full = [piece for piece in pieces if len(piece) < room]
        min(not_full, key=lambda p: logs[p].sum()).append(int(axis))
    return np.array(pieces, np.int64).ravel()


def _fit_pieces(points: Floats, config: ProductQuantization, weights: Any) -> tuple[Ids, Floats]:
    """Fit and apply the codebook of each piece: codes (rows, m) and centroids (m, k, d)."""
    options: dict[str, Any] = {"weights": weights, "iterations": config.iterations}
    pieces = map(np.ascontiguousarray, np.split(points, config.num_subspaces, axis=1))
    size, seed = 1 << config.bits, config.seed
    found = [kmeans(piece, size, seed=seed + n, **options) for n, piece in enumerate(pieces)]
    return np.stack([codes for _, codes in found], axis=1), np.stack([books for books, _ in found])
