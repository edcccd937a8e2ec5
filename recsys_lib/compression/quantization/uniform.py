"""Uniform quantization: a weight is a whole number of equal steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits, check_choice, check_number, check_weights
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.quantization.scales import (
    GRANULARITIES,
    SEARCHES,
    find_range,
    group_shape,
    to_groups,
)
from recsys_lib.compression.tensors import EncodedTensor

_DTYPES = ("float16", "float32")


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
        scale_search: "minmax" (the whole range), "percentile" or "mse" (clip it where the squared
            error is smallest), see :func:`recsys_lib.compression.quantization.scales.find_range`.
        scale_dtype: "float16" or "float32", in which scales and offsets are stored.
        exact_zero: see above; where padding or masks must stay zero, or integer arithmetic follows.
        percentile: for that search, above 50 and up to 100.

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
    percentile: float = 99.9

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_choice("granularity", self.granularity, GRANULARITIES)
        for name in ("symmetric", "exact_zero"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}: expected True or False")
        check_choice("scale_search", self.scale_search, SEARCHES)
        check_choice("scale_dtype", self.scale_dtype, _DTYPES)
        check_number("percentile", self.percentile, 50, include_low=False)
        if self.percentile > 100:
            raise ValueError(f"percentile is {self.percentile}: expected a number in (50, 100]")


class UniformTensor(EncodedTensor):
    """Whole numbers of a few bits, packed, with a scale (and an offset) for each group.

    Args:
        codes: integers in [0, 2**bits), in the shape of the array.
        scale: steps, positive or 0, of a shape that broadcasts to that of the codes.
        offset: in the shape of ``scale``; floating-point numbers are the value of code 0, uint8
            are zero points; None for symmetric quantization, with the zero point
            ``2**(bits - 1) - 1``.
        config: how they were made.

    Attributes:
        scale, offset, config: as given.

    Raises:
        ValueError: codes out of range, or shapes that do not fit.

    Example:
        >>> config = UniformQuantization(bits=2, granularity="row")
        >>> scale, low = np.float16([[0.5], [0]]), np.float16([[-1], [7]])
        >>> UniformTensor(np.array([[0, 3], [0, 0]]), scale, low, config).decode().tolist()
        [[-1.0, 0.5], [7.0, 7.0]]
    """

    kind = "uniform"

    def __init__(
        self,
        codes: NDArray[Any],
        scale: NDArray[Any],
        offset: NDArray[Any] | None,
        config: UniformQuantization,
    ) -> None:
        self._packed = pack_bits(codes, config.bits)
        self.shape, self.config = codes.shape, config
        self.scale, self.offset = np.asarray(scale), None if offset is None else np.asarray(offset)
        shapes = {self.scale.shape if self.offset is None else self.offset.shape, self.scale.shape}
        if len(shapes) > 1 or np.broadcast_shapes(self.scale.shape, self.shape) != self.shape:
            raise ValueError(
                f"scale and offset have the shapes {sorted(shapes)}: expected the same, one that "
                f"broadcasts to {self.shape}"
            )

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The codes, unpacked, in the shape of the array."""
        count = int(np.prod(self.shape))
        return unpack_bits(self._packed, self.config.bits, count).reshape(self.shape)

    @property
    def zero_point(self) -> NDArray[np.float32]:
        """The code that stands for 0.0, in the shape of ``scale``; not whole for an offset.

        A group whose scale is 0 has the zero point 0, and decodes to its offset.
        """
        scale = self.scale.astype(np.float32)
        if self.offset is None:
            return np.full(scale.shape, 2 ** (self.config.bits - 1) - 1, np.float32)
        if self.offset.dtype == np.uint8:
            return self.offset.astype(np.float32)
        safe = np.where(scale > 0, scale, np.float32(1))
        return np.where(scale > 0, -self.offset.astype(np.float32) / safe, np.float32(0))

    def header(self) -> dict[str, Any]:
        """Give shape and settings."""
        return {"shape": list(self.shape), **vars(self.config)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give packed codes, scales and, unless symmetric, offsets."""
        stored = {"codes": self._packed, "scale": self.scale}
        return stored if self.offset is None else stored | {"offset": self.offset}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        settings = {name: value for name, value in header.items() if name != "shape"}
        config, shape = UniformQuantization(**settings), tuple(header["shape"])
        codes = unpack_bits(arrays["codes"], config.bits, int(np.prod(shape))).reshape(shape)
        return cls(codes, arrays["scale"], arrays.get("offset"), config)

    def decode(self) -> NDArray[np.float32]:
        """Give the rounded values."""
        values, scale = self.codes.astype(np.float32), self.scale.astype(np.float32)
        if self.offset is None or self.offset.dtype == np.uint8:
            values -= self.zero_point
            values *= scale
        else:
            values *= scale
            values += self.offset.astype(np.float32)
        return values


def quantize_uniform(values: ArrayLike, config: UniformQuantization) -> UniformTensor:
    """Round a tensor to the nearest whole steps.

    With the "minmax" range every value is at most half a step away from what it decodes to: where
    scale and offset are rounded to be stored, it is outwards, so that both ends stay covered.
    Zeros alone decode to zeros. A constant group decodes to itself where its value is a number of
    the type ``scale_dtype``, and otherwise to within a step of the rounding of that type divided
    by the number of levels. Nothing is ever divided by a scale of 0.

    Args:
        values: finite numbers of one or more dimensions; a vector is one group.
        config: how.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: nothing in it, NaN or infinity, or values out of the range of ``scale_dtype``.

    Source:
        Jacob et al., CVPR 2018, section 2.1, equation 1.

    Example:
        >>> table = np.float32([[0.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
        >>> stored = quantize_uniform(table, UniformQuantization(bits=2))
        >>> stored.codes.tolist()
        [[0, 1, 2, 3], [0, 0, 0, 0]]
        >>> bool((stored.decode() == table).all())
        True
    """
    array = check_weights("values", values)
    if not array.ndim:
        raise ValueError("values has shape (): expected one or more dimensions")
    ends = find_range(
        to_groups(array, config.granularity),
        config.bits,
        symmetric=config.symmetric,
        search=config.scale_search,
        percentile=config.percentile,
    )
    shape = group_shape(array.shape, config.granularity)
    low, high = (end.astype(np.float64).reshape(shape) for end in ends)
    offset: NDArray[Any] | None
    if config.symmetric:
        zero_point = 2 ** (config.bits - 1) - 1
        scale, offset, top = _stored(high / zero_point, config), None, 2 * zero_point
        codes = _divide(array, scale)
        codes += zero_point
    else:
        top = 2**config.bits - 1
        if config.exact_zero:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = _stored((high - low) / top, config)
            offset = np.clip(np.rint(_divide(-low.astype(np.float32), scale)), 0, top)
            offset = offset.astype(np.uint8)
            codes = _divide(array, scale)
            codes += offset
        else:
            offset = -_stored(-low, config)
            scale = _stored((high - offset.astype(np.float64)) / top, config)
            codes = _divide(array - offset.astype(np.float32), scale)
    np.clip(np.rint(codes, out=codes), 0, top, out=codes)
    return UniformTensor(codes.astype(np.uint8), scale, offset, config)


def _divide(values: NDArray[np.float32], scale: NDArray[Any]) -> NDArray[np.float32]:
    """Divide where the scale is not zero: all values of a group of scale 0 are equal, code 0."""
    wide = scale.astype(np.float32)
    return np.where(wide > 0, values / np.where(wide > 0, wide, np.float32(1)), np.float32(0))


def _stored(needed: NDArray[np.float64], config: UniformQuantization) -> NDArray[Any]:
    """Round up to the type in which it is stored."""
    with np.errstate(over="ignore"):
        stored = needed.astype(config.scale_dtype)
        stored = np.where(stored < needed, np.nextafter(stored, np.inf, dtype=stored.dtype), stored)
    if not np.isfinite(stored).all():
        raise ValueError(
            f"values need a scale or an offset of {np.abs(needed).max():.3g}: expected at most "
            f"{np.finfo(stored.dtype).max:.5g} for scale_dtype {config.scale_dtype!r}"
        )
    return stored
