"""How a KerasRecommender trains where nobody said how: chosen from the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from recsys_lib.data import Interactions
from recsys_lib.models import inner_product_vectors
from recsys_lib.training.forward import KerasScorer
from recsys_lib.training.held_out import hold_out, judge, popularity_ndcg

_INNER_PRODUCT_USERS, _OTHER_PAIRS = 2000, 2_000_000


class Automatic(NamedTuple):
    """What to train on and how; the NDCG@10 of popularity on the part that is held out."""

    train: Interactions
    options: dict[str, Any]
    popularity: float | None


def automatic(model: Any, interactions: Interactions, given: dict[str, Any]) -> Automatic:
    """Choose the options of ``fit`` that are not given, and hold a part out to stop by.

    Args:
        model: the Keras model to train.
        interactions: what the recommender is fitted to.
        given: options of ``fit`` that somebody chose.
    """
    import keras

    options: dict[str, Any] = {
        "objective": "sampled_softmax",
        "epochs": 100,
        "patience": 10,
    } | given
    factors = inner_product_vectors(model) is not None
    size = int(np.clip(len(interactions) // 50, 256, 8192))
    options = {"batch_size": 1 << (size.bit_length() - 1)} | options
    if options["objective"] == "squared_error":
        options = {"optimizer": keras.optimizers.Adam(0.003), "l2": 0.1} | options
    else:
        options = {"optimizer": keras.optimizers.Adam(0.01)} | options
        # A large catalogue needs more of them; where each goes through layers, 16 are enough.
        many = int(np.clip(interactions.num_items // 600, 16, 64)) if factors else 16
        options = {"negatives_per_positive": many} | options
        # fit shrinks a user's row for each item drawn; what occurs more often needs less of it.
        of_ids = (interactions.user_ids, interactions.item_ids)
        of_user, of_item = (len(ids) / max(1, np.unique(ids).size) for ids in of_ids)
        l2 = min(0.015, 0.06 / max(of_user, 1) ** 0.5, 0.08 / max(of_item, 1) ** 0.5)
        options = {"l2": 17 / (1 + options["negatives_per_positive"]) * l2} | options
        _start_from_popularity(model, interactions)
    if "validation" in given:
        return Automatic(interactions, options, None)
    most = _INNER_PRODUCT_USERS if factors else _OTHER_PAIRS // interactions.num_items
    most = max(1, min(most, len(interactions) // 10))
    train, held = hold_out(interactions, 0.0, most, options.get("seed", 0))
    if held is None:
        del options["patience"]
        return Automatic(interactions, options | {"epochs": 20}, None)
    if options["objective"] == "squared_error" or "metric" in given:
        return Automatic(train, options | {"validation": held}, None)
    judged = {"metric": "ndcg", "lower_is_better": False}
    options |= judged | {"validation": _judged_by(train, held)}
    return Automatic(train, options, popularity_ndcg(train, held))


def _judged_by(train: Interactions, held: Interactions) -> Callable[[Any], float]:
    return lambda model: judge(_Scores(model), train, held)


class _Scores:
    """All items' scores by one matrix product, where the model is an inner product."""

    def __init__(self, model: Any) -> None:
        vectors = inner_product_vectors(model)
        if vectors is None:
            self.score = KerasScorer(model).score
        else:
            self.score_all_items = lambda users: vectors[0][users] @ vectors[1].T


def _start_from_popularity(model: Any, interactions: Interactions) -> None:
    """Let the items' biases start at the logarithm of their counts, the best constant softmax."""
    if any(layer.name == "item_bias" for layer in model.layers):
        counts = np.bincount(interactions.item_ids, minlength=interactions.num_items)
        biases = np.log((counts + 1.0) / (counts + 1.0).mean())[:, None]
        model.get_layer("item_bias").set_weights([biases.astype(np.float32)])
