"""Compressed tables in Keras models: the layer in which all schemes train. Imports Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from recsys_lib.checks import check_choice, check_names, check_shape, check_type
from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.embedding_tables.base import Parts, TableScheme
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights


@keras.saving.register_keras_serializable(package="recsys_lib")
class CompressedEmbedding(keras.layers.Layer):
    """Looks ids (n,) up in a table that a scheme makes up from smaller parts: (n, dim) float32.

    Args:
        scheme: a TableScheme, or its ``to_dict()``.
        num_rows: ids reach from 0 to ``num_rows - 1``.
        dim: columns of the table.
        shapes: of the trained parts, by name.
        fixed: integer parts, by name; they are constants of the graph, not weights.
        **options: of a Keras layer, such as ``name``.

    Example:
        >>> from recsys_lib.compression.embedding_tables import Hashing
        >>> layer = CompressedEmbedding(Hashing(2), 5, 3, {"rows": (2, 3)}, {})
        >>> layer(np.array([0, 4])).shape
        TensorShape([2, 3])
    """

    def __init__(
        self,
        scheme: TableScheme | dict[str, Any],
        num_rows: int,
        dim: int,
        shapes: dict[str, tuple[int, ...]],
        fixed: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.scheme = TableScheme.from_dict(scheme) if isinstance(scheme, dict) else scheme
        self.num_rows, self.dim = num_rows, dim
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.fixed: Parts = {
            name: np.asarray(part, np.min_scalar_type(int(np.max(part))))
            for name, part in fixed.items()
        }
        normal = keras.initializers.RandomNormal(0.0, 0.1)
        self.trained = {
            name: self.add_weight(name=name, shape=shape, initializer=normal)
            for name, shape in self.shapes.items()
        }
        self.built = True

    def call(self, ids: Any) -> Any:
        """Look ids up."""
        parts = {name: ops.convert_to_tensor(part) for name, part in self.trained.items()}
        return self.scheme.lookup(ops, parts | self.fixed, ids)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (n, dim)."""
        return (*input_shape, self.dim)

    def set_parts(self, parts: Parts) -> None:
        """Set all trained parts; ValueError for a part of another shape."""
        for name, variable in self.trained.items():
            check_shape(name, parts[name], self.shapes[name])
            variable.assign(parts[name])

    def get_parts(self) -> Parts:
        """Return copies of all parts, trained and fixed."""
        trained = {n: np.array(ops.convert_to_numpy(part)) for n, part in self.trained.items()}
        return trained | self.fixed

    def get_config(self) -> dict[str, Any]:
        """Return all arguments, for JSON."""
        return {
            **super().get_config(),
            "scheme": self.scheme.to_dict(),
            "num_rows": self.num_rows,
            "dim": self.dim,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "fixed": {name: part.tolist() for name, part in self.fixed.items()},
        }


def compress_embeddings(
    model: Any,
    scheme: TableScheme | Mapping[str, TableScheme],
    *,
    counts: Mapping[str, ArrayLike] | None = None,
    start: str = "random",
    std: float = 0.1,
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
    check_choice("start", start, ("random", "table"))
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
        rows, dim, popularity = tables[name].input_dim, tables[name].output_dim, None
        if counts is not None:
            popularity = counts.get(name)
        if start == "table":
            parts = own.approximate(tables[name].get_weights()[0], popularity)
        else:
            parts = own.start(rows, dim, std=std, seed=seed + number, counts=popularity)
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


def store_embeddings(model: Any, dtype: str = "float16") -> CompressedModel:
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
    check_choice("dtype", dtype, ("float16", "float32"))
    check_type("model", model, (keras.Model,))
    plain_layers, tensors, schemes = {}, {}, {}
    for layer in model.layers:
        if isinstance(layer, CompressedEmbedding):
            name = layer.name.removesuffix(f"_{layer.scheme.name}")
            plain_layers[layer.name] = keras.layers.Embedding(layer.num_rows, layer.dim, name=name)
            tensors[name] = layer.scheme.store(layer.get_parts(), layer.num_rows, dtype)
            schemes[name] = layer.scheme
    if not schemes:
        raise ValueError("model has no compressed tables: expected one from compress_embeddings")
    plain = _clone(model, plain_layers)
    for layer, old in zip(plain.layers, model.layers, strict=True):
        if layer.name in schemes:
            layer.set_weights([tensors[layer.name].decode()])
        else:
            layer.set_weights([DenseTensor(w, dtype).decode() for w in old.get_weights()])
    weights = named_weights(plain)
    stored: dict[str, EncodedTensor] = {
        name: tensors.get(name.removesuffix("/embeddings")) or DenseTensor(values, dtype)
        for name, values in weights.items()
    }
    report = compare_weights("embedding tables", schemes, weights, stored)
    return CompressedModel(stored, plain, report)


def _clone(model: Any, new: Mapping[str, Any]) -> Any:
    """Return a model with other layers in the place of some, by name, and none of the weights."""
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            new.get(layer.name) or type(layer).from_config(layer.get_config())
        ),
    )
