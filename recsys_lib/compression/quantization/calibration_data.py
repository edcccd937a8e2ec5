"""What a model is shown to learn the ranges of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids
from recsys_lib.data import Interactions

Calibration = Interactions | Sequence[ArrayLike]


def model_inputs(model: Any, calibration: Calibration | None, most: int) -> list[NDArray[Any]]:
    """Give one array for each input of a model, of the same length, at most ``most``.

    Args:
        model: functional Keras model.
        calibration: see :func:`recsys_lib.compression.quantization.qat.quantization_aware`.
        most: rows; of more, so many are taken, evenly spread.

    Raises:
        TypeError: not a calibration.
        ValueError: empty, not one array per input, of different lengths, or ids out of range; or
            None where an input is not the ids of one table.
    """
    counts = [_count_ids(model, tensor) for tensor in model.inputs]
    names = [tensor.name for tensor in model.inputs]
    if calibration is None:
        if not all(counts):
            raise ValueError(
                f"calibration is None, and input {names[counts.index(0)]!r} is not the ids of an "
                "Embedding: expected one array for each input"
            )
        random = np.random.default_rng(0)
        return [random.integers(0, count, most).astype(np.int32) for count in counts]
    if isinstance(calibration, Interactions):
        if len(counts) != 2 or not all(counts):
            raise ValueError(
                f"calibration is Interactions, and the model has the inputs {names}: expected user "
                "ids and item ids"
            )
        chosen = _spread(len(calibration), most // 2)
        others = np.random.default_rng(0).integers(0, counts[1], len(chosen))
        calibration = (
            np.repeat(calibration.user_ids[chosen], 2),
            np.column_stack([calibration.item_ids[chosen], others]).ravel(),
        )
    if not isinstance(calibration, tuple | list):
        raise TypeError(
            f"calibration is of type {type(calibration).__name__}: expected Interactions, or a "
            "tuple of one array for each input"
        )
    if len(calibration) != len(counts):
        raise ValueError(
            f"calibration has {len(calibration)} arrays: expected {len(counts)}, for the inputs "
            f"{', '.join(names)}"
        )
    arrays: list[NDArray[Any]] = []
    for name, count, values in zip(names, counts, calibration, strict=True):
        if count:
            arrays.append(check_ids(f"calibration {name}", values, count).astype(np.int32))
        else:
            arrays.append(np.asarray(values, np.float32))
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            f"calibration has {' and '.join(map(str, lengths))} rows: expected equally many for "
            "each input, at least one"
        )
    chosen = _spread(lengths[0], most)
    return [array[chosen] for array in arrays]


def _count_ids(model: Any, tensor: Any) -> int:
    """Give the rows of the smallest table that an input is looked up in, 0 where there is none."""
    import keras

    rows = [
        layer.input_dim
        for layer in model.layers
        if isinstance(layer, keras.layers.Embedding) and layer.input is tensor
    ]
    return min(rows, default=0)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
