"""A dense layer in integer arithmetic, equal to LiteRT's to the last unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_shape
from recsys_lib.compression.quantization.fake_quant import Grid
from recsys_lib.files import FilePath

Ints = NDArray[np.int64]
REQUANTIZATIONS = ("single", "double", "float")
_NO_ACTIVATION, _RELU = 0, 1  # ActivationFunctionType in LiteRT's schema
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
            :func:`requantize`.

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

    def sums(self, codes: NDArray[Any]) -> NDArray[np.int32]:
        """Return the 32-bit sums of products, with bias and relu: (n, inputs) to (n, outputs).

        The products are made by floating-point units, which are exact for whole numbers of this
        size and several times faster in NumPy than its integer product.
        """
        kind = self._factors.dtype
        shifted = codes.astype(kind) - kind.type(self.input_grid.zero_point)
        total = (shifted @ self._factors).astype(np.int32) + self.bias
        return np.maximum(total, 0) if self.relu else total

    def __call__(self, codes: NDArray[np.int8]) -> NDArray[np.int8]:
        """Map codes (n, inputs) to codes (n, outputs).

        Raises:
            ValueError: a layer without output grid, or codes of another shape.
        """
        if self.output_grid is None:
            raise ValueError("output_grid is None: expected a grid to round the sums to")
        check_shape("codes", codes, (len(codes), len(self.kernel)))
        return to_grid(self.sums(codes), self.unit_scale, self.output_grid, self.requantization)

    @property
    def unit_scale(self) -> NDArray[Any]:
        """Return the value of a sum of 1: input scale times kernel scale, (outputs,) or (1,).

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
    """Return the codes of ``values * scale`` on a grid.

    Args:
        values: integers.
        scale: positive float32 numbers that broadcast against them.
        grid: of the result; one scale and zero point.
        requantization: see :func:`requantize`.

    Example:
        >>> to_grid(np.array([19, -5, 9999]), np.float32(0.125), Grid(0.5, 1, -128, 127)).tolist()
        [6, 0, 127]
    """
    dtype: Any = np.float32 if requantization == "float" else np.float64  # the first as XNNPACK
    multiplier = np.asarray(scale, dtype) / dtype(grid.scale)
    codes = requantize(values, multiplier, requantization) + int(grid.zero_point)
    return np.clip(codes, grid.low, grid.high).astype(np.int8)


def requantize(accumulator: ArrayLike, multiplier: ArrayLike, method: str = "single") -> Ints:
    """Return ``round(accumulator * multiplier)``, in integer arithmetic or in float32.

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

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, equations 5 and 6.

    Example:
        >>> requantize([5, -5, 7], 0.5).tolist()
        [3, -2, 4]
        >>> [requantize(2 * [2**29 - 1], 2.0**-30, method)[0] for method in REQUANTIZATIONS]
        [np.int64(0), np.int64(1), np.int64(0)]
    """
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
    """Return ``(mantissa, shift)`` with ``multiplier = mantissa * 2**(shift - 31)``.

    Args:
        multiplier: positive numbers below 2**30.

    Returns:
        mantissa: int64 from 2**30 to 2**31 - 1, or 0 for a multiplier below 2**-31.
        shift: int64.

    Example:
        >>> [int(x) for x in fixed_point(0.75)]
        [1610612736, 0]
    """
    real = np.asarray(multiplier, np.float64)
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


def read_litert_dense(
    source: FilePath | bytes, requantization: str = "single"
) -> dict[str, IntegerDense]:
    """Read codes, scales and zero points of all 8-bit dense layers out of a LiteRT file.

    The layers compute what LiteRT computes, bit for bit: its reference kernels with
    ``requantization="single"``, its built-in kernels without delegate (ruy) with "double", and its
    default, the XNNPACK delegate on x86, with "float".

    Args:
        source: path or content of a ``.tflite`` file with int8 arithmetic.
        requantization: "single", "double" or "float".

    Returns:
        Layers by the name of their output tensor, in the order of the file.

    Raises:
        ValueError: a file without dense layers in int8, or one with another activation than relu.

    Example:
        ``read_litert_dense("ranker.tflite", "float")`` gives layers to be called on int8 codes.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    check_choice("requantization", requantization, REQUANTIZATIONS)
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    plain = {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF}
    interpreter = Interpreter(model_content=content, **plain)
    interpreter.allocate_tensors()
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    layers = {}
    for (inputs, kernel, *rest), output, activation in _dense_operations(content):
        if tensors[inputs]["dtype"] != np.int8 or tensors[kernel]["dtype"] != np.int8:
            continue
        name = str(tensors[output]["name"])
        if activation not in (_NO_ACTIVATION, _RELU):
            raise ValueError(f"layer {name!r} has activation {activation}: expected relu or none")
        codes = interpreter.get_tensor(kernel).T
        has_bias = bool(rest) and rest[0] >= 0
        layers[name] = IntegerDense(
            np.ascontiguousarray(codes),
            tensors[kernel]["quantization_parameters"]["scales"],
            interpreter.get_tensor(rest[0]) if has_bias else np.zeros(codes.shape[1], np.int32),
            _grid(tensors[inputs]),
            _grid(tensors[output]),
            relu=activation == _RELU,
            requantization=requantization,
        )
    if not layers:
        raise ValueError("source has no dense layer in int8: expected a file quantized to int8")
    return layers


def _dense_operations(content: bytes) -> Iterator[tuple[list[int], int, int]]:
    """Return the input tensors, the output tensor and the fused activation of each dense layer."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graph = model.Subgraphs(0)
    for number in range(graph.OperatorsLength()):
        operation = graph.Operators(number)
        code = model.OperatorCodes(operation.OpcodeIndex())
        if code.BuiltinCode() == schema.BuiltinOperator.FULLY_CONNECTED:
            table, options = operation.BuiltinOptions(), schema.FullyConnectedOptions()
            options.Init(table.Bytes, table.Pos)
            inputs = [int(index) for index in operation.InputsAsNumpy()]
            yield inputs, int(operation.Outputs(0)), int(options.FusedActivationFunction())


def _grid(tensor: dict[str, Any]) -> Grid:
    scale, zero_point = tensor["quantization"]
    return Grid(np.float32(scale), int(zero_point), -128, 127)
