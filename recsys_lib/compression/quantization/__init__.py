"""Quantization: fewer bits for each weight, rounded after training or trained to be rounded."""

from recsys_lib.compression.quantization.allocation import (
    BitAllocation,
    allocate_bits,
    uniform_bits,
)
from recsys_lib.compression.quantization.calibration import (
    RangeCalibration,
    activation_ranges,
    calibrate_range,
)
from recsys_lib.compression.quantization.codebooks import (
    CodebookQuantization,
    CodebookTensor,
    quantize_codebook,
)
from recsys_lib.compression.quantization.context_coding import ContextCodedTensor
from recsys_lib.compression.quantization.convert import convert, quantize_static
from recsys_lib.compression.quantization.dynamic import (
    dynamic_dense,
    quantize_dynamic,
    quantize_rows,
)
from recsys_lib.compression.quantization.entropy import (
    EntropyCodedTensor,
    EntropyCoding,
    entropy_bits,
)
from recsys_lib.compression.quantization.fake_quant import fake_quant
from recsys_lib.compression.quantization.grouped import (
    GroupedTensor,
    WeightGroups,
    dimension_groups,
    frequency_groups,
)
from recsys_lib.compression.quantization.integer_model import IntegerModel
from recsys_lib.compression.quantization.mixed import MixedPrecision, quantize_mixed, stored_bits
from recsys_lib.compression.quantization.models import quantize
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.quantization.product import (
    ProductQuantization,
    ProductTensor,
    quantize_product,
)
from recsys_lib.compression.quantization.qat import IntegerQuantization, quantization_aware
from recsys_lib.compression.quantization.rate_distortion import (
    RateDistortion,
    rate_distortion_tables,
)
from recsys_lib.compression.quantization.sensitivity import (
    SensitivityCurve,
    score_error,
    sensitivity,
)
from recsys_lib.compression.quantization.transform import (
    SteppedTensor,
    TransformCoding,
    transform_code,
)
from recsys_lib.compression.quantization.uniform import (
    UniformQuantization,
    UniformTensor,
    quantize_uniform,
)

__all__ = [
    "BitAllocation",
    "CodebookQuantization",
    "CodebookTensor",
    "ContextCodedTensor",
    "EntropyCodedTensor",
    "EntropyCoding",
    "GroupedTensor",
    "IntegerModel",
    "IntegerQuantization",
    "MixedPrecision",
    "ProductQuantization",
    "ProductTensor",
    "RangeCalibration",
    "RateDistortion",
    "SensitivityCurve",
    "SteppedTensor",
    "TransformCoding",
    "UniformQuantization",
    "UniformTensor",
    "WeightGroups",
    "activation_ranges",
    "allocate_bits",
    "calibrate_range",
    "convert",
    "dimension_groups",
    "dynamic_dense",
    "entropy_bits",
    "fake_quant",
    "frequency_groups",
    "pack_bits",
    "quantization_aware",
    "quantize",
    "quantize_codebook",
    "quantize_dynamic",
    "quantize_mixed",
    "quantize_product",
    "quantize_rows",
    "quantize_static",
    "quantize_uniform",
    "rate_distortion_tables",
    "score_error",
    "sensitivity",
    "stored_bits",
    "transform_code",
    "uniform_bits",
    "unpack_bits",
]
