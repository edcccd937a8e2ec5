"""A rating model read back into its configuration, and built again with other widths."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.compressed import CompressedModel, compare_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights
from recsys_lib.models import RatingModelConfig, Recommender, build_rating_model

Weights = dict[str, NDArray[np.float32]]
_KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")


@dataclass(frozen=True)
class HiddenLayer:
    """A dense layer of a rating model and who reads its outputs.

    Args:
        name: of the layer.
        position: 0 for the first one after the embeddings.
        reader: layer that multiplies its outputs; None for the end of a tower, which is multiplied
            with the other tower.
        offset: row of the reader's kernel at which its outputs begin.
    """

    name: str
    position: int
    reader: str | None
    offset: int = 0


def hidden_layers(config: RatingModelConfig) -> list[HiddenLayer]:
    """List the dense layers of a rating model, but for its last number.

    Example:
        >>> [layer.name for layer in hidden_layers(RatingModelConfig("two_tower", 2, 3))]
        ['user_dense_0', 'user_dense_1', 'item_dense_0', 'item_dense_1']
        >>> hidden_layers(RatingModelConfig("neumf", 2, 3, 8, hidden_units=(4,)))
        [HiddenLayer(name='dense_0', position=0, reader='score', offset=8)]
    """
    last = len(config.hidden_units or ()) - 1
    towers = ("user_dense", "item_dense") if config.kind == "two_tower" else ("dense",)
    end = None if config.kind == "two_tower" else "score"
    offset = config.embedding_dim if config.kind == "neumf" else 0
    return [
        HiddenLayer(f"{tower}_{n}", n, f"{tower}_{n + 1}")
        if n < last
        else HiddenLayer(f"{tower}_{n}", n, end, offset)
        for tower in towers
        for n in range(last + 1)
    ]


def read_config(model: Any) -> RatingModelConfig:
    """Give the configuration that builds a model of this shape.

    Args:
        model: from ``build_rating_model`` (Keras 3 or tf_keras), or a fitted KerasRecommender.
            ``init_std`` and ``seed`` of a plain Keras model are not known and stay defaults.

    Raises:
        TypeError: not a Keras model.
        RuntimeError: a recommender that is not fitted.
        ValueError: not built, or its weights are not those that ``build_rating_model`` makes.

    Example:
        >>> config = RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3, 2))
        >>> read_config(build_rating_model(config)) == config
        True
    """
    inner = keras_model(model)
    if isinstance(model, Recommender):
        config: RatingModelConfig = model._fitted_config  # type: ignore[attr-defined]
    else:
        config = _config_of_layers(inner)
    found = {name: values.shape for name, values in named_weights(inner).items()}
    if found != _expected_shapes(config):
        raise ValueError(
            f"model has the weights {found}: expected those of a {config.kind} that "
            "build_rating_model makes, without changes"
        )
    return config


def rebuild(model: Any, config: RatingModelConfig, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Build a model of another size with these weights, in the kind of Keras of ``model``.

    Args:
        model: as for :func:`read_config`; it stays as it is.
        config: of the new model.
        weights: all weights of the new model by name.

    Returns:
        A Keras model, or a KerasRecommender around one where ``model`` is one.
    """
    inner = keras_model(model)
    keras = importlib.import_module("keras")
    twin = keras if isinstance(inner, keras.Model) else importlib.import_module("tf_keras")
    new = build_rating_model(config, keras=twin)
    new.set_weights([weights[name] for name in named_weights(new)])
    if not isinstance(model, Recommender):
        return new
    result: Any = copy.copy(model)
    result.config = replace(config, global_bias=result.config.global_bias)
    result.num_users, result.num_items = config.num_users, config.num_items
    result._use(config, new)
    return result


def as_compressed(
    method: str, config: Any, before: Any, after: Any, more: Mapping[str, EncodedTensor] = {}
) -> CompressedModel:
    """Put a smaller model and the report of what became smaller together.

    Args:
        method: name of the step.
        config: its choices.
        before: the model before.
        after: the model after; all its weights are stored in float32.
        more: what has to be stored beside the weights.
    """
    tensors = {name: DenseTensor(values) for name, values in named_weights(after).items()}
    report = compare_weights(method, config, named_weights(before), tensors | dict(more))
    return CompressedModel(tensors | dict(more), after, report)


def _config_of_layers(model: Any) -> RatingModelConfig:
    layers = {layer.name: layer for layer in model.layers}
    tables = {name: layer.get_weights() for name, layer in layers.items() if "embedding" in name}
    if model.name not in _KINDS or not {"user_embedding", "item_embedding"} <= tables.keys():
        raise ValueError(
            f"model is named {model.name!r} and has the layers {sorted(layers)}: expected one of "
            f"the kinds {', '.join(_KINDS)} that build_rating_model makes"
        )
    users, items = (tables[name][0] for name in ("user_embedding", "item_embedding"))
    tower = "user_dense" if model.name == "two_tower" else "dense"
    dense = [layers[name] for n in range(len(layers)) if (name := f"{tower}_{n}") in layers]
    return RatingModelConfig(
        model.name,
        len(users),
        len(items),
        users.shape[1],
        hidden_units=tuple(layer.units for layer in dense),
        activation=dense[0].activation.__name__ if dense else "relu",
        global_bias=float(layers["global_bias"].offset) if "global_bias" in layers else 0.0,
    )


@lru_cache(maxsize=64)
def _expected_shapes(config: RatingModelConfig) -> Mapping[str, tuple[int, ...]]:
    """Give the shape of each weight, from a model of one user and one item."""
    small = build_rating_model(replace(config, num_users=1, num_items=1))
    rows = {"user": config.num_users, "item": config.num_items}
    return {
        name: (rows[name[:4]], *values.shape[1:]) if name.endswith("/embeddings") else values.shape
        for name, values in named_weights(small).items()
    }
