"""A Keras rating model, taken apart into what belongs to users, to items, and to pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.models import inner_product_vectors
from recsys_lib.serving.exported_files import count_ids

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RankerParts:
    """What :func:`split_ranker` finds; any of the two halves of a score may be missing.

    The logit of (u, i) is ``<user_vectors[u], item_vectors[i]>`` plus
    ``last . h(activation(user_table[u] @ user_kernel + item_half[i])) + last_bias``, where h are
    the layers after the first, each followed by the activation.

    Args:
        num_users: number of users.
        num_items: number of items.
        user_vectors: (num_users, d), or None.
        item_vectors: (num_items, d), or None.
        user_table: (num_users, e) user embeddings, or None when the model is an inner product.
        user_kernel: (e, h) the user's rows of the first dense kernel.
        item_half: (num_items, h) item embeddings times the item's rows of that kernel, plus bias.
        layers: kernel and bias of each further dense layer.
        last: (width,) kernel of the score.
        last_bias: bias of the score.
        activation: name of the activation.
    """

    num_users: int
    num_items: int
    user_vectors: Floats | None = None
    item_vectors: Floats | None = None
    user_table: Floats | None = None
    user_kernel: Floats | None = None
    item_half: Floats | None = None
    layers: tuple[tuple[Floats, Floats], ...] = ()
    last: Floats | None = None
    last_bias: float = 0.0
    activation: str = "relu"

    def arrays(self) -> list[Floats]:
        """Give all arrays, for counting bytes."""
        alone = [self.user_vectors, self.item_vectors, self.user_table, self.user_kernel]
        alone += [self.item_half, self.last]
        return [array for array in alone if array is not None] + [
            array for layer in self.layers for array in layer
        ]


def split_ranker(model: Any) -> RankerParts:
    """Take a model of ``build_rating_model`` apart, and do once what needs no pair.

    The first dense layer of a ranker sees ``[e_u, e_i]``, so that its product is a sum::

        [e_u, e_i] @ W = e_u @ W[:e] + e_i @ W[e:]

    The second term is computed here, for the whole catalogue.

    Args:
        model: of Keras 3 or tf_keras, of any of the five kinds.

    Raises:
        TypeError: not a functional model.
        ValueError: not one of the five kinds, or a dense layer is not plain.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> parts = split_ranker(build_rating_model(RatingModelConfig("mlp_ranker", 20, 30)))
        >>> parts.item_half.shape, [kernel.shape for kernel, _ in parts.layers], parts.last.shape
        ((30, 64), [(64, 32), (32, 16)], (16,))
    """
    num_users, num_items = count_ids(model)
    vectors = inner_product_vectors(model)
    if vectors is not None:
        return RankerParts(num_users, num_items, *vectors)
    layers = {layer.name: layer for layer in model.layers}
    if not {"user_embedding", "item_embedding", "concatenate", "dense_0", "score"} <= layers.keys():
        raise ValueError(
            f"model has the layers {sorted(layers)}: expected one of the five kinds that "
            "build_rating_model gives"
        )
    user_table = _table(layers["user_embedding"], num_users)
    item_table = _table(layers["item_embedding"], num_items)
    stack: list[tuple[Floats, Floats]] = []
    while (layer := layers.get(f"dense_{len(stack)}")) is not None:
        stack.append(_dense(layer))
    names = {getattr(layers[f"dense_{n}"].activation, "__name__", "?") for n in range(len(stack))}
    if len(names) > 1:
        raise ValueError(f"model has the activations {sorted(names)}: expected one for all layers")
    (kernel, bias), width = stack[0], user_table.shape[1]
    if kernel.shape[0] != width + item_table.shape[1]:
        raise ValueError(
            f"dense_0 takes {kernel.shape[0]} inputs: expected the {width} of user_embedding and "
            f"the {item_table.shape[1]} of item_embedding"
        )
    last, last_bias = _dense(layers["score"])
    last = last[:, 0]
    user_vectors = item_vectors = None
    if "user_gmf_embedding" in layers:  # neumf: score = [a_u * a_i, h] . last
        user_vectors = _table(layers["user_gmf_embedding"], num_users)
        item_vectors = _table(layers["item_gmf_embedding"], num_items)
        user_vectors = user_vectors * last[: user_vectors.shape[1]]
        last = last[user_vectors.shape[1] :]
    return RankerParts(
        num_users,
        num_items,
        user_vectors,
        item_vectors,
        user_table,
        np.ascontiguousarray(kernel[:width]),
        item_table @ kernel[width:] + bias,
        tuple(stack[1:]),
        np.ascontiguousarray(last),
        float(last_bias[0]),
        names.pop(),
    )


def _table(layer: Any, count: int) -> Floats:
    """Look all ids up, whatever the layer does for that."""
    return np.asarray(layer(np.arange(count, dtype=np.int32)), np.float32)


def _dense(layer: Any) -> tuple[Floats, Floats]:
    weights = [np.asarray(array, np.float32) for array in layer.get_weights()]
    if not weights or weights[0].ndim != 2 or len(weights) > 2:
        raise ValueError(
            f"layer {layer.name} of type {type(layer).__name__} has weights of shapes "
            f"{[array.shape for array in weights]}: expected a kernel and a bias, as Dense has"
        )
    outputs = weights[0].shape[1]
    return weights[0], weights[1] if len(weights) == 2 else np.zeros(outputs, np.float32)
