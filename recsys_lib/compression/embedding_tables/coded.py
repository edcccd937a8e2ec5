"""Tables of codes that train: rounded rows, and the centroids of product quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_bits, check_number, check_weights
from recsys_lib.compression.embedding_tables.base import Parts, TableScheme, check_table, normal
from recsys_lib.compression.quantization.product import ProductQuantization, ProductTensor
from recsys_lib.compression.quantization.uniform import UniformQuantization, UniformTensor
from recsys_lib.compression.tensors import EncodedTensor


@dataclass(frozen=True)
class RowwiseBits(TableScheme):
    """Every row rounded to a few bits between its own lowest and highest number.

    In training the table stays in float32; what is looked up is rounded, and the gradient passes
    as if it were not (straight through). Stored are the whole numbers.

    Args:
        bits: of a number, 2 to 8.

    Raises:
        TypeError, ValueError: bits out of range.

    Source:
        Guan et al., *Post-Training 4-bit Quantization on Embedding Tables*, 2019, 1911.02079;
        Bengio, Léonard & Courville, 2013, 1308.3432 (straight-through gradient).

    Example:
        >>> parts = {"rows": np.float32([[0, 0.9, 2.2, 3]])}
        >>> RowwiseBits(bits=2).lookup(np, parts, np.array([0])).tolist()
        [[0.0, 1.0, 2.0, 3.0]]
    """

    bits: int = 4
    name = "rowwise_bits"

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw the table."""
        check_table(num_rows, dim)
        return {"rows": normal(np.random.default_rng(seed), std, (num_rows, dim))}, {}

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Take the table; ``lookup`` and ``store`` round."""
        return {"rows": check_weights("table", table, ndim=2).copy()}, {}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look rows up and round them; scales are rounded to float16 as they are when stored."""
        rows = xp.take(parts["rows"], ids, axis=0)
        pass_through = getattr(xp, "stop_gradient", lambda values: values)
        exact = pass_through(rows)
        codes, scale, low = self._round(xp, exact)
        return rows + pass_through(codes * scale + low - exact)

    def store(self, parts: Parts, num_rows: int, dtype: str = "float16") -> EncodedTensor:
        """Round the table and pack it; scales and offsets are float16."""
        codes, scale, low = self._round(np, parts["rows"])
        config = UniformQuantization(self.bits, granularity="row", scale_dtype="float16")
        scale, low = scale.astype(np.float16), low.astype(np.float16)
        return UniformTensor(codes.astype(np.uint8), scale, low, config)

    def _round(self, xp: Any, rows: Any) -> tuple[Any, Any, Any]:
        """Give codes, step and lowest value of each row, the latter two as float16 holds them."""
        lowest = xp.min(rows, axis=1, keepdims=True)
        highest = xp.max(rows, axis=1, keepdims=True)
        levels = 2**self.bits - 1
        low, scale = _in_float16(xp, lowest), _in_float16(xp, (highest - lowest) / levels)
        codes = xp.clip(xp.round((rows - low) / xp.maximum(scale, 1e-30)), 0, levels)
        return codes, scale, low


def _in_float16(xp: Any, values: Any) -> Any:
    return xp.array(xp.array(values, dtype="float16"), dtype="float32")


@dataclass(frozen=True)
class ProductCodes(TableScheme):
    """A row as a few codes, each for a piece; the codes are fixed, the centroids train.

    Started from a table, codes come from product quantization of it, and training then moves the
    centroids to where the ranking loss wants them. Without a table the codes are drawn at random:
    a hashing trick with several hashes, in which hardly any two ids share all pieces.

    Args:
        num_subspaces: pieces of a row; must divide its length.
        bits: of a code, 1 to 8.
        seed: of k-means.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Jégou, Douze & Schmid, *Product Quantization for Nearest Neighbor Search*, 2011; Svenstrup
        et al., *Hash Embeddings*, 2017, 1709.03933 (several hashes).

    Example:
        >>> table = np.float32([[1, 2], [1, 4], [3, 4]])
        >>> trained, fixed = ProductCodes(num_subspaces=2, bits=1).approximate(table)
        >>> ProductCodes(2, 1).lookup(np, trained | fixed, np.array([2])).tolist()
        [[3.0, 4.0]]
    """

    num_subspaces: int
    bits: int = 8
    seed: int = 0
    name = "product_codes"

    def __post_init__(self) -> None:
        check_number("num_subspaces", self.num_subspaces, 1, integer=True)
        check_bits(self.bits, low=1)
        check_number("seed", self.seed, 0, integer=True)

    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw codes and centroids."""
        check_table(num_rows, dim)
        if dim % self.num_subspaces:
            raise ValueError(
                f"num_subspaces is {self.num_subspaces}: expected a divisor of the {dim} columns"
            )
        random = np.random.default_rng(seed)
        size = 1 << self.bits
        books = normal(random, std, (self.num_subspaces * size, dim // self.num_subspaces))
        codes = random.integers(0, size, (num_rows, self.num_subspaces)).astype(np.uint8)
        return {"centroids": books}, {"codes": codes}

    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Quantize the table; with counts, the error of a row counts as often as it occurs."""
        config = ProductQuantization(self.num_subspaces, self.bits, dtype="float32", seed=self.seed)
        weights = None if counts is None else np.asarray(counts, np.float32) + np.float32(1e-3)
        stored = config.encode(table, weights)
        books = stored.codebooks.reshape(-1, stored.codebooks.shape[2])
        return {"centroids": books}, {"codes": stored.codes}

    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Look codes up, then the pieces that they stand for, and put these side by side."""
        codes = xp.take(xp.array(parts["codes"], dtype="int32"), ids, axis=0)  # (n, m)
        first = np.arange(self.num_subspaces, dtype=np.int32) << self.bits
        pieces = xp.take(parts["centroids"], codes + first, axis=0)  # (n, m, d / m)
        return xp.reshape(pieces, (-1, self.num_subspaces * parts["centroids"].shape[1]))

    def store(self, parts: Parts, num_rows: int, dtype: str = "float16") -> EncodedTensor:
        """Pack the codes."""
        books = parts["centroids"].reshape(self.num_subspaces, 1 << self.bits, -1)
        return ProductTensor(parts["codes"], books.astype(dtype), self.bits)
