"""Embedding tables in fewer bytes: schemes that train as Keras layers, and after training.

A scheme is a config of :func:`recsys_lib.compression.quantization.quantize` for trained tables;
:func:`compress_embeddings` puts it into a Keras model that is to be trained.
"""

from typing import TYPE_CHECKING, Any

from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.embedding_tables.schemes import (
    Hashing,
    LowRank,
    MixedDimension,
    QuotientRemainder,
    RowwiseBits,
)

if TYPE_CHECKING:
    from recsys_lib.compression.embedding_tables.layers import compress_embeddings, store_embeddings

__all__ = [
    "Hashing",
    "LowRank",
    "MixedDimension",
    "QuotientRemainder",
    "RowwiseBits",
    "TableScheme",
    "compress_embeddings",
    "store_embeddings",
]


def __getattr__(name: str) -> Any:
    """Import Keras only when the functions for Keras models are asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recsys_lib.compression.embedding_tables import layers

    return getattr(layers, name)
