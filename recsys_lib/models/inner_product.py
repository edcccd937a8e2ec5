"""Two matrices out of a Keras model whose score is an inner product."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.models.factors import Factors

_ROWS_PER_BATCH = 8192


def inner_product_vectors(model: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Give the vectors whose inner product is the model's output, if there are such.

    Serving needs no model then: one matrix product scores every item. Biases become two more
    dimensions, ``a_u = [e_u, global_bias + b_u, 1]`` and ``a_i = [e_i, 1, b_i]``; towers are run
    once for all users and items.

    Args:
        model: from :func:`recsys_lib.models.build_rating_model`, of Keras 3 or of the twin; or
            :class:`recsys_lib.models.Factors` with user vectors, such as IALS or ALS.

    Returns:
        ``(user_vectors, item_vectors)``, (num_users, d) and (num_items, d) float32, with
        ``<user_vectors[u], item_vectors[i]>`` the logit of (u, i) up to rounding; None for a
        model that cannot be taken apart so (mlp_ranker, neumf, or not from this builder).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("matrix_factorization", 2, 3, 4))
        >>> [vectors.shape for vectors in inner_product_vectors(model)]
        [(2, 6), (3, 6)]
    """
    if isinstance(model, Factors):
        return _with_biases(model)
    layers = {layer.name: layer for layer in getattr(model, "layers", [])}
    if not {"user_embedding", "item_embedding", "dot", "logits"} <= layers.keys():
        return None
    users, items = (_tower(layers, side) for side in ("user", "item"))
    if "user_bias" in layers:
        user_bias = layers["user_bias"].get_weights()[0] + layers["global_bias"].offset
        item_bias = layers["item_bias"].get_weights()[0]
        users = np.hstack([users, user_bias, np.ones_like(user_bias)])
        items = np.hstack([items, np.ones_like(item_bias), item_bias])
    return np.asarray(users, np.float32), np.asarray(items, np.float32)


def _tower(layers: dict[str, Any], side: str) -> NDArray[np.float32]:
    vectors = layers[f"{side}_embedding"].get_weights()[0]
    position = 0
    while (dense := layers.get(f"{side}_dense_{position}")) is not None:
        parts = [
            np.asarray(dense(vectors[start : start + _ROWS_PER_BATCH]))
            for start in range(0, len(vectors), _ROWS_PER_BATCH)
        ]
        vectors = np.concatenate(parts)
        position += 1
    return vectors


def _with_biases(model: Factors) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    users, items = model._users(), model.item_vectors
    if model.user_biases is None and model.item_biases is None and not model.global_mean:
        return users, items
    zeros = np.zeros(len(users), np.float32), np.zeros(len(items), np.float32)
    user_bias = zeros[0] if model.user_biases is None else model.user_biases
    item_bias = zeros[1] if model.item_biases is None else model.item_biases
    users = np.column_stack([users, user_bias + np.float32(model.global_mean), zeros[0] + 1])
    return users, np.column_stack([items, zeros[1] + 1, item_bias])
