"""How much each neuron of a rating model matters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number
from recsys_lib.compression.pruning.rating_models import hidden_layers, read_config
from recsys_lib.compression.weights import keras_model, named_weights
from recsys_lib.data import Interactions
from recsys_lib.models.checks import check_interactions

METHODS = ("magnitude", "activation", "taylor")


def neuron_importance(
    model: Any,
    method: str = "taylor",
    interactions: Interactions | None = None,
    *,
    num_samples: int = 4096,
    negatives_per_positive: int = 4,
    seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Rate each neuron of each hidden layer; the lowest are the first to go.

    With z the output of a neuron (after its activation) and L the cross-entropy of one pair, both
    taken over a sample of interactions (label 1) and drawn items (label 0):

    - "magnitude": ``sum |w|`` over the weights that lead into the neuron. Needs no data.
    - "activation": mean of ``|z|``.
    - "taylor": mean of ``|z dL/dz|``, to first order how much L changes when z becomes 0. The
      absolute value is taken for each pair: the plain mean is zero wherever training has converged.

    Args:
        model: mlp_ranker, neumf or two_tower of ``build_rating_model`` (Keras 3 or tf_keras), or a
            fitted KerasRecommender around one.
        method: one of the above.
        interactions: what to sample from; not needed for "magnitude".
        num_samples: interactions to sample, without repetition; all where there are fewer.
        negatives_per_positive: items drawn for each of them.
        seed: of the sample.

    Returns:
        For each hidden layer by name (width,) float32 of 0 or more.

    Raises:
        TypeError: not such a model, or not Interactions.
        ValueError: an unknown method, no interactions where they are needed or of other counts
            than the model, or a model without hidden layers.

    Source:
        "magnitude": Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017, section 3.1.
        "activation" and "taylor": Molchanov et al., *Pruning Convolutional Neural Networks for
        Resource Efficient Inference*, ICLR 2017, section 2.2, equation 8 for each example.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 5, 7, 4, hidden_units=(3,)))
        >>> neuron_importance(model, "magnitude")["dense_0"].shape
        (3,)
    """
    check_choice("method", method, METHODS)
    layers = _layers(model)
    if method == "magnitude":
        weights = named_weights(model)
        return {name: np.abs(weights[f"{name}/kernel"]).sum(axis=0) for name in layers}
    pairs = sample_pairs(
        model,
        interactions,
        num_samples=num_samples,
        negatives_per_positive=negatives_per_positive,
        seed=seed,
    )
    outputs, gradients = _outputs_and_gradients(model, layers, *pairs)
    if method == "activation":
        return {name: np.abs(z).mean(axis=0) for name, z in zip(layers, outputs, strict=True)}
    return {
        name: np.abs(z * g).mean(axis=0)
        for name, z, g in zip(layers, outputs, gradients, strict=True)
    }


def sample_pairs(
    model: Any,
    interactions: Interactions | None,
    *,
    num_samples: int = 4096,
    negatives_per_positive: int = 4,
    seed: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Draw interactions and items that stand for all others, as training does.

    Args:
        model: as for :func:`neuron_importance`, whose tables must have a row for each id.
        interactions: what to sample from.
        num_samples: interactions, n; all where there are fewer.
        negatives_per_positive: m items drawn for each, uniformly.
        seed: of the draw.

    Returns:
        Users, items and labels of 1 and 0, each (n (1 + m),).

    Raises:
        TypeError: not Interactions.
        ValueError: None, or other counts of users and items than the model's.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3))
        >>> users, items, labels = sample_pairs(model, Interactions([0, 1], [0, 2]))
        >>> users.tolist(), labels[:3].tolist()
        ([0, 1, 0, 0, 0, 0, 1, 1, 1, 1], [1.0, 1.0, 0.0])
    """
    count = check_number("num_samples", num_samples, 1, integer=True)
    drawn = check_number("negatives_per_positive", negatives_per_positive, 1, integer=True)
    check_number("seed", seed, 0, integer=True)
    if interactions is None:
        raise ValueError("interactions is None: expected some to run through the model")
    check_interactions(interactions)
    config = read_config(model)
    counts = interactions.num_users, interactions.num_items
    if counts != (config.num_users, config.num_items):
        raise ValueError(
            f"interactions counts {counts[0]} users and {counts[1]} items, the model "
            f"{config.num_users} and {config.num_items}: expected the same"
        )
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(interactions))[:count])
    users = interactions.user_ids[rows]
    negatives = random.integers(0, interactions.num_items, len(rows) * drawn)
    return (
        np.concatenate([users, np.repeat(users, drawn)]).astype(np.int32),
        np.concatenate([interactions.item_ids[rows], negatives]).astype(np.int32),
        np.repeat(np.array([1, 0], np.float32), [len(rows), len(negatives)]),
    )


def _layers(model: Any) -> list[str]:
    config = read_config(model)
    if not config.hidden_units:
        raise ValueError(
            f"model is a {config.kind}, which has no hidden layers: expected an mlp_ranker, neumf "
            "or two_tower (reduce_dimensions makes embeddings shorter)"
        )
    return [layer.name for layer in hidden_layers(config)]


def layer_outputs(model: Any, layers: list[str], users: Any, items: Any) -> list[NDArray[Any]]:
    """Run pairs through a model: the outputs of some layers, each (n, width)."""
    inner = keras_model(model)
    outputs = [inner.get_layer(name).output for name in layers]
    probe = type(inner)(inner.inputs, outputs)
    found = probe([users, items], training=False)
    return [np.asarray(values) for values in (found if isinstance(found, list) else [found])]


def _outputs_and_gradients(
    model: Any, layers: list[str], users: Any, items: Any, labels: Any
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Give z and dL/dz of each pair, (n, width) for each layer."""
    import tensorflow as tf

    inner = keras_model(model)
    outputs = [inner.get_layer(name).output for name in layers]
    probe = type(inner)(inner.inputs, [*outputs, inner.outputs[0]])
    with tf.GradientTape() as tape:
        *hidden, logits = probe([users, items], training=False)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(labels), logits)
        total = tf.reduce_sum(losses)  # its gradient for a pair is that of the pair's own loss
    gradients = tape.gradient(total, hidden)
    return [z.numpy() for z in hidden], [g.numpy() for g in gradients]
