"""The same techniques through TensorFlow Model Optimization (TFMOT), on a twin of the model.

TFMOT works on Keras 2 alone. A rating model therefore gets a twin in ``tf_keras``, built by the
same function and with the same weights; TFMOT trains that one, and the weights come back into a
model of Keras 3. Needs ``pip install recsys-lib[tfmot]``.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib import objectives
from recsys_lib.checks import check_bits, check_names, check_type, store_numbers, store_shares
from recsys_lib.compression import CompressedModel, named_weights, store_weights
from recsys_lib.compression.pruning.rating_models import check_data, read_config
from recsys_lib.compression.pruning.sparse import store_sparse
from recsys_lib.compression.quantization.uniform import UniformQuantization, UniformTensor
from recsys_lib.compression.weights import keras_model, short_name
from recsys_lib.data import Interactions
from recsys_lib.models import build_rating_model
from recsys_lib.training.sampling import epoch_order, uniform_negatives

_WEIGHT_OF = {"Dense": "kernel", "Embedding": "embeddings"}  # what is pruned and quantized
# What joins two branches gets a range of its own, so that integers can be computed through it.
_JOINING = ("Add", "Concatenate", "Dot", "Multiply")
_NEGATIVES = 4  # drawn for each interaction
_PLACE = "tensorflow_model_optimization.python.core.quantization.keras."
_REGISTRY = _PLACE + "default_8bit.default_8bit_quantize_registry"


@dataclass(frozen=True)
class TwinTraining:
    """How a twin is trained: as :func:`recsys_lib.training.fit` does, with fewer choices.

    The objective is sigmoid_cross_entropy; batches and negatives are those of ``fit``.

    Args:
        epochs: passes over the data, 1 or more: TFMOT acts while it trains.
        batch_size: interactions per update.
        learning_rate: of the optimizer; 0 leaves the weights where they are, so that what TFMOT
            does to them is all that happens.
        optimizer: name that tf_keras knows.
        seed: of shuffles and draws.

    Raises:
        TypeError, ValueError: a number out of range.
    """

    epochs: int = 2
    batch_size: int = 8192
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    seed: int = 0

    def __post_init__(self) -> None:
        store_numbers(self, 1, "epochs", "batch_size", integer=True)
        store_numbers(self, 0, "seed", integer=True)
        store_numbers(self, 0, "learning_rate")


@dataclass(frozen=True)
class TfmotPruning:
    """What TFMOT prunes.

    Args:
        sparsity: fraction of zeros in the weight of each layer, in [0, 1); more and more of them
            over three quarters of the updates (Zhu & Gupta 2017).
        layers: names; None for all Dense and Embedding layers.
        training: how the twin is trained.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Example:
        >>> TfmotPruning(1.0)
        Traceback (most recent call last):
        ValueError: sparsity is 1.0: expected a number in [0, 1)
    """

    sparsity: float = 0.5
    layers: Sequence[str] | None = None
    training: TwinTraining = field(default_factory=TwinTraining)

    def __post_init__(self) -> None:
        store_shares(self, "sparsity")


@dataclass(frozen=True)
class TfmotQuantization:
    """What TFMOT's quantization-aware training quantizes.

    Weights are symmetric, with one scale for each tensor; what comes out of a layer has 8 bits. All
    ranges are those of the last batch. TFMOT's own choice for outputs is a moving average that
    starts at -6 and 6 and moves by a thousandth an update, so that after a short run most of the
    256 steps are outside the range that is used.

    Args:
        bits: of the weights, from 2 to 8.
        layers: names of Dense and Embedding layers; None for all, and for what joins them.
        training: how the twin is trained.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Example:
        >>> TfmotQuantization(9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected an integer from 2 to 8
    """

    bits: int = 8
    layers: Sequence[str] | None = None
    training: TwinTraining = field(default_factory=TwinTraining)

    def __post_init__(self) -> None:
        check_bits(self.bits)


def prune_with_tfmot(model: Any, data: Interactions, config: TfmotPruning) -> CompressedModel:
    """Return a rating model that TFMOT has pruned while it trained the twin.

    Args:
        model: as for :func:`to_twin`; it stays as it is.
        data: interactions to train on.
        config: what to prune, and how to train.

    Returns:
        The pruned weights, stored sparse where that is smaller, in a model of the same kind.

    Raises:
        ModuleNotFoundError: TFMOT is not installed (``pip install recsys-lib[tfmot]``).
        TypeError, ValueError: as :func:`to_twin`; layers that cannot be pruned, or data that does
            not fit the model.

    Source:
        Zhu & Gupta, *To prune, or not to prune*, 2017.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 4, 5, 8))
        >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
        >>> brief = TwinTraining(epochs=1)
        >>> pruned = prune_with_tfmot(model, data, TfmotPruning(0.75, training=brief))
        >>> pruned.report.sparsity
        0.75
    """
    check_type("config", config, (TfmotPruning,))
    layers = _chosen_layers(model, data, config.layers)
    sparsity = load_tfmot().sparsity.keras
    # Masks are drawn 100 times a run. Unless the last draw is on a multiple, it is never made.
    steps = config.training.epochs * -(-len(data) // config.training.batch_size)
    every = max(1, steps // 100)
    end = every * max(1, int(0.75 * steps) // every)
    schedule = sparsity.PolynomialDecay(0.0, config.sparsity, 0, end, 3, every)
    wrap = functools.partial(sparsity.prune_low_magnitude, pruning_schedule=schedule)
    twin = _wrap_layers(to_twin(model), wrap, layers)
    _fit_twin(twin, data, config.training, [sparsity.UpdatePruningStep()])
    tensors = {name: store_sparse(values) for name, values in twin_weights(twin).items()}
    return store_weights("TFMOT pruning", config, model, tensors)


def qat_with_tfmot(model: Any, data: Interactions, config: TfmotQuantization) -> CompressedModel:
    """Return a rating model whose weights TFMOT has trained for being rounded, on its twin.

    Args:
        model: as for :func:`to_twin`; it stays as it is.
        data: interactions to train on.
        config: what to quantize, and how to train.

    Returns:
        The rounded weights, stored as packed codes with their scale, in a model of the same kind,
        which computes in float32. To serve integers, export it with calibration, or convert
        :func:`quantization_aware_twin`, which has the ranges of the activations in it.

    Raises:
        ModuleNotFoundError: TFMOT is not installed (``pip install recsys-lib[tfmot]``).
        TypeError, ValueError: as :func:`to_twin`; layers that cannot be quantized, or data that
            does not fit the model.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 3.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 4, 5, 8))
        >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
        >>> brief = TwinTraining(epochs=1)
        >>> rounded = qat_with_tfmot(model, data, TfmotQuantization(4, training=brief))
        >>> {tensor.kind for tensor in rounded.tensors.values()}
        {'uniform'}
    """
    twin = quantization_aware_twin(model, data, config)
    weights = twin_weights(twin)
    stored_as = UniformQuantization(config.bits, "tensor", symmetric=True, scale_dtype="float32")
    tensors = {}
    for layer in twin.layers:
        for weight, _, ranges in getattr(layer, "_weight_vars", ()):  # TFMOT remembers -a to a
            name = f"{layer.layer.name}/{short_name(weight)}"
            width = ranges["max_var"].numpy() - ranges["min_var"].numpy()
            scale = np.full((1,) * weights[name].ndim, width / (2**config.bits - 2), np.float32)
            codes = np.rint(weights[name] / scale).astype(np.int64) + 2 ** (config.bits - 1) - 1
            tensors[name] = UniformTensor(codes, scale, None, stored_as)
    rest = {name: store_sparse(w, "dense") for name, w in weights.items() if name not in tensors}
    return store_weights("TFMOT quantization-aware training", config, model, {**rest, **tensors})


def quantization_aware_twin(model: Any, data: Interactions, config: TfmotQuantization) -> Any:
    """Return the trained twin that :func:`qat_with_tfmot` takes its weights from.

    Returns:
        A ``tf_keras.Model`` that rounds its weights and activations as it computes, and that
        TensorFlow's converter turns into an integer model without calibration.

    Raises:
        ModuleNotFoundError, TypeError, ValueError: as :func:`qat_with_tfmot`.

    Example:
        >>> quantization_aware_twin(None, None, {})
        Traceback (most recent call last):
        TypeError: config is of type dict: expected TfmotQuantization
    """
    check_type("config", config, (TfmotQuantization,))
    layers = _chosen_layers(model, data, config.layers)
    if config.layers is None:
        layers += [la.name for la in keras_model(model).layers if type(la).__name__ in _JOINING]
    quantization, layer_config = load_tfmot().quantization.keras, _layer_config_class()

    def annotate(layer: Any) -> Any:
        own = layer_config(type(layer).__name__, config.bits)
        return quantization.quantize_annotate_layer(layer, own)

    # Adds nothing to what was asked for: TFMOT's own scheme would also quantize the ids.
    scheme = SimpleNamespace(apply=lambda *arguments: arguments, supports=lambda layer: False)
    scheme.get_layout_transformer = scheme.get_quantize_registry = lambda: scheme
    with quantization.quantize_scope({"LayerConfig": layer_config}):
        annotated = _wrap_layers(to_twin(model), annotate, layers)
        twin = quantization.quantize_apply(annotated, scheme)
    _fit_twin(twin, data, config.training)
    return twin


def to_twin(model: Any) -> Any:
    """Return the tf_keras twin of a rating model: same layers, weights and outputs.

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
        >>> from recsys_lib.models import RatingModelConfig
        >>> model = build_rating_model(RatingModelConfig("dot_product", num_users=2, num_items=3))
        >>> twin = to_twin(model)
        >>> ids = [np.array([0, 1]), np.array([2, 0])]
        >>> type(twin).__module__.split(".")[0], float(np.abs(twin(ids) - model(ids)).max())
        ('tf_keras', 0.0)
    """
    config, inner = read_config(model), keras_model(model)
    twin = build_rating_model(config, keras=_import("tf_keras"))
    twin.set_weights(list(named_weights(inner).values()))
    ids = [np.arange(64, dtype=np.int32) * 7 % n for n in (config.num_users, config.num_items)]
    mine, other = (np.asarray(either(ids, training=False)) for either in (inner, twin))
    if mine.shape != other.shape or not np.allclose(mine, other, 1e-4, 1e-5):
        raise ValueError("model gives other scores than what build_rating_model builds")
    return twin


def twin_weights(twin: Any) -> dict[str, NDArray[np.float32]]:
    """Return the weights that a twin computes with, by the names that the Keras 3 model has.

    ``with_weights(model, twin_weights(twin))`` brings them back. What TFMOT does to activations is
    not part of them.

    Args:
        twin: of :func:`to_twin`, also after training, or wrapped by TFMOT: then these are the
            pruned or the rounded ones.

    Example:
        >>> from recsys_lib.models import RatingModelConfig
        >>> model = build_rating_model(RatingModelConfig("dot_product", num_users=2, num_items=3))
        >>> list(twin_weights(to_twin(model)))
        ['user_embedding/embeddings', 'item_embedding/embeddings']
    """
    kinds = {type(layer).__name__ for layer in twin.layers}
    if "PruneLowMagnitude" in kinds:
        return named_weights(load_tfmot().sparsity.keras.strip_pruning(twin))
    if "QuantizeWrapperV2" not in kinds:
        return named_weights(twin)
    weights = {}
    for layer in twin.layers:
        inner = getattr(layer, "layer", layer)
        variables = {short_name(weight): weight for weight in [*layer.weights, *inner.weights]}
        for weight, quantizer, ranges in getattr(layer, "_weight_vars", ()):
            variables[short_name(weight)] = quantizer(weight, False, weights=ranges)
        for name in ("embeddings", "kernel", "bias"):
            if name in variables:
                weights[f"{inner.name}/{name}"] = variables[name].numpy()
    return weights


def _chosen_layers(model: Any, data: Any, layers: Sequence[str] | None) -> list[str]:
    """Return the layers to act on; the data has to fit the model."""
    shape = read_config(model)
    check_data(data, shape.num_users, shape.num_items)
    able = [la.name for la in keras_model(model).layers if type(la).__name__ in _WEIGHT_OF]
    if isinstance(layers, str) or (layers is not None and not layers):
        raise ValueError(f"layers is {layers!r}: expected some names, or None for all")
    check_names("layers", layers or able, able)
    return list(layers or able)


def _wrap_layers(twin: Any, wrap: Callable[[Any], Any], names: Collection[str]) -> Any:
    """Clone a twin with some layers wrapped; they are shared, so the twin is to be given up."""
    return _import("tf_keras").models.clone_model(
        twin, clone_function=lambda layer: wrap(layer) if layer.name in names else layer
    )


def _fit_twin(twin: Any, data: Interactions, options: TwinTraining, callbacks: Any = ()) -> None:
    """Train a twin in place, on the same batches and draws as ``fit`` with the same seed."""
    optimizer = _import("tf_keras").optimizers.get(options.optimizer)
    optimizer.learning_rate = options.learning_rate
    drawn, size, seed = _NEGATIVES, options.batch_size, options.seed
    # The loss of an interaction is the sum over it and its negatives, as in our own training.
    twin.compile(optimizer, lambda y, z: (1 + drawn) * objectives.sigmoid_cross_entropy(y, z))
    starts = range(0, len(data), size)
    for epoch in range(options.epochs):
        order = epoch_order(len(data), seed, epoch)
        negatives = [
            uniform_negatives(len(order[start : start + size]), drawn, data.num_items, seed, step)
            for step, start in enumerate(starts, epoch * len(starts))
        ]
        items = np.column_stack([data.item_ids[order], np.concatenate(negatives)])
        labels = np.eye(1, 1 + drawn, dtype=np.float32).repeat(len(order), axis=0)  # first is 1
        ids = [np.repeat(data.user_ids[order], 1 + drawn), items.ravel()]
        inputs = [side.astype(np.int32) for side in ids]
        fixed = {"batch_size": size * (1 + drawn), "shuffle": False, "verbose": 0}
        run = twin.fit(inputs, labels.ravel(), callbacks=[*callbacks], **fixed)
        if not all(np.isfinite(w).all() for w in (run.history["loss"], *twin.get_weights())):
            raise FloatingPointError(f"not finite with learning rate {options.learning_rate:.3g}")


@functools.cache
def _layer_config_class() -> Any:
    """Make the class that tells TFMOT what to round in a layer: its weight, and what comes out."""
    last_value = load_tfmot().quantization.keras.quantizers.LastValueQuantizer
    parent = importlib.import_module(_REGISTRY).Default8BitQuantizeConfig

    class LayerConfig(parent):  # type: ignore[misc,valid-type]
        def __init__(self, kind: str, bits: int) -> None:
            weights = [_WEIGHT_OF[kind]] if kind in _WEIGHT_OF else []
            super().__init__(weights, ["activation"] if kind == "Dense" else [], not weights)
            self.settings = {"kind": kind, "bits": bits}
            narrow = {"symmetric": True, "narrow_range": True}
            self.weight_quantizer = last_value(bits, per_axis=False, **narrow)
            self.activation_quantizer = last_value(8, False, symmetric=False, narrow_range=False)

        def get_config(self) -> dict[str, Any]:
            return self.settings

    return LayerConfig


def load_tfmot() -> Any:
    """Return TensorFlow Model Optimization, imported so that Keras stays what it was.

    Its import sets ``TF_USE_LEGACY_KERAS``, which turns the Keras of TensorFlow's own name space
    into tf_keras if nobody has asked for that one before. So it is asked for here, and the
    variable is put back.

    Raises:
        ModuleNotFoundError: TFMOT is not installed (``pip install recsys-lib[tfmot]``).

    Example:
        >>> load_tfmot().sparsity.keras.prune_low_magnitude.__name__
        'prune_low_magnitude'
    """
    import keras  # noqa: F401  (TensorFlow's name space takes the Keras that is there)

    name, tensorflow = "TF_USE_LEGACY_KERAS", importlib.import_module("tensorflow")
    before = {name: os.environ[name]} if name in os.environ else {}
    vars(tensorflow)["keras"].layers  # noqa: B018
    try:
        return _import("tensorflow_model_optimization")
    finally:
        os.environ.pop(name, None)
        os.environ.update(before)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        raise ModuleNotFoundError(f"{missing} is missing: pip install recsys-lib[tfmot]") from error
