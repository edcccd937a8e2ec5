"""A rating model in tf_keras with the same weights, and back."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_names
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights, with_weights
from recsys_lib.models import RatingModelConfig, build_rating_model

_CHECKED_PAIRS = 64
# The weight that pruning, clustering and quantization act on, by class of layer.
WEIGHT_OF = {"Dense": "kernel", "Embedding": "embeddings"}


def to_twin(model: Any) -> Any:
    """Build the tf_keras twin of a rating model: same layers, weights and outputs.

    Args:
        model: a Keras 3 model of :func:`recsys_lib.models.build_rating_model`, or a fitted
            ``KerasRecommender``; it stays as it is, and shares nothing with the twin.

    Returns:
        A ``tf_keras.Model``.

    Raises:
        ModuleNotFoundError: tf_keras is not installed (``pip install recsys-lib[tfmot]``).
        TypeError: another kind of model.
        RuntimeError: a recommender that is not fitted.
        ValueError: a model that is not built or not one of ``build_rating_model``: other layers,
            shapes or scores; NaN or infinity in it.

    Example:
        >>> config = RatingModelConfig("dot_product", num_users=2, num_items=3)
        >>> model = build_rating_model(config)
        >>> twin = to_twin(model)
        >>> ids = [np.array([0, 1]), np.array([2, 0])]
        >>> type(twin).__module__.split(".")[0], float(np.abs(twin(ids) - model(ids)).max())
        ('tf_keras', 0.0)
    """
    config, inner = read_config(model), keras_model(model)
    twin = build_rating_model(config, keras=_import("tf_keras"))
    twin.set_weights(list(named_weights(inner).values()))
    random = np.random.default_rng(0)
    ids = [
        random.integers(0, count, _CHECKED_PAIRS).astype(np.int32)
        for count in (config.num_users, config.num_items)
    ]
    expected, given = np.asarray(inner(ids, training=False)), np.asarray(twin(ids, training=False))
    if expected.shape != given.shape or not np.allclose(given, expected, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"model gives other scores than a {config.kind} with its weights: expected one as "
            "build_rating_model builds it"
        )
    return twin


def from_twin(twin: Any, config: RatingModelConfig) -> Any:
    """Build the Keras 3 model with the weights of a twin.

    Args:
        twin: of :func:`to_twin`, also after training, or wrapped by TFMOT: then the weights are
            those that it computes with, so pruned, clustered or rounded ones.
        config: what the model was built from.

    Returns:
        A new ``keras.Model``. What TFMOT does to activations is not part of it.

    Raises:
        TypeError: not a tf_keras model, or not a config.
        ValueError: layers or shapes that config does not describe, NaN or infinity.

    Example:
        >>> config = RatingModelConfig("dot_product", num_users=2, num_items=3)
        >>> model = build_rating_model(config)
        >>> again = from_twin(to_twin(model), config)
        >>> all(np.array_equal(a, b) for a, b in zip(again.get_weights(), model.get_weights()))
        True
    """
    weights = twin_weights(twin)
    model = build_rating_model(config)
    given = {name: values.shape for name, values in weights.items()}
    expected = {name: values.shape for name, values in named_weights(model).items()}
    if given != expected:
        raise ValueError(
            f"twin has the weights {given}: expected those of a {config.kind} of this config, "
            f"{expected}"
        )
    return with_weights(model, weights)


def twin_weights(twin: Any) -> dict[str, Any]:
    """Give the weights that a twin computes with, by the names of the Keras 3 model.

    Raises:
        TypeError: not a tf_keras model.
    """
    tf_keras = _import("tf_keras")
    if not isinstance(twin, tf_keras.Model):
        raise TypeError(f"twin is of type {type(twin).__name__}: expected a tf_keras model")
    kinds = {type(layer).__name__ for layer in twin.layers}
    if "PruneLowMagnitude" in kinds:
        return named_weights(load_tfmot().sparsity.keras.strip_pruning(twin))
    if "ClusterWeights" in kinds:
        return named_weights(load_tfmot().clustering.keras.strip_clustering(twin))
    if "QuantizeWrapperV2" not in kinds:
        return named_weights(twin)
    weights = {}
    for layer in twin.layers:
        inner = getattr(layer, "layer", layer)
        variables = {weight_name(weight): weight for weight in layer.weights}
        variables |= {weight_name(weight): weight for weight in inner.weights}
        for weight, quantizer, ranges in getattr(layer, "_weight_vars", ()):
            variables[weight_name(weight)] = quantizer(weight, False, weights=ranges)
        for name in ("embeddings", "kernel", "bias"):
            if name in variables:
                weights[f"{inner.name}/{name}"] = variables[name].numpy()
    return weights


def weight_name(weight: Any) -> str:
    """Give "kernel" for a variable called "score/kernel:0"."""
    return str(weight.name).split("/")[-1].split(":")[0]


def store_twin(
    method: str,
    config: Any,
    model: Any,
    twin: Any,
    store: Mapping[str, Callable[[NDArray[np.float32]], EncodedTensor]],
) -> CompressedModel:
    """Give a model of the kind of ``model`` with the weights that a twin computes with.

    Args:
        method: name of the step.
        config: its choices.
        model: what the twin was made from.
        twin: trained, still wrapped.
        store: by name of weight, what makes its stored form; the others stay float32.
    """
    tensors = {
        name: store.get(name, DenseTensor)(values) for name, values in twin_weights(twin).items()
    }
    return store_weights(method, config, model, tensors)


def wrap_layers(twin: Any, wrap: Callable[[Any], Any], names: Collection[str]) -> Any:
    """Clone a twin with some layers wrapped; they are shared, so the twin is to be given up."""
    return _import("tf_keras").models.clone_model(
        twin, clone_function=lambda layer: wrap(layer) if layer.name in names else layer
    )


def chosen_weights(model: Any, layers: Sequence[str] | None) -> dict[str, str]:
    """Give names of layers and of the weight in each to act on, such as "score/kernel".

    Args:
        model: as for :func:`to_twin`.
        layers: names; None for all Dense and Embedding layers.

    Raises:
        TypeError: layers is a text.
        ValueError: no layers are named, an unknown one, or one that is neither kind.
    """
    known = {layer.name: type(layer).__name__ for layer in keras_model(model).layers}
    able = {name: f"{name}/{WEIGHT_OF[kind]}" for name, kind in known.items() if kind in WEIGHT_OF}
    if layers is None:
        return able
    if isinstance(layers, str):
        raise TypeError(f"layers is {layers!r}: expected a sequence of names, or None for all")
    if not layers:
        raise ValueError("layers is empty: expected some names, or None for all")
    check_names("layers", layers, known)
    for name in layers:
        if name not in able:
            raise ValueError(
                f"layers names {name!r}, of class {known[name]}: expected Dense or Embedding "
                f"layers, some of {', '.join(able)}"
            )
    return {name: able[name] for name in layers}


def load_tfmot() -> Any:
    """Import TFMOT so that Keras stays what it was for the rest of the process.

    Its import sets ``TF_USE_LEGACY_KERAS``, which turns the Keras of TensorFlow's own name space
    into tf_keras if nobody has asked for that one before. So it is asked for here, and the
    variable is put back.

    Raises:
        ModuleNotFoundError: it is not installed (``pip install recsys-lib[tfmot]``).
    """
    import keras  # noqa: F401  (TensorFlow's name space takes the Keras that is there)

    name, tensorflow = "TF_USE_LEGACY_KERAS", importlib.import_module("tensorflow")
    before = os.environ.get(name)
    vars(tensorflow)["keras"].layers  # noqa: B018
    try:
        return _import("tensorflow_model_optimization")
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name or name} is not installed: pip install recsys-lib[tfmot]"
        ) from error
