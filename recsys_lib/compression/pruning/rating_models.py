"""A rating model read back into its configuration: its layers, their outputs, and new widths."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_counts, check_number
from recsys_lib.compression import CompressedModel, EncodedTensor, named_weights
from recsys_lib.compression.compressed import compare_weights
from recsys_lib.compression.tensors import DenseTensor
from recsys_lib.compression.weights import keras_model, keras_of
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, Recommender, build_rating_model
from recsys_lib.models.base import check_interactions

Weights = dict[str, NDArray[np.float32]]
_KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
RIDGE = 1e-3


class HiddenLayer(NamedTuple):
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
    layers = []
    for tower in towers:
        readers = [(f"{tower}_{n + 1}", 0) for n in range(last)] + [(end, offset)] * (last >= 0)
        layers += [HiddenLayer(f"{tower}_{n}", n, *reader) for n, reader in enumerate(readers)]
    return layers


def read_config(model: Any) -> RatingModelConfig:
    """Return the configuration that builds a model of this shape.

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
        raise ValueError(f"model has the weights {found}: expected what build_rating_model makes")
    return config


def rebuild(model: Any, config: RatingModelConfig, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Return a model of another size with these weights, in the kind of Keras of ``model``.

    Args:
        model: as for :func:`read_config`; it stays as it is.
        config: of the new model.
        weights: all weights of the new model by name.

    Returns:
        A Keras model, or a KerasRecommender around one where ``model`` is one.
    """
    new = build_rating_model(config, keras=keras_of(keras_model(model)))
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
    """Put a smaller model in float32 and the report of what became smaller together.

    ``more`` is what has to be stored beside the weights.
    """
    tensors = {name: DenseTensor(values) for name, values in named_weights(after).items()}
    report = compare_weights(method, config, named_weights(before), tensors | dict(more))
    return CompressedModel(tensors | dict(more), after, report)


def check_data(interactions: Any, num_users: int, num_items: int) -> Interactions:
    """Return the interactions, if they are some and count what the model counts."""
    check_interactions(interactions)
    check_counts("interactions", interactions, (num_users, num_items))
    return interactions


def sample_pairs(
    model: Any,
    interactions: Interactions | None,
    *,
    num_samples: int = 4096,
    negatives_per_positive: int = 4,
    seed: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return interactions and drawn items that stand for all others, as training sees them.

    Args:
        model: a rating model of ``build_rating_model``, or a fitted KerasRecommender around one.
        interactions: what to sample from.
        num_samples: interactions, n; all where there are fewer.
        negatives_per_positive: m items drawn for each, uniformly.
        seed: of the draw.

    Returns:
        Users, items and labels of 1 and 0, each (n (1 + m),).

    Raises:
        TypeError: not Interactions, or not such a model.
        ValueError: other counts of users and items than the model's.

    Example:
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3))
        >>> users, items, labels = sample_pairs(model, Interactions([0, 1], [0, 2]))
        >>> users.tolist(), labels[:3].tolist()
        ([0, 1, 0, 0, 0, 0, 1, 1, 1, 1], [1.0, 1.0, 0.0])
    """
    count = check_number("num_samples", num_samples, 1, integer=True)
    drawn = check_number("negatives_per_positive", negatives_per_positive, 1, integer=True)
    random = np.random.default_rng(check_number("seed", seed, 0, integer=True))
    config = read_config(model)
    data = check_data(interactions, config.num_users, config.num_items)
    rows = np.sort(random.permutation(len(data))[:count])
    users = data.user_ids[rows]
    negatives = random.integers(0, data.num_items, len(rows) * drawn)
    return (
        np.concatenate([users, np.repeat(users, drawn)]).astype(np.int32),
        np.concatenate([data.item_ids[rows], negatives]).astype(np.int32),
        np.repeat(np.array([1, 0], np.float32), [len(rows), len(negatives)]),
    )


def layer_outputs(model: Any, layer: str, users: Any, items: Any) -> NDArray[np.float64]:
    """Return what comes out of a layer for some pairs, (n, width)."""
    inner = keras_model(model)
    probe = type(inner)(inner.inputs, inner.get_layer(layer).output)
    return np.asarray(probe([users, items], training=False), np.float64)


def ridge_regression(
    inputs: NDArray[np.float64], targets: NDArray[np.float64], ridge: float = RIDGE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Solve ``inputs @ kernel + bias = targets`` in the sense of least squares.

    Args:
        inputs: (n, a).
        targets: (n, b).
        ridge: penalty on the kernel, as a share of the mean variance of an input; the bias has
            none.

    Returns:
        kernel (a, b) and bias (b,); also where inputs are constant or more than pairs.

    Example:
        >>> kernel, bias = ridge_regression(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]]))
        >>> kernel.round(1).tolist(), bias.round(1).tolist()
        ([[2.0]], [1.0])
    """
    mean, target_mean = inputs.mean(axis=0), targets.mean(axis=0)
    centred = inputs - mean
    gram = centred.T @ centred / len(inputs)
    penalty = max(ridge * float(np.trace(gram)) / len(gram), 1e-12)  # not singular if all are equal
    gram += penalty * np.eye(len(gram))
    kernel = np.linalg.solve(gram, centred.T @ (targets - target_mean) / len(inputs))
    return kernel, target_mean - mean @ kernel


def _config_of_layers(model: Any) -> RatingModelConfig:
    layers = {layer.name: layer for layer in model.layers}
    tables = {name: layer.get_weights() for name, layer in layers.items() if "embedding" in name}
    if model.name not in _KINDS or not {"user_embedding", "item_embedding"} <= tables.keys():
        raise ValueError(f"model is named {model.name!r}: expected what build_rating_model makes")
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
    """Return the shape of each weight, from a model of one user and one item."""
    small = build_rating_model(replace(config, num_users=1, num_items=1))
    rows = {"user": config.num_users, "item": config.num_items}
    return {
        name: (rows[name[:4]], *values.shape[1:]) if name.endswith("/embeddings") else values.shape
        for name, values in named_weights(small).items()
    }
