"""The weights of a model by name, and a new model with other weights."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_names, check_shape, check_weights
from recsys_lib.models import Recommender
from recsys_lib.models.factors import Factors

TABLES = ("user_vectors", "item_vectors", "user_biases", "item_biases")


def named_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    """Return a model's weights by name, as copies.

    Args:
        model: a fitted factor model (IALS, ALS), whose weights are ``user_vectors`` and
            ``item_vectors``; or a built Keras model, of Keras 3 or tf_keras, or a fitted
            ``KerasRecommender`` around one, whose weights are named ``layer/variable``, such as
            ``user_embedding/embeddings`` (rows, d) and ``dense_0/kernel`` (inputs, outputs). In
            models and layers that hold others the name is the whole path: ``users/dense/kernel``.

    Returns:
        Finite float32 arrays in the order of the model.

    Raises:
        TypeError: another kind of model.
        RuntimeError: a recommender that is not fitted.
        ValueError: a Keras model that is not built or has no weights, or NaN or infinity in it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3,)))
        >>> [name for name in named_weights(model) if "dense" in name]
        ['dense_0/kernel', 'dense_0/bias']
    """
    if isinstance(model, Factors):
        model._counts()  # raises unless fitted
        weights = {n: getattr(model, n) for n in TABLES if getattr(model, n) is not None}
    else:
        inner = keras_model(model)
        weights = dict(zip(named_variables(inner), inner.get_weights(), strict=True))
    return {name: np.array(check_weights(name, values)) for name, values in weights.items()}


def with_weights(model: Any, weights: Mapping[str, NDArray[Any]]) -> Any:
    """Return a new model with other weights; ``model`` stays as it is.

    Args:
        model: as for :func:`named_weights`.
        weights: some or all of its weights by name, of the same shapes; the others are copied.

    Returns:
        A model of the same kind that shares no memory with ``model``. A Keras model is cloned
        without its optimizer.

    Raises:
        ValueError: an unknown name, or another shape.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3, 4))
        >>> zeros = {"item_embedding/embeddings": np.zeros((3, 4), np.float32)}
        >>> float(with_weights(model, zeros)([np.array([1]), np.array([2])])[0])
        0.0
    """
    old = named_weights(model)
    check_names("weights", weights, old)
    for name, values in weights.items():
        check_shape(name, np.asarray(values), old[name].shape)
    new = {name: np.array(weights.get(name, values), np.float32) for name, values in old.items()}
    if isinstance(model, Factors):
        result = copy.copy(model)
        for name, values in new.items():
            setattr(result, name, values)
        return result
    own = keras_model(model)
    inner = keras_of(own).models.clone_model(own)
    inner.set_weights(list(new.values()))
    return replace_keras_model(model, inner) if isinstance(model, Recommender) else inner


def keras_model(model: Any) -> Any:
    """Return the built Keras model in a KerasRecommender, or the model itself.

    Raises:
        TypeError: neither.
        RuntimeError: a recommender that is not fitted.
        ValueError: a model that is not built.
    """
    if isinstance(model, Recommender) and hasattr(model, "keras_model"):
        model._counts()
        model = model.keras_model
    if not hasattr(model, "get_weights") or not hasattr(model, "layers"):
        kind = type(model).__name__
        raise TypeError(f"model is of type {kind}: expected a factor model or a Keras model")
    if not getattr(model, "built", False) or not model.weights:
        raise ValueError("model is not built: expected one that has weights (call it once)")
    return model


def replace_keras_model(recommender: Any, inner: Any) -> Any:
    """Return a copy of a KerasRecommender around another Keras model with the same inputs."""
    result = copy.copy(recommender)
    result._use(recommender._fitted_config, inner)
    return result


def named_layers(model: Any, path: str = "") -> dict[str, Any]:
    """Return all layers in a Keras model or layer by their path, such as ``users/dense``."""
    found: dict[str, Any] = {}
    holds = model.layers if hasattr(model, "get_layer") else model._flatten_layers(False, False)
    for layer in holds:
        found |= named_layers(layer, f"{path}{layer.name}/") | {f"{path}{layer.name}": layer}
    return found


def short_name(variable: Any) -> str:
    """Return "kernel" for a variable that tf_keras calls "score/kernel:0"."""
    return str(variable.name).split("/")[-1].split(":")[0]


def named_variables(model: Any) -> dict[str, Any]:
    """Return the variables of a Keras model under the names of :func:`named_weights`, in order.

    Raises:
        ValueError: a layer with two variables of one name.
    """
    paths: dict[int, str] = {}
    for path, layer in named_layers(model).items():  # what a layer holds comes before the layer
        for variable in layer.weights:
            paths.setdefault(id(variable), f"{path}/{short_name(variable)}")
    named = {paths[id(variable)]: variable for variable in model.weights}
    if len(named) < len(model.weights):
        twice = next(name for name in named if [*paths.values()].count(name) > 1)
        raise ValueError(f"model has two weights {twice!r}: expected other names in this layer")
    return named


def keras_of(model: Any) -> Any:
    """Return the kind of Keras that a model is of: ``keras``, or ``tf_keras`` for a twin."""
    keras = importlib.import_module("keras")
    return keras if isinstance(model, keras.Model) else importlib.import_module("tf_keras")
