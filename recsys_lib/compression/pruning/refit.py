"""Least squares: let what is left say most nearly what was said before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.compression.pruning.importance import layer_outputs
from recsys_lib.compression.pruning.rating_models import hidden_layers, read_config
from recsys_lib.compression.weights import named_weights, with_weights

RIDGE = 1e-3


def refit_readers(
    model: Any,
    smaller: Any,
    removed: Mapping[str, ArrayLike],
    users: NDArray[Any],
    items: NDArray[Any],
) -> Any:
    """Fit the layers that read pruned ones to what they received in the whole model.

    From the first layer to the last: with Z the outputs of a layer of ``model`` and Y those of the
    same layer of ``smaller``, whose own readers before it are fitted already, the new kernel V and
    bias c of its reader minimise ``|Y V + c - (Z V0 + c0)|^2`` over the pairs.

    Args:
        model: the whole rating model, with kernel V0 and bias c0.
        smaller: the same model without some neurons; both stay as they are.
        removed: those neurons, by name of layer.
        users: (n,) user ids of the pairs.
        items: (n,) item ids.

    Returns:
        A model of the shapes of ``smaller``.

    Source:
        He, Zhang & Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, ICCV 2017,
        section 3.1.

    Example:
        >>> from recsys_lib.compression.pruning.neurons import remove_neurons
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 9, 9, 4, hidden_units=(8,)))
        >>> removed = {"dense_0": [0, 5]}
        >>> smaller = remove_neurons(model, removed).model
        >>> ids = np.arange(9, dtype=np.int32)
        >>> fitted = refit_readers(model, smaller, removed, ids, ids)
        >>> def error(other):
        ...     return float(np.mean((other([ids, ids]) - model([ids, ids])) ** 2))
        >>> error(fitted) < error(smaller)
        True
    """
    before = named_weights(model)
    layers = [layer for layer in hidden_layers(read_config(model)) if layer.reader is not None]
    wanted = layer_outputs(model, [layer.name for layer in layers], users, items)
    offsets = {layer.name: layer.offset for layer in hidden_layers(read_config(smaller))}
    for layer, outputs in zip(layers, wanted, strict=True):
        kernel, bias = f"{layer.reader}/kernel", f"{layer.reader}/bias"
        targets = outputs.astype(np.float64) @ before[kernel][layer.offset :] + before[bias]
        targets = np.delete(targets, np.asarray(removed.get(str(layer.reader), ()), int), axis=1)
        (inputs,) = layer_outputs(smaller, [layer.name], users, items)
        if inputs.shape == outputs.shape and np.array_equal(inputs, outputs):
            continue  # nothing is missing yet
        new, shift = ridge_regression(inputs.astype(np.float64), targets)
        kept = named_weights(smaller)[kernel][: offsets[layer.name]]
        smaller = with_weights(smaller, {kernel: np.vstack([kept, new]), bias: shift})
    return smaller


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
