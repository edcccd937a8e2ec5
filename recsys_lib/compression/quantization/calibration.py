"""Which range the numbers between the layers have, learned from example inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_bits, check_choice, check_number, check_weights
from recsys_lib.compression.quantization.scales import find_range
from recsys_lib.compression.weights import keras_model

_METHODS = ("minmax", "percentile", "mse", "moving_average")


@dataclass(frozen=True)
class RangeCalibration:
    """How a range is found from examples.

    Args:
        method: "minmax" (lowest and highest number seen), "percentile" (without the outermost
            ones), "mse" (the range whose codes have the smallest squared error), or
            "moving_average" (of the lowest and of the highest number in each batch).
        bits: 2 to 8, for "mse".
        symmetric: whether low is to be ``-high``.
        percentile: above 50, up to 100.
        momentum: of the moving average, in [0, 1): the weight of what was before.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference*, 2018,
        section 3; moving averages: Jacob et al., CVPR 2018, section 3.1.

    Example:
        >>> RangeCalibration("entropy")
        Traceback (most recent call last):
        ValueError: method is 'entropy': expected one of minmax, percentile, mse, moving_average
    """

    method: str = "minmax"
    bits: int = 8
    symmetric: bool = False
    percentile: float = 99.9
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_choice("method", self.method, _METHODS)
        check_bits(self.bits)
        check_number("percentile", self.percentile, 50, include_low=False)
        if self.percentile > 100:
            raise ValueError(f"percentile is {self.percentile}: expected a number in (50, 100]")
        if check_number("momentum", self.momentum, 0) >= 1:
            raise ValueError(f"momentum is {self.momentum}: expected a number in [0, 1)")


def calibrate_range(batches: Iterable[ArrayLike], config: RangeCalibration) -> tuple[float, float]:
    """Give the range of the numbers in some batches.

    Args:
        batches: arrays of finite numbers, of any shape. "percentile" and "mse" hold them all.
        config: how.

    Returns:
        ``(low, high)``; 0 need not lie between them.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: no batch, or an empty one; NaN or infinity.

    Example:
        >>> batches = [np.float32([0, 1, 2]), np.float32([0, 4])]
        >>> calibrate_range(batches, RangeCalibration("minmax"))
        (0.0, 4.0)
        >>> calibrate_range(batches, RangeCalibration("moving_average", momentum=0.5))
        (0.0, 3.0)
        >>> calibrate_range([], RangeCalibration())
        Traceback (most recent call last):
        ValueError: batches is empty: expected at least one batch to calibrate with
    """
    rows = [
        check_weights(f"batches[{number}]", batch).reshape(1, -1)
        for number, batch in enumerate(batches)
    ]
    if not rows:
        raise ValueError("batches is empty: expected at least one batch to calibrate with")
    if config.method == "moving_average":
        ends = [
            find_range(row, config.bits, symmetric=config.symmetric, search="minmax")
            for row in rows
        ]
        low, high = (float(end[0]) for end in ends[0])
        for batch_low, batch_high in ends[1:]:
            low += (1 - config.momentum) * (float(batch_low[0]) - low)
            high += (1 - config.momentum) * (float(batch_high[0]) - high)
        return low, high
    found = find_range(
        np.concatenate(rows, axis=1),
        config.bits,
        symmetric=config.symmetric,
        search=config.method,
        percentile=config.percentile,
    )
    return float(found[0][0]), float(found[1][0])


def activation_ranges(
    model: Any, batches: Iterable[Sequence[ArrayLike]], config: RangeCalibration
) -> dict[str, tuple[float, float]]:
    """Give the range of what each layer of a model puts out for example inputs.

    Args:
        model: a functional Keras 3 model, or a fitted KerasRecommender around one.
        batches: of inputs, such as ``[(user_ids, item_ids), ...]``. What is not among them is not
            in the ranges either: calibrate with pairs such as will be scored, not with the pairs
            of the training data alone.
        config: how.

    Returns:
        ``(low, high)`` by name of layer, without the inputs.

    Raises:
        TypeError: not a Keras model.
        ValueError: a model that is not built, or no batches.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, hidden_units=(3,)))
        >>> pairs = [(np.arange(5), np.arange(5))]
        >>> ranges = activation_ranges(model, pairs, RangeCalibration())
        >>> ranges["dense_0"][0] >= 0  # the lowest number after ReLU
        True
    """
    import keras

    inner = keras_model(model)
    layers = [layer for layer in inner.layers if type(layer).__name__ != "InputLayer"]
    outputs = keras.Model(inner.inputs, {layer.name: layer.output for layer in layers})
    seen: dict[str, list[NDArray[Any]]] = {layer.name: [] for layer in layers}
    for batch in batches:
        given = [np.asarray(part) for part in batch]
        for name, values in outputs(given, training=False).items():
            seen[name].append(keras.ops.convert_to_numpy(values))
    return {name: calibrate_range(values, config) for name, values in seen.items()}
