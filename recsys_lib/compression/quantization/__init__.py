"""Quantization: fewer bits for each weight."""

from recsys_lib.compression.quantization.calibration import (
    RangeCalibration,
    activation_ranges,
    calibrate_range,
)
from recsys_lib.compression.quantization.dynamic import (
    dynamic_dense,
    quantize_dynamic,
    quantize_rows,
)
from recsys_lib.compression.quantization.models import quantize
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.quantization.uniform import (
    UniformQuantization,
    UniformTensor,
    quantize_uniform,
)

__all__ = [
    "RangeCalibration",
    "UniformQuantization",
    "UniformTensor",
    "activation_ranges",
    "calibrate_range",
    "dynamic_dense",
    "pack_bits",
    "quantize",
    "quantize_dynamic",
    "quantize_rows",
    "quantize_uniform",
    "unpack_bits",
]
