"""Compression: the same recommender in fewer bytes and microseconds.

Nothing here imports TensorFlow until a function needs it.
"""

from recsys_lib.compression.compressed import CompressedModel, CompressionReport, store_weights
from recsys_lib.compression.files import load_compressed, save_compressed
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import named_weights, with_weights

__all__ = [
    "CompressedModel", "CompressionReport", "EncodedTensor", "load_compressed", "named_weights",
    "save_compressed", "store_weights", "with_weights",
]  # fmt: skip
