"""Put compressed tables into a Keras model, and take a model's tables out as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import check_choice, check_names
from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights
from recsys_lib.models import Recommender


def compress_embeddings(
    model: Any,
    scheme: TableScheme | Mapping[str, TableScheme],
    *,
    counts: Mapping[str, ArrayLike] | None = None,
    start: str = "random",
    std: float = 0.1,
    seed: int = 0,
) -> Any:
    """Give a new Keras model with compressed layers in the place of Embedding layers.

    The new layers are called ``<old name>_<scheme>``, such as ``item_embedding_hashing``. They
    train with :func:`recsys_lib.training.fit` like any other; ``l2`` of fit shrinks rows of plain
    Embedding layers only. All other layers keep their weights.

    Args:
        model: a built functional Keras 3 model such as
            :func:`recsys_lib.models.build_rating_model` gives, or a KerasRecommender around one
            (its Keras model is used). It stays as it is.
        scheme: for all Embedding layers with more than one column, or by name of layer.
        counts: by name of layer, (rows,) how often each id occurs; a scheme that goes by
            popularity needs them.
        start: "random" draws the parts anew; "table" takes those nearest to the layer's table.
        std: of the numbers that are drawn.
        seed: of the draw.

    Returns:
        A Keras model with the same inputs and output.

    Raises:
        TypeError: no functional Keras 3 model, or no scheme.
        ValueError: no such Embedding layer, or a scheme that does not fit its table.

    Example:
        >>> from recsys_lib.compression.embedding_tables import Hashing
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 100, 50, 8))
        >>> small = compress_embeddings(model, {"user_embedding": Hashing(20)})
        >>> model.count_params(), small.count_params()
        (1200, 560)
    """
    import keras

    check_choice("start", start, ("random", "table"))
    inner = keras_model(model)
    if not isinstance(inner, keras.Model) or not getattr(inner, "inputs", None):
        raise TypeError(
            f"model is of type {type(inner).__name__}: expected a functional Keras 3 one"
        )
    tables = {layer.name: layer for layer in inner.layers if type(layer) is keras.layers.Embedding}
    if isinstance(scheme, Mapping):
        chosen = dict(scheme)
    else:
        chosen = {name: scheme for name, layer in tables.items() if layer.output_dim > 1}
    check_names("scheme", chosen, tables)
    if not chosen:
        raise ValueError("model has no Embedding layer with more than one column")
    check_names("counts", counts or {}, tables)
    new = {
        name: _layer(
            tables[name],
            own,
            None if counts is None or name not in counts else np.asarray(counts[name]),
            start=start,
            std=std,
            seed=seed + number,
        )
        for number, (name, own) in enumerate(chosen.items())
    }
    clone = keras.models.clone_model(
        inner,
        clone_function=lambda layer: (
            new.get(layer.name) or type(layer).from_config(layer.get_config())
        ),
    )
    for layer, old in zip(clone.layers, inner.layers, strict=True):
        if old.name not in new:
            layer.set_weights(old.get_weights())
    return clone


def _layer(
    table: Any, scheme: TableScheme, counts: Any, *, start: str, std: float, seed: int
) -> Any:
    from recsys_lib.compression.embedding_tables.layers import CompressedEmbedding

    if not isinstance(scheme, TableScheme):
        raise TypeError(f"scheme is of type {type(scheme).__name__}: expected one such as Hashing")
    rows, dim = table.input_dim, table.output_dim
    if start == "table":
        trained, fixed = scheme.approximate(table.get_weights()[0], counts)
    else:
        trained, fixed = scheme.start(rows, dim, std=std, seed=seed, counts=counts)
    shapes = {name: part.shape for name, part in trained.items()}
    layer = CompressedEmbedding(
        scheme, rows, dim, shapes, fixed, name=f"{table.name}_{scheme.name}"
    )
    layer.set_parts(trained)
    return layer


def store_embeddings(model: Any, dtype: str = "float16") -> CompressedModel:
    """Store a model with compressed tables, and give the plain model that it decodes to.

    Args:
        model: from :func:`compress_embeddings`, trained or not.
        dtype: "float16" or "float32", for the parts of tables and for all other weights.

    Returns:
        Stored tables under the names that they have in the plain model
        (``item_embedding/embeddings``), a plain Keras model with Embedding layers and the decoded
        tables, and a report that compares with plain float32 tables.

    Raises:
        TypeError: not a Keras model.
        ValueError: a model without compressed tables.

    Example:
        >>> from recsys_lib.compression.embedding_tables import LowRank
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 100, 50, 8))
        >>> stored = store_embeddings(compress_embeddings(model, LowRank(1)))
        >>> [t.shape_after for t in stored.report.tensors], stored.report.bytes_before
        ([(100, 8), (50, 8)], 4800)
    """
    import keras

    from recsys_lib.compression.embedding_tables.layers import CompressedEmbedding

    check_choice("dtype", dtype, ("float16", "float32"))
    inner = keras_model(model)
    small = {x.name: x for x in inner.layers if isinstance(x, CompressedEmbedding)}
    if not small:
        raise ValueError("model has no compressed tables: expected one from compress_embeddings")
    tensors: dict[str, EncodedTensor] = {}
    plain_names = {name: name.removesuffix(f"_{x.scheme.name}") for name, x in small.items()}

    def to_plain(layer: Any) -> Any:
        if layer.name not in small:
            return type(layer).from_config(layer.get_config())
        return keras.layers.Embedding(layer.num_rows, layer.dim, name=plain_names[layer.name])

    plain = keras.models.clone_model(inner, clone_function=to_plain)
    for layer, old in zip(plain.layers, inner.layers, strict=True):
        if old.name in small:
            tensor = old.scheme.store(old.get_parts(), old.num_rows, dtype)
            tensors[f"{layer.name}/embeddings"] = tensor
            layer.set_weights([tensor.decode()])
        else:
            layer.set_weights([DenseTensor(w, dtype).decode() for w in old.get_weights()])
    weights = named_weights(plain)
    stored = {name: tensors.get(name) or DenseTensor(w, dtype) for name, w in weights.items()}
    schemes = {plain_names[name]: layer.scheme for name, layer in small.items()}
    if isinstance(model, Recommender):
        raise TypeError("model is a KerasRecommender: expected the Keras model itself")
    return CompressedModel(
        stored, plain, compare_weights("embedding tables", schemes, weights, stored)
    )
