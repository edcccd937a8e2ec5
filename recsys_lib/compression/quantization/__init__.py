"""Quantization: fewer bits for each weight, rounded after training or trained to be rounded."""

from recsys_lib.compression.quantization.codebooks import CodebookQuantization
from recsys_lib.compression.quantization.convert import convert, quantize_dynamic, quantize_static
from recsys_lib.compression.quantization.entropy import EntropyCoding, entropy_bits
from recsys_lib.compression.quantization.fake_quant import fake_quant, nudged_grid
from recsys_lib.compression.quantization.integer import read_litert_dense
from recsys_lib.compression.quantization.integer_model import IntegerModel
from recsys_lib.compression.quantization.kmeans import kmeans
from recsys_lib.compression.quantization.mixed import (
    MixedPrecision,
    WeightGroups,
    frequency_groups,
    stored_bits,
)
from recsys_lib.compression.quantization.product import ProductQuantization
from recsys_lib.compression.quantization.qat import IntegerQuantization, quantization_aware
from recsys_lib.compression.quantization.quantize import quantize
from recsys_lib.compression.quantization.rate_distortion import RateDistortion
from recsys_lib.compression.quantization.residual import ResidualQuantization
from recsys_lib.compression.quantization.sensitivity import (
    BitAllocation,
    SensitivityCurve,
    allocate_bits,
    score_error,
    sensitivity,
    uniform_bits,
)
from recsys_lib.compression.quantization.signs import SignQuantization
from recsys_lib.compression.quantization.transform import TransformCoding
from recsys_lib.compression.quantization.uniform import UniformQuantization, pack_bits

__all__ = [
    "BitAllocation", "CodebookQuantization", "EntropyCoding", "IntegerModel",
    "IntegerQuantization", "MixedPrecision", "ProductQuantization", "RateDistortion",
    "ResidualQuantization", "SensitivityCurve", "SignQuantization", "TransformCoding",
    "UniformQuantization", "WeightGroups", "allocate_bits", "convert", "entropy_bits",
    "fake_quant", "frequency_groups", "kmeans", "nudged_grid", "pack_bits",
    "quantization_aware", "quantize", "quantize_dynamic", "quantize_static",
    "read_litert_dense", "score_error", "sensitivity", "stored_bits", "uniform_bits",
]  # fmt: skip
