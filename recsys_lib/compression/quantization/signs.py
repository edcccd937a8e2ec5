"""One bit a number: signs of turned rows, with a scale that makes scores right on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import check_choice, check_type, check_weights, store_flags, store_numbers
from recsys_lib.compression.quantization.uniform import (
    Array,
    Floats,
    UniformQuantization,
    fitting_dtype,
)
from recsys_lib.compression.tensors import EncodedTensor, read_tensor


@dataclass(frozen=True)
class SignQuantization:
    """How to store rows as one bit a number, and one scale a row.

    A row x is moved to the mean of all rows, turned by a random rotation P, and reduced to the
    signs s of what results. It decodes to ``mean + scale * P's``. What the scale is decides which
    error is small. With r the turned row:

    - "unbiased", ``|r|² / sum |r_j|``: the estimate of RaBitQ. The part of the decoded row along
      the row itself is exactly 1, and a random rotation makes what is left even, so that an inner
      product with any query is right on average.
    - "least squares", ``mean |r_j|``: the smallest squared error of the row; scores shrink.

    One bit rarely ranks well enough by itself. The usual remedy is to find a shortlist by the bits
    and to rank it again with a better copy. **That copy is stored as well, and counts**: with
    ``rerank`` the whole takes more bytes than the copy alone, and what the bits buy is time.

    Args:
        rotation: "random", stored as ``columns ** 2`` numbers of float16, or "none".
        centered: subtract the mean of all rows, stored as one row.
        scale: see above.
        rerank: how the copy for the second ranking is stored; None for no copy. The tensor then
            decodes to the copy, and ``shortlist_vectors()`` to what the first ranking sees.
        seed: of the rotation.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Source:
        Gao & Long, *RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for
        Approximate Nearest Neighbor Search*, SIGMOD 2024, section 3; "least squares": Rastegari et
        al., *XNOR-Net*, ECCV 2016, equation 6.

    Example:
        >>> SignQuantization(rerank=UniformQuantization(8)).rerank.bits
        8
        >>> SignQuantization(rotation="principal")
        Traceback (most recent call last):
        ValueError: rotation is 'principal': expected one of none, random
    """

    rotation: str = "random"
    centered: bool = True
    scale: str = "unbiased"
    rerank: UniformQuantization | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("rotation", self.rotation, ("none", "random"))
        check_choice("scale", self.scale, ("unbiased", "least squares"))
        store_flags(self, "centered")
        store_numbers(self, 0, "seed", integer=True)
        if self.rerank is not None:
            check_type("rerank", self.rerank, (UniformQuantization,))

    def encode(self, values: ArrayLike) -> SignTensor:
        """Return bits, scales and what turns them back.

        Args:
            values: (rows, columns) finite floating-point numbers.

        Raises:
            TypeError: not floating-point numbers.
            ValueError: not a matrix, or NaN or infinity.

        Example:
            >>> table = np.float32([[3, 3], [-3, 3]])
            >>> plain = SignQuantization("none", centered=False)
            >>> plain.encode(table).decode().tolist()
            [[3.0, 3.0], [-3.0, 3.0]]
        """
        table = check_weights("values", values, ndim=2)
        columns, parts = table.shape[1], {}
        rows = table
        if self.centered:
            mean = table.mean(axis=0)
            parts["mean"] = mean.astype(fitting_dtype(mean, "float16"))
            rows = table - parts["mean"].astype(np.float32)
        if self.rotation == "random":
            noise = np.random.default_rng(self.seed).normal(size=(columns, columns))
            parts["rotation"] = np.linalg.qr(noise)[0].astype(np.float16)
            rows = rows @ parts["rotation"].astype(np.float32)
        length = np.abs(rows).sum(axis=1)
        if self.scale == "unbiased":
            scale = (rows**2).sum(axis=1) / np.maximum(length, 1e-30)
        else:
            scale = length / columns
        parts["scale"] = scale.astype(fitting_dtype(scale, "float16"))
        again = None if self.rerank is None else self.rerank.encode(table)
        return SignTensor(rows >= 0, parts, again)


class SignTensor(EncodedTensor):
    """Signs of numbers, eight in a byte, and perhaps a better copy to rank a shortlist again.

    Args:
        positive: (rows, columns) True for +1, False for -1.
        parts: "scale" (rows,), and perhaps "mean" (columns,) and "rotation" (columns, columns).
        again: the better copy, or None; its bytes are counted.

    Example:
        >>> signs = np.array([[True, False]])
        >>> SignTensor(signs, {"scale": np.float16([2])}).decode().tolist()
        [[2.0, -2.0]]
    """

    kind = "sign"
    settings = ("again",)

    def __init__(self, positive: Array, parts: dict[str, Array], again: Any = None) -> None:
        arrays = {"signs": np.packbits(positive, axis=1)} | parts
        header: dict[str, Any] = {"shape": list(positive.shape)}
        if again is not None:
            header["again"] = [again.kind, again.header()]
            arrays |= {f"again_{name}": array for name, array in again.arrays().items()}
        super().__init__(header, arrays)

    def shortlist_vectors(self) -> Floats:
        """Return what the signs stand for, (rows, columns): the first ranking sees no more."""
        signs = np.unpackbits(self._arrays["signs"], axis=1, count=self.shape[1])
        rows = (2 * signs.astype(np.float32) - 1) * self._arrays["scale"][:, None]
        if "rotation" in self._arrays:
            rows = rows @ self._arrays["rotation"].astype(np.float32).T
        return rows + self._arrays["mean"].astype(np.float32) if "mean" in self._arrays else rows

    def decode(self) -> Floats:
        """Return the better copy where there is one, else what the signs stand for."""
        if "again" not in self._header:
            return self.shortlist_vectors()
        kind, header = self._header["again"]
        mine = {n[6:]: array for n, array in self._arrays.items() if n.startswith("again_")}
        return read_tensor(kind, header, mine).decode()
