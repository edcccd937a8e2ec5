"""Fake quantization: numbers rounded to a grid in the forward pass, and a gradient nevertheless.

A number ``x`` gets the code ``q = clip(round(x / scale) + zero_point, low, high)`` and becomes
``scale * (q - zero_point)``. Codes are signed, as LiteRT has them: -128 to 127 for 8 bits. Rounding
has the derivative 0 almost everywhere; in the backward pass it is passed over as if it were not
there (the straight-through estimator).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits
from recsys_lib.compression.quantization.uniform import Floats, UniformQuantization

_TINY = np.float32(1e-30)  # 1 over it is still a number


class Grid(NamedTuple):
    """Scale (the step), zero point (the code of 0.0) and the lowest and highest code.

    ``scale`` and ``zero_point`` are numbers, or arrays that broadcast against what is quantized.
    """

    scale: Any
    zero_point: Any
    low: int
    high: int


def code_range(bits: int, *, narrow: bool = False) -> tuple[int, int]:
    """Return the lowest and highest signed code.

    Args:
        bits: 2 to 8.
        narrow: leave the lowest code out, so that the range is symmetric about 0.

    Example:
        >>> code_range(8), code_range(8, narrow=True), code_range(2, narrow=True)
        ((-128, 127), (-127, 127), (-1, 1))
    """
    half = 1 << (check_bits(bits) - 1)
    return -half + narrow, half - 1


def nudged_grid(minimum: Any, maximum: Any, bits: int = 8, *, narrow: bool = False) -> Grid:
    """Return the grid of a range, moved by less than half a step so that 0.0 lies on it.

    Args:
        minimum: lowest number, at most 0 (number or array).
        maximum: highest number, at least 0, of the same shape.
        bits: 2 to 8.
        narrow: see :func:`code_range`.

    Returns:
        float32 scale (1 where the range is empty, or next to it) and int32 zero point, of the
        shape of ``minimum``.

    Raises:
        ValueError: a range without 0, NaN or infinity, or bits out of range.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 3.1; the arithmetic is that of
        TensorFlow's ``fake_quant_with_min_max_vars``, in float32.

    Example:
        >>> grid = nudged_grid(-1.0, 3.0, bits=2)
        >>> round(float(grid.scale), 3), int(grid.zero_point), grid.low, grid.high
        (1.333, -1, -2, 1)
    """
    low, high = code_range(bits, narrow=narrow)
    least, most = np.asarray(minimum, np.float32), np.asarray(maximum, np.float32)
    if least.shape != most.shape:
        raise ValueError(f"minimum has shape {least.shape}, maximum {most.shape}: expected one")
    if not ((least <= 0) & (most >= 0) & np.isfinite(most - least)).all():
        raise ValueError(f"range {least.min()} to {most.max()}: expected finite minimum <= 0 <= it")
    scale = (most - least) / np.float32(high - low)
    scale = np.where(scale > _TINY, scale, np.float32(1))
    from_lowest = np.clip(np.floor(-least / scale + np.float32(0.5)), 0, high - low)
    return Grid(scale.astype(np.float32), (low + from_lowest).astype(np.int32), low, high)


def fake_quant(
    x: Any, scale: Any, zero_point: Any = 0, bits: int = 8, *, narrow: bool = False
) -> Any:
    """Round to a grid; the gradient passes as if nothing had been rounded.

    With ``q`` the code of ``x``, gradients are

    - to ``x``: 1 inside the range of the grid (its ends included), 0 outside;
    - to ``scale``: ``(q - zero_point) - x / scale`` inside, ``low - zero_point`` below and
      ``high - zero_point`` above. Inside the range that is the error of rounding, in steps. A
      scale that is not to be trained needs ``keras.ops.stop_gradient``.

    Forward values and gradient to ``x`` are those of TensorFlow's
    ``fake_quant_with_min_max_vars`` for ``Grid`` from :func:`nudged_grid`, and of its
    ``_per_channel`` form where ``scale`` and ``zero_point`` have one entry for each last index.
    The gradient to the range is not: TensorFlow leaves the error of rounding out of it.

    Args:
        x: tensor of float32.
        scale: the step, above 0; a number or tensor that broadcasts against ``x``.
        zero_point: the code of 0.0, likewise.
        bits: 2 to 8.
        narrow: see :func:`code_range`.

    Returns:
        A tensor like ``x``.

    Raises:
        ValueError: bits out of range.

    Source:
        Bengio, Léonard & Courville, *Estimating or Propagating Gradients Through Stochastic
        Neurons*, 2013 (straight through); Esser et al., *Learned Step Size Quantization*, ICLR
        2020, equations 1 to 3.

    Example:
        >>> fake_quant(np.float32([-9, -0.4, 0.3, 0.8]), 0.5, bits=2).numpy().tolist()
        [-1.0, -0.5, 0.5, 0.5]
    """
    low, high = code_range(bits, narrow=narrow)
    return fake_quant_codes(x, Grid(scale, zero_point, low, high)) * scale


def fake_quant_codes(x: Any, grid: Grid) -> Any:
    """Return ``q - zero_point`` of :func:`fake_quant` as whole float32 numbers, with its gradient.

    Products and sums of such numbers are exact in float32 up to 2**24, so that a model trained on
    them computes what integer arithmetic computes later; scores that are equal there are equal
    here, compiled or not.

    Example:
        >>> fake_quant_codes(np.float32([-9, 0.3]), Grid(0.5, 0, -2, 1)).numpy().tolist()
        [-2.0, 1.0]
    """
    from keras import ops

    zero = ops.cast(grid.zero_point, "float32")
    lowest, highest = (grid.low - zero) * grid.scale, (grid.high - zero) * grid.scale
    inside = ops.minimum(ops.maximum(x, lowest), highest)
    # As TensorFlow's kernel counts: from the lowest number on, in halves rounded up.
    steps = (inside - lowest) * (1.0 / grid.scale)
    return round_straight_through(steps) + (grid.low - zero)


def round_straight_through(x: Any) -> Any:
    """Round, halves up; the gradient is that of x.

    Example:
        >>> round_straight_through(np.float32([0.4, 0.5, -1.5])).numpy().tolist()
        [0.0, 1.0, -1.0]
    """
    from keras import ops

    def rounded(x: Any) -> Any:
        # Not x + stop_gradient(floor(x + 1/2) - x), as often written: a compiler that adds in
        # another order makes of it numbers that are not whole, and different ones of equal codes.
        def pass_on(*args: Any, upstream: Any = None) -> Any:
            return args[0] if upstream is None else upstream

        return ops.floor(x + 0.5), pass_on

    return ops.custom_gradient(rounded)(x)


def quantize_to_grid(values: ArrayLike, grid: Grid) -> NDArray[np.int32]:
    """Return the codes ``q`` of numbers in NumPy, in the same float32 arithmetic.

    Example:
        >>> quantize_to_grid([-9, 0.3], Grid(np.float32(0.5), np.int32(0), -2, 1)).tolist()
        [-2, 1]
    """
    scale, zero = np.asarray(grid.scale, np.float32), np.asarray(grid.zero_point, np.float32)
    lowest, highest = (grid.low - zero) * scale, (grid.high - zero) * scale
    inside = np.clip(np.asarray(values, np.float32), lowest, highest)
    steps = np.floor((inside - lowest) * (np.float32(1) / scale) + np.float32(0.5))
    return (steps + np.float32(grid.low)).astype(np.int32)


def symmetric_scales(
    weights: Floats, bits: int, granularity: str, search: str = "minmax"
) -> Floats:
    """Return the scale of each row or column of a matrix, for the narrow symmetric grid.

    Args:
        weights: (m, n) finite numbers.
        bits: 2 to 8.
        granularity: "row" or "column".
        search: "minmax", "percentile" or "mse", see :class:`UniformQuantization`.

    Returns:
        (m, 1) or (1, n) float32, above 0. Where all numbers are zero, the largest of the other
        scales; 1 if there is none.

    Example:
        >>> symmetric_scales(np.float32([[1, -3], [0, 0]]), 2, "row").tolist()
        [[3.0], [3.0]]
    """
    config = UniformQuantization(bits, granularity, True, search, "float32")
    scales = config.encode(weights).scale
    widest = scales.max() if scales.max() > _TINY else np.float32(1)
    return np.where(scales > _TINY, scales, widest)
