"""Quantization-aware training by TFMOT, of Dense and Embedding layers."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_bits
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.quantization.uniform import UniformQuantization, UniformTensor
from recsys_lib.compression.tfmot.training import TwinTraining, check_data, fit_twin
from recsys_lib.compression.tfmot.twin import (
    WEIGHT_OF,
    chosen_weights,
    load_tfmot,
    store_twin,
    to_twin,
    weight_name,
    wrap_layers,
)
from recsys_lib.compression.weights import keras_model
from recsys_lib.data import Interactions

_MASKED = (
    "tensorflow_model_optimization.python.core.quantization.keras.collab_opts.prune_preserve"
    ".prune_preserve_quantize_registry"
)
# What joins two branches gets a range of its own, so that integers can be computed through it.
_JOINING = ("Add", "Concatenate", "Dot", "Multiply")


@dataclass(frozen=True)
class TfmotQuantization:
    """What TFMOT's quantization-aware training quantizes.

    Weights are symmetric, with one scale for each tensor; what comes out of a layer has 8 bits. All
    ranges are those of the last batch. TFMOT's own choice for outputs is a moving average that
    starts at -6 and 6 and moves by a thousandth an update, so that after a short run most of the
    256 steps are outside the range that is used.

    Args:
        bits: of the weights, from 2 to 8.
        preserve_sparsity: what is zero at the start stays zero. Plain TFMOT lets every weight
            move, so that a pruned model does not stay pruned.
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
    preserve_sparsity: bool = False
    layers: Sequence[str] | None = None
    training: TwinTraining = field(default_factory=TwinTraining)

    def __post_init__(self) -> None:
        check_bits(self.bits)


def qat_with_tfmot(
    model: Any, interactions: Interactions, config: TfmotQuantization
) -> CompressedModel:
    """Train a rating model for quantization with TFMOT, on its twin.

    Args:
        model: as for :func:`to_twin`; it stays as it is.
        interactions: what to train on.
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
    twin = quantization_aware_twin(model, interactions, config)
    store = {
        name: functools.partial(_as_codes, scale=scale, bits=config.bits)
        for name, scale in _scales(twin, config.bits).items()
    }
    return store_twin("TFMOT quantization-aware training", config, model, twin, store)


def quantization_aware_twin(
    model: Any, interactions: Interactions, config: TfmotQuantization
) -> Any:
    """Train the twin that :func:`qat_with_tfmot` takes its weights from.

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
    if not isinstance(config, TfmotQuantization):
        raise TypeError(f"config is of type {type(config).__name__}: expected TfmotQuantization")
    layers = list(chosen_weights(model, config.layers))
    check_data(interactions, config.training, read_config(model))
    if config.layers is None:
        layers += [la.name for la in keras_model(model).layers if type(la).__name__ in _JOINING]
    keras_side = load_tfmot().quantization.keras
    layer_config, scheme = _classes()
    annotated = wrap_layers(
        to_twin(model),
        lambda layer: keras_side.quantize_annotate_layer(
            layer, layer_config(type(layer).__name__, config.bits, config.preserve_sparsity)
        ),
        layers,
    )
    with keras_side.quantize_scope({"LayerConfig": layer_config}):
        twin = keras_side.quantize_apply(annotated, scheme())
    fit_twin(twin, interactions, config.training)
    return twin


def _scales(twin: Any, bits: int) -> dict[str, np.float32]:
    """Give the step of each quantized weight: TFMOT remembers the range, -a to a."""
    return {
        f"{layer.layer.name}/{weight_name(weight)}": np.float32(
            (variables["max_var"].numpy() - variables["min_var"].numpy()) / (2**bits - 2)
        )
        for layer in twin.layers
        for weight, _, variables in getattr(layer, "_weight_vars", ())
    }


def _as_codes(values: NDArray[np.float32], *, scale: np.float32, bits: int) -> UniformTensor:
    stored_as = UniformQuantization(bits, "tensor", symmetric=True, scale_dtype="float32")
    codes = np.rint(values / scale).astype(np.int64) + 2 ** (bits - 1) - 1
    return UniformTensor(codes, np.full((1,) * values.ndim, scale), None, stored_as)


@functools.cache
def _classes() -> tuple[Any, Any]:
    """Make the classes that TFMOT is told with what to do; they inherit from its own."""
    keras_side = load_tfmot().quantization.keras
    quantizers = keras_side.quantizers
    masked = importlib.import_module(_MASKED).PrunePreserveDefaultWeightsQuantizer

    class LayerConfig(keras_side.QuantizeConfig):  # type: ignore[name-defined]
        """What is rounded in a layer: the weight, if it has one, and what comes out of it."""

        def __init__(self, kind: str, bits: int, preserve_sparsity: bool) -> None:
            self.kind, self.bits, self.preserve_sparsity = kind, bits, preserve_sparsity
            self._outputs = quantizers.LastValueQuantizer(
                8, per_axis=False, symmetric=False, narrow_range=False
            )

        def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            if self.kind not in WEIGHT_OF:
                return []
            maker = masked if self.preserve_sparsity else quantizers.LastValueQuantizer
            quantizer = maker(self.bits, per_axis=False, symmetric=True, narrow_range=True)
            return [(getattr(layer, WEIGHT_OF[self.kind]), quantizer)]

        def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
            return [(layer.activation, self._outputs)] if self.kind == "Dense" else []

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [] if self.kind in WEIGHT_OF else [self._outputs]

        def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
            for values in quantize_weights:
                setattr(layer, WEIGHT_OF[self.kind], values)

        def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
            for activation in quantize_activations:
                layer.activation = activation

        def get_config(self) -> dict[str, Any]:
            names = ("kind", "bits", "preserve_sparsity")
            return {name: getattr(self, name) for name in names}

    class AsItIs(keras_side.QuantizeLayoutTransform, keras_side.QuantizeRegistry):  # type: ignore[name-defined]
        """Adds nothing to what was asked for: TFMOT's own would also quantize the ids."""

        def apply(self, model: Any, layer_quantize_map: Any) -> tuple[Any, Any]:
            return model, layer_quantize_map

        def supports(self, layer: Any) -> bool:
            return False

        def get_quantize_config(self, layer: Any) -> None:
            return None

    class Scheme(keras_side.QuantizeScheme):  # type: ignore[name-defined]
        def get_layout_transformer(self) -> Any:
            return AsItIs()

        def get_quantize_registry(self) -> Any:
            return AsItIs()

    return LayerConfig, Scheme
