"""Product quantization: a row as a few codes, each for a whole piece of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits, check_choice, check_number, check_shape, check_weights
from recsys_lib.compression.quantization.kmeans import kmeans
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.tensors import EncodedTensor

_ROTATIONS = ("none", "principal", "learned")
_DTYPES = ("float16", "float32")
_ROUNDS = 20  # of alternation between codebooks and rotation
_SMALLEST_SHARE = 1e-6  # of the largest eigenvalue: below, a direction counts as that much


@dataclass(frozen=True)
class ProductQuantization:
    """Choices of product quantization.

    Args:
        num_subspaces: pieces of a row, all of the same length; must divide the columns. A row then
            takes ``num_subspaces * bits / 8`` bytes.
        bits: of the code of a piece, from 1 to 8: each piece has ``2 ** bits`` centroids.
        rotation: of the rows before they are cut: "none"; "principal" (principal axes, dealt out
            to the pieces such that all have much the same to say); or "learned" (from there on,
            rotation and codebooks fitted in turns). A rotation is stored, ``columns ** 2`` numbers.
        dtype: in which centroids and rotation are stored, "float16" or "float32".
        iterations: of k-means, at most.
        seed: of k-means.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.

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
        check_number("num_subspaces", self.num_subspaces, 1, integer=True)
        check_bits(self.bits, low=1)
        check_choice("rotation", self.rotation, _ROTATIONS)
        check_choice("dtype", self.dtype, _DTYPES)
        check_number("iterations", self.iterations, 1, integer=True)
        check_number("seed", self.seed, 0, integer=True)


class ProductTensor(EncodedTensor):
    """Codes of pieces of rows, the centroids they stand for, and how to turn the rows back.

    Args:
        codes: (rows, m) integers from 0 to k - 1.
        codebooks: (m, k, columns / m) centroids, float16 or float32.
        bits: of a code.
        back: (columns, columns) by which rows of centroids are multiplied, or None.

    Raises:
        ValueError: a code without a centroid, or other shapes than these.

    Example:
        >>> books = np.float32([[[1], [2]], [[5], [9]]])
        >>> ProductTensor(np.array([[0, 1], [1, 1]]), books, bits=1).decode().tolist()
        [[1.0, 9.0], [2.0, 9.0]]
    """

    kind = "product"

    def __init__(
        self,
        codes: NDArray[np.integer],
        codebooks: NDArray[Any],
        bits: int,
        back: NDArray[Any] | None = None,
    ) -> None:
        check_weights("codebooks", codebooks, ndim=3)
        pieces, size, width = codebooks.shape
        check_shape("codes", codes, (len(codes), pieces))
        self.bits = check_bits(bits, low=1)
        if codes.size == 0 or codes.min() < 0 or codes.max() >= size or size > 1 << bits:
            raise ValueError(
                f"codes: expected at least one row of integers from 0 to {size - 1}, in {bits} bits"
            )
        if back is not None:
            check_shape("back", check_weights("back", back), (pieces * width, pieces * width))
        self.shape = (len(codes), pieces * width)
        self.codes: NDArray[np.uint8] = codes.astype(np.uint8)
        self.codebooks = np.array(codebooks)
        self.back = None if back is None else np.array(back)

    def header(self) -> dict[str, Any]:
        """Give bits and shape."""
        return {"bits": self.bits, "shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the packed codes, the centroids and, if there is one, the matrix back."""
        stored = {"codes": pack_bits(self.codes, self.bits), "codebooks": self.codebooks}
        return stored if self.back is None else stored | {"back": self.back}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        books, rows = arrays["codebooks"], header["shape"][0]
        codes = unpack_bits(arrays["codes"], header["bits"], rows * len(books))
        return cls(codes.reshape(rows, -1), books, header["bits"], arrays.get("back"))

    def decode(self) -> NDArray[np.float32]:
        """Look the pieces up, put them side by side and turn them back."""
        pieces = self.codebooks.astype(np.float32)[np.arange(self.codes.shape[1]), self.codes]
        rows = pieces.reshape(self.shape)  # from (rows, m, columns / m)
        return rows if self.back is None else rows @ self.back.astype(np.float32)


def quantize_product(
    values: ArrayLike,
    config: ProductQuantization,
    *,
    metric: ArrayLike | None = None,
    row_weights: ArrayLike | None = None,
) -> ProductTensor:
    """Cut rows into pieces, and replace each piece by the nearest of ``2 ** bits`` centroids.

    By default the centroids minimise the squared error of the rows. What a recommender feels is
    the error of its scores: over all users u, item a that became b is off by
    ``sum_u <x_u, a - b>² = (a - b)' G (a - b)`` with the Gram matrix ``G = X'X``. With
    ``metric=G`` that is what is minimised: rows are multiplied by the root of G, quantized and
    multiplied back. A diagonal G is free (it goes into the centroids); any other G takes a stored
    matrix, as a rotation does, and together they take one.

    Args:
        values: (rows, columns) floating-point numbers.
        config: choices.
        metric: (columns, columns) symmetric, no negative eigenvalues; None for squared error.
        row_weights: (rows,) how much the error of a row counts, None for 1 each.

    Returns:
        Codes, centroids and what turns them back; ``decode()`` has the shape of ``values``.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: NaN or infinity, or shapes that do not fit each other.

    Source:
        Jégou, Douze & Schmid, *Product Quantization for Nearest Neighbor Search*, 2011; rotations:
        Ge, He, Ke & Sun, *Optimized Product Quantization*, CVPR 2013, sections 3.1 and 3.2.

    Example:
        >>> table = np.float32([[1, 1, 0, 5], [1, 1, 9, 9], [7, 8, 9, 9]])
        >>> stored = quantize_product(table, ProductQuantization(2, bits=1))
        >>> stored.codes.shape, bool((stored.decode() == table).all())
        ((3, 2), True)
    """
    array = check_weights("values", values, ndim=2)
    columns = array.shape[1]
    if columns % config.num_subspaces:
        raise ValueError(
            f"num_subspaces is {config.num_subspaces}: expected a divisor of the {columns} columns"
        )
    weights = None if row_weights is None else check_weights("row_weights", row_weights, ndim=1)
    forth, back = _roots(metric, columns)
    points = np.asarray(array @ forth, np.float32)
    rotation = _rotation(points, config, weights)
    codes, books = _fit_pieces(
        np.asarray(points @ rotation, np.float32), config, weights, config.iterations
    )
    matrix = rotation.T @ back
    if np.array_equal(matrix, np.diag(np.diag(matrix))):  # goes into the centroids
        books = books * np.diag(matrix).reshape(config.num_subspaces, 1, -1)
        stored_back = None
    else:
        stored_back = _stored(matrix, config.dtype)
    return ProductTensor(codes, _stored(books, config.dtype), config.bits, stored_back)


def _stored(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        raise ValueError(f"values reach {np.abs(values).max():.3g}: too large for {dtype}")
    return stored


def _roots(
    metric: ArrayLike | None, columns: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give the root of a metric, scaled to a mean eigenvalue of 1, and its inverse."""
    if metric is None:
        return np.eye(columns, dtype=np.float32), np.eye(columns, dtype=np.float32)
    gram = check_weights("metric", metric, ndim=2).astype(np.float64)
    check_shape("metric", gram, (columns, columns))
    diagonal = np.array_equal(gram, np.diag(np.diag(gram)))
    eigenvalues, axes = (np.diag(gram), np.eye(columns)) if diagonal else np.linalg.eigh(gram)
    largest = eigenvalues.max()
    symmetric = np.allclose(gram, gram.T, atol=1e-4 * abs(largest))
    if not symmetric or largest <= 0 or eigenvalues.min() < -1e-4 * largest:
        raise ValueError("metric: expected a symmetric matrix with no negative eigenvalues, not 0")
    lengths = np.sqrt(np.maximum(eigenvalues, _SMALLEST_SHARE * largest) / eigenvalues.mean())
    forth, back = (axes * lengths) @ axes.T, (axes / lengths) @ axes.T
    return forth.astype(np.float32), back.astype(np.float32)


def _rotation(
    points: NDArray[np.float32], config: ProductQuantization, weights: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    columns = points.shape[1]
    if config.rotation == "none":
        return np.eye(columns, dtype=np.float32)
    mass = np.ones(len(points), np.float32) if weights is None else weights
    weighted = points * mass[:, None]
    mean = weighted.sum(axis=0) / mass.sum()
    variances, axes = np.linalg.eigh(points.T @ weighted / mass.sum() - np.outer(mean, mean))
    rotation = axes[:, deal_out(variances, config.num_subspaces)].astype(np.float32)
    if config.rotation == "principal":
        return rotation
    books = None
    for _ in range(_ROUNDS):
        turned = points @ rotation
        codes, books = _fit_pieces(turned, config, weights, 4 if books is None else 1, books)
        pieces = books[np.arange(config.num_subspaces), codes].reshape(points.shape)
        left, _, right = np.linalg.svd(weighted.T @ pieces)  # Procrustes
        rotation = left @ right
    return rotation


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


def _fit_pieces(
    points: NDArray[np.float32],
    config: ProductQuantization,
    weights: NDArray[np.float32] | None,
    iterations: int,
    start: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Fit and apply the codebook of each piece: codes (rows, m) and centroids (m, k, d)."""
    codes, books = [], []
    for number, piece in enumerate(np.split(points, config.num_subspaces, axis=1)):
        centroids, code = kmeans(
            np.ascontiguousarray(piece),
            1 << config.bits,
            weights=weights,
            start=None if start is None else start[number],
            iterations=iterations,
            seed=config.seed + number,
        )
        codes.append(code)
        books.append(centroids)
    return np.stack(codes, axis=1), np.stack(books)
