"""From 32-bit sums to 8-bit codes: the three ways in which LiteRT multiplies by a scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice

Ints = NDArray[np.int64]
REQUANTIZATIONS = ("single", "double", "float")


def requantize(accumulator: ArrayLike, multiplier: ArrayLike, method: str = "single") -> Ints:
    """Give ``round(accumulator * multiplier)``, in integer arithmetic or in float32.

    A real multiplier is stored as a 31-bit integer and a shift, ``mantissa * 2**(shift - 31)``
    (:func:`fixed_point`). The three methods differ in how often they round, and therefore in one
    product of a few hundred to thousand, by 1:

    - "single": the 64-bit product is rounded once, halves up. LiteRT's reference kernels.
    - "double": rounded to 31 bits, and once more after the shift, halves up both times; a number
      just below a half can be rounded up twice. LiteRT's built-in kernels (ruy).
    - "float": a product of float32 numbers, rounded half to even. LiteRT's default, the XNNPACK
      delegate, on x86.

    Args:
        accumulator: int32 numbers, as sums of products of codes are.
        multiplier: positive numbers that broadcast against it; below 2**30.
        method: one of the above.

    Returns:
        int64 of the broadcast shape, not clipped to any range.

    Raises:
        ValueError: an unknown method, or a multiplier out of range.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, equations 5 and 6.

    Example:
        >>> requantize([5, -5, 7], 0.5).tolist()
        [3, -2, 4]
        >>> [requantize(2 * [2**29 - 1], 2.0**-30, method)[0] for method in REQUANTIZATIONS]
        [np.int64(0), np.int64(1), np.int64(0)]
    """
    check_choice("method", method, REQUANTIZATIONS)
    if method == "float":
        real = np.asarray(accumulator, np.float32) * np.asarray(multiplier, np.float32)
        return np.rint(real).astype(np.int64)
    mantissa, shift = fixed_point(multiplier)
    right = 31 - shift
    product = np.asarray(accumulator, np.int64) * mantissa
    if method == "single":
        return _round_shift(product, right)
    # Multipliers above 1 shift left before the multiplication.
    first = np.minimum(31, right)
    return _round_shift(_round_shift(product, first), right - first)


def fixed_point(multiplier: ArrayLike) -> tuple[Ints, Ints]:
    """Give ``(mantissa, shift)`` with ``multiplier = mantissa * 2**(shift - 31)``.

    Args:
        multiplier: positive numbers below 2**30.

    Returns:
        mantissa: int64 from 2**30 to 2**31 - 1, or 0 for a multiplier below 2**-31.
        shift: int64.

    Raises:
        ValueError: a multiplier that is not positive and finite, or too large.

    Example:
        >>> [int(x) for x in fixed_point(0.75)]
        [1610612736, 0]
    """
    real = np.asarray(multiplier, np.float64)
    if not (np.isfinite(real).all() and (real > 0).all() and (real < 2.0**30).all()):
        raise ValueError(
            f"multiplier lies between {real.min()} and {real.max()}: expected above 0, below 2**30"
        )
    fraction, exponent = np.frexp(real)
    mantissa = np.rint(fraction * 2.0**31).astype(np.int64)
    carried = mantissa == 1 << 31
    shift = (exponent + carried).astype(np.int64)
    mantissa = np.where(carried, 1 << 30, mantissa)
    tiny = shift < -31
    return np.where(tiny, 0, mantissa), np.where(tiny, 0, shift)


def _round_shift(value: Ints, bits: Ints) -> Ints:
    """Divide by 2**bits and round, halves up."""
    half = np.where(bits > 0, np.int64(1) << np.maximum(bits - 1, 0), 0)
    return (value + half) >> bits
