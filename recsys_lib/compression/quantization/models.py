"""Quantize the weights of a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys_lib.checks import check_names
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import named_weights

Config = UniformQuantization | str


def quantize(model: Any, config: Config | Mapping[str, Config | None]) -> CompressedModel:
    """Quantize the weights of a model after training; the model stays as it is.

    Args:
        model: factor model, Keras model or KerasRecommender.
        config: a :class:`UniformQuantization` or "float16", for all weights of two or more
            dimensions (vectors, such as biases, stay float32); or a mapping from names of weights
            to those, in which None, or a name left out, keeps float32.

    Returns:
        A new model that scores in float32 with the rounded weights, with stored bytes and a
        report. For arithmetic in whole numbers see
        :func:`recsys_lib.compression.quantization.dynamic.quantize_dynamic`.

    Raises:
        TypeError: something else than the above.
        ValueError: an unknown name, a model that is not built, or NaN in its weights.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 200, 300, 64))
        >>> quantize(model, UniformQuantization(bits=4)).report.ratio > 6
        True
    """
    weights = named_weights(model)
    if isinstance(config, Mapping):
        check_names("config", config, weights)
        chosen = {name: choice for name, choice in config.items() if choice is not None}
    else:
        chosen = {name: config for name, values in weights.items() if values.ndim > 1}
    for name, choice in chosen.items():
        if not isinstance(choice, UniformQuantization) and choice != "float16":
            raise TypeError(
                f"config is {choice!r} for {name}: expected UniformQuantization or 'float16'"
            )
    tensors: dict[str, EncodedTensor] = {
        name: quantize_uniform(weights[name], choice)
        if isinstance(choice, UniformQuantization)
        else DenseTensor(weights[name], "float16")
        for name, choice in chosen.items()
    }
    method = "float16" if config == "float16" else "uniform quantization"
    return store_weights(method, config, model, tensors)
