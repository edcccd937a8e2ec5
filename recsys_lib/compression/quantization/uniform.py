"""Uniform quantization: a weight is a whole number of equal steps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_bits,
    check_choice,
    check_ids,
    check_shape,
    check_weights,
    store_flags,
    store_numbers,
)
from recsys_lib.compression.tensors import EncodedTensor

Array = NDArray[Any]
Floats = NDArray[np.float32]
FLOAT_DTYPES = ("float16", "float32")
GRANULARITIES = ("tensor", "row", "column")
SEARCHES = ("minmax", "percentile", "mse")
# The search takes away 2 % of the range at a time until 24 % are left; the best four levels for
# normally distributed values reach to 1.5 standard deviations, for 192 of them half the range.
_SEARCH_STEPS = 38
_STEP, _PERCENTILE = np.float32(0.02), 99.9
_NUMBERS_AT_ONCE = 1 << 16  # what is worked on stays in the second-level cache


@dataclass(frozen=True)
class UniformQuantization:
    """How to round a tensor to equal steps: ``real = scale * (q - zero_point)``.

    ===================  ==================  ============================  ======================
    form                 range               stored for each group         0.0 decodes to 0.0
    ===================  ==================  ============================  ======================
    asymmetric           [low, high]         scale, offset (value of q=0)  not as a rule
    with ``exact_zero``  [low, high] and 0   scale, zero point (one byte)  yes
    ``symmetric``        [-high, high]       scale                         yes
    ===================  ==================  ============================  ======================

    Symmetric quantization uses ``2**bits - 1`` codes, of which the middle one is 0.

    Args:
        bits: 2 to 8.
        granularity: what shares a scale: "tensor" (everything), "row" (first axis: an embedding),
            or "column" (last axis: an output of a dense kernel).
        symmetric: see above.
        scale_search: "minmax" (the whole range), "percentile" (99.9 % of it) or "mse" (clip it
            where the squared error is smallest), see :func:`find_range`.
        scale_dtype: "float16" or "float32", in which scales and offsets are stored; what float16
            has no number for is stored in float32.
        exact_zero: see above; where padding or masks must stay zero, or integer arithmetic follows.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 2.1; row-wise scales and their
        search: Guan et al., *Post-Training 4-bit Quantization on Embedding Tables*, 2019.

    Example:
        >>> UniformQuantization(bits=4, granularity="row").bits
        4
        >>> UniformQuantization(bits=1)
        Traceback (most recent call last):
        ValueError: bits is 1: expected an integer from 2 to 8
    """

    bits: int = 8
    granularity: str = "row"
    symmetric: bool = False
    scale_search: str = "minmax"
    scale_dtype: str = "float16"
    exact_zero: bool = False

    def __post_init__(self) -> None:
        store_numbers(self, 2, "bits", high=8, integer=True)
        store_flags(self, "symmetric", "exact_zero")
        choices = {"granularity": GRANULARITIES, "scale_search": SEARCHES}
        for name, known in (choices | {"scale_dtype": FLOAT_DTYPES}).items():
            check_choice(name, getattr(self, name), known)

    def encode(self, values: ArrayLike) -> UniformTensor:
        """Return a tensor rounded to the nearest whole steps.

        With the "minmax" range every value is at most half a step away from what it decodes to:
        where scale and offset are rounded to be stored, it is outwards, so that both ends stay
        covered. Zeros alone decode to zeros. A constant group decodes to itself where its value is
        a number of the type ``scale_dtype``, and otherwise to within a step of the rounding of that
        type divided by the number of levels. Nothing is ever divided by a scale of 0.

        Args:
            values: finite numbers of one or more dimensions; a vector is one group.

        Raises:
            TypeError: not floating-point numbers.
            ValueError: nothing in it, or NaN or infinity.

        Source:
            Jacob et al., CVPR 2018, section 2.1, equation 1.

        Example:
            >>> table = np.float32([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
            >>> stored = UniformQuantization(bits=2).encode(table)
            >>> stored.codes.tolist()
            [[0, 1, 2, 3], [0, 0, 0, 0]]
            >>> bool((stored.decode() == table).all())
            True
        """
        array = check_weights("values", values)
        if not array.ndim:
            raise ValueError("values has shape (): expected one or more dimensions")
        groups, shape = _groups(array, self.granularity)
        ends = find_range(groups, self.bits, symmetric=self.symmetric, search=self.scale_search)
        low, high = (end.astype(np.float64).reshape(shape) for end in ends)
        offset: Array | None = None
        top = 2**self.bits - (2 if self.symmetric else 1)
        if self.symmetric:
            scale = _outwards(high / (top // 2), self.scale_dtype)
            codes = _divide(array, scale) + top // 2
        elif self.exact_zero:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = _outwards((high - low) / top, self.scale_dtype)
            zero = np.rint(_divide(-low.astype(np.float32), scale))
            offset = np.clip(zero, 0, top).astype(np.uint8)
            codes = _divide(array, scale) + offset
        else:
            offset = -_outwards(-low, self.scale_dtype)
            scale = _outwards((high - offset.astype(np.float64)) / top, self.scale_dtype)
            codes = _divide(array - offset.astype(np.float32), scale)
        np.clip(np.rint(codes, out=codes), 0, top, out=codes)
        return UniformTensor(codes.astype(np.uint8), scale, offset, self)


class PackedTensor(EncodedTensor):
    """A form with packed ``codes``: one for each number, or ``by_row`` one for each codebook."""

    by_row: ClassVar[bool] = False

    @property
    def codebooks(self) -> NDArray[Any]:
        """Return the values of the codes."""
        return self._arrays["codebooks"]

    @property
    def codes(self) -> NDArray[np.uint8]:
        """Return the codes, unpacked, in the shape of the array, or (rows, codebooks)."""
        shape = (self.shape[0], len(self.codebooks)) if self.by_row else self.shape
        count = math.prod(shape)
        return unpack_bits(self._arrays["codes"], self._header["bits"], count).reshape(shape)


class UniformTensor(PackedTensor):
    """Whole numbers of a few bits, packed, with a scale (and an offset) for each group.

    Args:
        codes: integers in [0, 2**bits), in the shape of the array.
        scale: steps, positive or 0, of a shape that broadcasts to that of the codes.
        offset: in the shape of ``scale``; floating-point numbers are the value of code 0, uint8
            are zero points; None for symmetric quantization, with the zero point
            ``2**(bits - 1) - 1``.
        config: how they were made.

    Raises:
        ValueError: codes out of range, or shapes that do not fit.

    Example:
        >>> config = UniformQuantization(bits=2, granularity="row")
        >>> scale, low = np.float16([[0.5], [0]]), np.float16([[-1], [7]])
        >>> UniformTensor(np.array([[0, 3], [0, 0]]), scale, low, config).decode().tolist()
        [[-1.0, 0.5], [7.0, 7.0]]
    """

    kind = "uniform"
    settings = tuple(UniformQuantization.__annotations__)

    def __init__(self, codes: Array, scale: Array, offset: Any, config: Any) -> None:
        if np.broadcast_shapes(scale.shape, codes.shape) != codes.shape:
            raise ValueError(f"scale has shape {scale.shape}: expected one for {codes.shape}")
        header = {"shape": list(codes.shape), **asdict(config)}
        stored = {"codes": pack_bits(codes, config.bits), "scale": scale}
        super().__init__(header, stored if offset is None else stored | {"offset": offset})

    @property
    def scale(self) -> NDArray[Any]:
        """Return the steps, as they are stored."""
        return self._arrays["scale"]

    @property
    def offset(self) -> NDArray[Any] | None:
        """Return the values of code 0, or the zero points (uint8), as they are stored."""
        return self._arrays.get("offset")

    @property
    def config(self) -> UniformQuantization:
        """Return the configuration of the codes."""
        return UniformQuantization(**{name: self._header[name] for name in self.settings})

    @property
    def zero_point(self) -> Floats:
        """Return the code of 0.0, in the shape of ``scale``; not whole for an offset.

        A group whose scale is 0 has the zero point 0, and decodes to its offset.
        """
        if self.offset is None:
            return np.full(self.scale.shape, 2 ** (self._header["bits"] - 1) - 1, np.float32)
        if self.offset.dtype == np.uint8:
            return self.offset.astype(np.float32)
        return _divide(-self.offset.astype(np.float32), self.scale)

    def decode(self) -> Floats:
        """Return the rounded values."""
        _ = self.config  # raises for a setting that only a newer version knows
        values, scale = self.codes.astype(np.float32), self.scale.astype(np.float32)
        if self.offset is None or self.offset.dtype == np.uint8:
            values -= self.zero_point
            values *= scale
        else:
            values *= scale
            values += self.offset.astype(np.float32)
        return values


def find_range(groups: Floats, bits: int, *, symmetric: bool, search: str) -> tuple[Floats, Floats]:
    """Return the ends of the range that each group's codes will cover.

    - "minmax": all values.
    - "percentile": without the share ``1 - percentile / 100`` of the values at each end
      (symmetric: of the largest absolute values).
    - "mse": the range is made smaller in steps of 2 %, each time at the end where that costs less,
      and the best one on the way is kept (symmetric: at both ends). Values outside are clipped.

    Args:
        groups: (g, n), a row for each group of values that share a scale.
        bits: of a code.
        symmetric: low is ``-high``.
        search: one of the above.

    Returns:
        ``(low, high)``, (g,) each.

    Source:
        Guan et al., *Post-Training 4-bit Quantization on Embedding Tables*, 2019 ("greedy search").

    Example:
        >>> row = np.float32([[-1, 0, 1, 2, 50]])
        >>> [end.tolist() for end in find_range(row, 4, symmetric=False, search="minmax")]
        [[-1.0], [50.0]]
        >>> row = np.float32([[*np.linspace(-1, 1, 2000), 3]])
        >>> low, high = find_range(row, 3, symmetric=False, search="mse")
        >>> bool(high[0] < 2)  # one outlier is not worth coarse steps for all others
        True
    """
    size = np.abs(groups) if symmetric else groups
    if search == "percentile":
        high = np.percentile(size, _PERCENTILE, axis=1).astype(np.float32)
        low = -high if symmetric else np.percentile(groups, 100 - _PERCENTILE, axis=1)
        return low.astype(np.float32), high
    high = size.max(axis=1)
    low = -high if symmetric else groups.min(axis=1)
    if search == "minmax":
        return low, high
    rows = max(1, _NUMBERS_AT_ONCE // groups.shape[1])
    levels = 2**bits - (2 if symmetric else 1)
    for start in range(0, len(groups), rows):
        part = slice(start, start + rows)
        found = _smallest_error(groups[part], low[part], high[part], levels, symmetric)
        low[part], high[part] = found
    return low, high


def rounding_error(groups: Floats, low: Floats, high: Floats, levels: int) -> Floats:
    """Return the sum of squared rounding errors of each group for a range cut in ``levels`` steps.

    Example:
        >>> rounding_error(np.float32([[0, 1, 2.5]]), np.float32([0]), np.float32([2]), 2).tolist()
        [0.25]
    """
    size = (high - low) / np.float32(levels)
    step = np.where(size > 0, size, np.float32(1))[:, None]  # (g, 1)
    error = groups - low[:, None]
    error /= step
    rounded = np.rint(error)
    np.clip(rounded, 0, levels, out=rounded)
    error -= rounded
    error *= step
    return np.einsum("gn,gn->g", error, error)


def _smallest_error(
    groups: Floats, low: Floats, high: Floats, levels: int, symmetric: bool
) -> tuple[Floats, Floats]:
    best_low, best_high = low, high
    best = rounding_error(groups, low, high, levels)
    step = (high - low) * _STEP
    half_step = step * np.float32(0.5)
    for _ in range(_SEARCH_STEPS):
        if symmetric:
            low, high = low + half_step, high - half_step
            error = rounding_error(groups, low, high, levels)
        else:
            from_below = rounding_error(groups, low + step, high, levels)
            from_above = rounding_error(groups, low, high - step, levels)
            below = from_below < from_above
            low, high = np.where(below, low + step, low), np.where(below, high, high - step)
            error = np.minimum(from_below, from_above)
        better = error < best
        best = np.where(better, error, best)
        best_low, best_high = np.where(better, low, best_low), np.where(better, high, best_high)
    return best_low, best_high


def _groups(values: Floats, granularity: str) -> tuple[Floats, tuple[int, ...]]:
    """Return one row for each group that shares a scale, and the shape of a number a group."""
    ones = (1,) * (values.ndim - 1)
    if granularity == "tensor" or values.ndim < 2:
        return values.reshape(1, -1), (1, *ones)
    if granularity == "row":
        return values.reshape(len(values), -1), (len(values), *ones)
    return values.reshape(-1, values.shape[-1]).T, (*ones, values.shape[-1])


def _divide(values: Floats, scale: NDArray[Any]) -> Floats:
    """Divide where the scale is not zero: all values of a group of scale 0 are equal, code 0."""
    wide = scale.astype(np.float32)
    return np.where(wide > 0, values / np.where(wide > 0, wide, np.float32(1)), np.float32(0))


def _outwards(needed: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Round up to the type in which it is stored."""
    stored = needed.astype(fitting_dtype(needed, dtype))
    return np.where(stored < needed, np.nextafter(stored, np.inf, dtype=stored.dtype), stored)


def pack_bits(codes: ArrayLike, bits: int) -> NDArray[np.uint8]:
    """Store whole numbers in ``bits`` bits each, the first in the lowest bits of the first byte.

    Args:
        codes: integers in [0, 2**bits), any shape, taken in C order.
        bits: 1 to 8.

    Returns:
        (ceil(n * bits / 8),) bytes; the bits that are left over in the last one are 0.

    Raises:
        TypeError: not integers.
        ValueError: a code out of range, or bits out of 1 to 8.

    Example:
        >>> pack_bits([1, 2, 3, 0], bits=2).tolist()  # 1 + 2 * 4 + 3 * 16 + 0 * 64
        [57]
        >>> len(pack_bits(range(8), bits=3))
        3
    """
    flat = check_ids("codes", np.asarray(codes).reshape(-1), 1 << check_bits(bits, low=1))
    each = np.unpackbits(flat.astype(np.uint8)[:, None], axis=1, bitorder="little", count=bits)
    return np.packbits(each.reshape(-1), bitorder="little")


def unpack_bits(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` codes that :func:`pack_bits` stored.

    Raises:
        ValueError: another number of bytes than these codes take.

    Example:
        >>> unpack_bits(pack_bits([5, 0, 7], bits=3), bits=3, count=3).tolist()
        [5, 0, 7]
    """
    check_shape("packed", packed, (-(-count * bits // 8),))
    each = np.unpackbits(packed, bitorder="little", count=count * bits).reshape(count, bits)
    return np.bitwise_or.reduce([each[:, n] << n for n in range(bits)])  # packbits takes longer


def fitting_dtype(values: NDArray[np.floating], dtype: str) -> str:
    """Return "float32" where all numbers are too small or one too large for ``dtype``.

    Below 2**-14 a float16 number has fewer digits the smaller it is, and from 2**-25 on none.

    Example:
        >>> [fitting_dtype(np.array([0, x]), "float16") for x in (1e-7, 1.0, 1e6)]
        ['float32', 'float16', 'float32']
    """
    largest = float(np.abs(values).max(initial=0))
    return dtype if largest == 0 or 2.0**-14 <= largest <= 65504 else "float32"
