"""Embedding tables in fewer bytes: schemes that train as Keras layers, and after training.

A scheme is a config of :func:`recsys_lib.compression.quantization.quantize` for trained tables;
:func:`compress_embeddings` puts it into a Keras model that is to be trained.
"""

from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.embedding_tables.models import compress_embeddings, store_embeddings
from recsys_lib.compression.embedding_tables.schemes import (
    Hashing,
    LowRank,
    MixedDimension,
    QuotientRemainder,
    RowwiseBits,
)

__all__ = [
    "Hashing", "LowRank", "MixedDimension", "QuotientRemainder", "RowwiseBits", "TableScheme",
    "compress_embeddings", "store_embeddings",
]  # fmt: skip
