"""Embedding tables in fewer bytes: schemes that train as Keras layers, and after training.

Nothing here imports Keras until a function needs it.
"""

from recsys_lib.compression.embedding_tables.base import TableScheme, TableTensor
from recsys_lib.compression.embedding_tables.coded import ProductCodes, RowwiseBits
from recsys_lib.compression.embedding_tables.models import compress_embeddings, store_embeddings
from recsys_lib.compression.embedding_tables.popularity import MixedDimension
from recsys_lib.compression.embedding_tables.schemes import Hashing, LowRank, QuotientRemainder

__all__ = [
    "Hashing",
    "LowRank",
    "MixedDimension",
    "ProductCodes",
    "QuotientRemainder",
    "RowwiseBits",
    "TableScheme",
    "TableTensor",
    "compress_embeddings",
    "store_embeddings",
]
