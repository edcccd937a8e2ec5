"""Keras models with schemes in the place of embedding tables.

Nothing here imports Keras until a function needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from recsys_lib.checks import check_names, check_type
from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights


def compress_embeddings(
    model: Any,
    scheme: TableScheme | Mapping[str, TableScheme],
    *,
    counts: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
) -> Any:
    """Return a new Keras model with compressed layers in the place of Embedding layers.

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
        seed: of the draw of the new parts.

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

    from recsys_lib.compression.embedding_tables.layers import CompressedEmbedding

    inner = keras_model(model)
    if not isinstance(inner, keras.Model) or not getattr(inner, "inputs", None):
        raise TypeError(f"model is a {type(inner).__name__}: expected a functional Keras 3 model")
    tables = {layer.name: layer for layer in inner.layers if type(layer) is keras.layers.Embedding}
    wide = [name for name, layer in tables.items() if layer.output_dim > 1]
    chosen = dict(scheme) if isinstance(scheme, Mapping) else dict.fromkeys(wide, scheme)
    check_names("scheme", chosen, tables)
    check_names("counts", counts or {}, tables)
    if not chosen:
        raise ValueError("model has no Embedding layer with more than one column")
    new = {}
    for number, (name, own) in enumerate(chosen.items()):
        check_type("scheme", own, (TableScheme,), " such as Hashing")
        rows, dim = tables[name].input_dim, tables[name].output_dim
        parts = own.start(rows, dim, seed=seed + number, counts=(counts or {}).get(name))
        shapes = {part: values.shape for part, values in parts.items() if values.dtype.kind == "f"}
        fixed = {part: values for part, values in parts.items() if part not in shapes}
        options = {"name": f"{name}_{own.name}"}
        new[name] = CompressedEmbedding(own, rows, dim, shapes, fixed, **options)
        new[name].set_parts(parts)
    clone = _clone(inner, new)
    for layer, old in zip(clone.layers, inner.layers, strict=True):
        if old.name not in new:
            layer.set_weights(old.get_weights())
    return clone


def store_embeddings(model: Any) -> CompressedModel:
    """Return a model with compressed tables as it is stored, and the plain one it decodes to.

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

    check_type("model", model, (keras.Model,))
    plain_layers, tensors, schemes = {}, {}, {}
    for layer in model.layers:
        if isinstance(layer, CompressedEmbedding):
            name = layer.name.removesuffix(f"_{layer.scheme.name}")
            plain_layers[layer.name] = keras.layers.Embedding(layer.num_rows, layer.dim, name=name)
            tensors[name] = layer.scheme.store(layer.get_parts(), layer.num_rows)
            schemes[name] = layer.scheme
    if not schemes:
        raise ValueError("model has no compressed tables: expected one from compress_embeddings")
    plain = _clone(model, plain_layers)
    for layer, old in zip(plain.layers, model.layers, strict=True):
        if layer.name in schemes:
            layer.set_weights([tensors[layer.name].decode()])
        else:
            layer.set_weights([DenseTensor(w, "float16").decode() for w in old.get_weights()])
    weights = named_weights(plain)
    stored: dict[str, EncodedTensor] = {
        name: tensors.get(name.removesuffix("/embeddings")) or DenseTensor(values, "float16")
        for name, values in weights.items()
    }
    report = compare_weights("embedding tables", schemes, weights, stored)
    return CompressedModel(stored, plain, report)


def _clone(model: Any, new: Mapping[str, Any]) -> Any:
    """Return a model with other layers in the place of some, by name, and none of the weights."""
    import keras

    def clone(layer: Any) -> Any:
        return new.get(layer.name) or type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
