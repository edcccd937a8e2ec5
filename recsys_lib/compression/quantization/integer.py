"""A dense layer in integer arithmetic, equal to LiteRT's to the last unit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice
from recsys_lib.compression.quantization.fake_quant import Grid
from recsys_lib.compression.quantization.requantize import REQUANTIZATIONS, requantize

_EXACT_IN_FLOAT32 = 1 << 24


@dataclass(frozen=True, eq=False)
class IntegerDense:
    """A dense layer from 8-bit codes to 8-bit codes.

    With codes ``q_x`` of the inputs and ``q_w`` of the kernel::

        sums = (q_x - zero_point_x) @ q_w + bias                    32-bit integers
        q_y = clip(round(sums * scale_x * scale_w / scale_y) + zero_point_y, low, high)

    Args:
        kernel: (inputs, outputs) int8 codes, zero point 0.
        kernel_scale: (outputs,) or (1,) float32.
        bias: (outputs,) int32, in steps of input scale times kernel scale.
        input_grid: scale, zero point and range of the inputs.
        output_grid: of the outputs; None for a layer whose sums are used as they are.
        relu: whether negative outputs become 0.
        requantization: how sums are scaled: "single", "double" or "float"; see
            :func:`recsys_lib.compression.quantization.requantize.requantize`.

    Raises:
        TypeError: kernel or bias of another type.
        ValueError: shapes that do not fit, an unknown requantization.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, equations 4 to 8.

    Example:
        >>> grid = Grid(np.float32(0.5), 0, -128, 127)
        >>> kernel, bias = np.int8([[2], [-1]]), np.int32([3])
        >>> layer = IntegerDense(kernel, np.float32([0.25]), bias, grid, grid)
        >>> layer(np.int8([[10, 4], [0, 8]])).tolist()  # sums 19 and -5, times 0.25
        [[5], [-1]]
    """

    kernel: NDArray[np.int8]
    kernel_scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    input_grid: Grid
    output_grid: Grid | None = None
    relu: bool = False
    requantization: str = "single"

    def __post_init__(self) -> None:
        check_choice("requantization", self.requantization, REQUANTIZATIONS)
        if self.kernel.dtype != np.int8 or self.bias.dtype != np.int32:
            raise TypeError(
                f"kernel is {self.kernel.dtype}, bias {self.bias.dtype}: expected int8 and int32"
            )
        outputs = self.kernel.shape[-1]
        if self.kernel.ndim != 2 or self.bias.shape != (outputs,):
            raise ValueError(
                f"kernel has shape {self.kernel.shape}, bias {self.bias.shape}: expected "
                "(inputs, outputs) and (outputs,)"
            )
        if self.kernel_scale.shape not in ((outputs,), (1,)):
            raise ValueError(
                f"kernel_scale has shape {self.kernel_scale.shape}: expected ({outputs},) or (1,)"
            )

    def sums(self, codes: NDArray[Any]) -> NDArray[np.int32]:
        """Give the 32-bit sums of products, with bias and relu: (n, inputs) to (n, outputs).

        The products are made by floating-point units, which are exact for whole numbers of this
        size and several times faster in NumPy than its integer product.
        """
        shifted = codes.astype(self._factors.dtype) - self._factors.dtype.type(
            self.input_grid.zero_point
        )
        total = (shifted @ self._factors).astype(np.int32) + self.bias
        return np.maximum(total, 0) if self.relu else total

    def __call__(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """Map codes (n, inputs) to codes (n, outputs).

        Raises:
            ValueError: a layer without output grid, or codes of another shape.
        """
        if self.output_grid is None:
            raise ValueError("output_grid is None: expected a grid to round the sums to")
        if codes.ndim != 2 or codes.shape[1] != len(self.kernel):
            raise ValueError(f"codes has shape {codes.shape}: expected (n, {len(self.kernel)})")
        return to_grid(self.sums(codes), self.unit_scale, self.output_grid, self.requantization)

    @property
    def unit_scale(self) -> NDArray[Any]:
        """What a sum of 1 stands for: input scale times kernel scale, (outputs,) or (1,).

        In float32 for "float", else in float64, as LiteRT computes its multipliers.
        """
        dtype = np.float32 if self.requantization == "float" else np.float64
        return np.asarray(self.input_grid.scale, dtype) * self.kernel_scale.astype(dtype)

    @cached_property
    def _factors(self) -> NDArray[Any]:
        largest = len(self.kernel) * 255 * 127
        return self.kernel.astype(np.float32 if largest < _EXACT_IN_FLOAT32 else np.float64)


def to_grid(
    values: NDArray[Any], scale: NDArray[Any], grid: Grid, requantization: str = "single"
) -> NDArray[np.int8]:
    """Give the codes of ``values * scale`` on a grid.

    Args:
        values: integers.
        scale: positive float32 numbers that broadcast against them.
        grid: of the result; one scale and zero point.
        requantization: see :func:`recsys_lib.compression.quantization.requantize.requantize`.

    Example:
        >>> to_grid(np.array([19, -5, 9999]), np.float32(0.125), Grid(0.5, 1, -128, 127)).tolist()
        [6, 0, 127]
    """
    if requantization == "float":  # in the order in which XNNPACK multiplies
        multiplier = np.asarray(scale, np.float32) / np.float32(grid.scale)
    else:
        multiplier = np.asarray(scale, np.float64) / np.float64(grid.scale)
    codes = requantize(values, multiplier, requantization) + int(grid.zero_point)
    return np.clip(codes, grid.low, grid.high).astype(np.int8)
