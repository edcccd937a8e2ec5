"""One user, many candidates: everything that does not depend on both is computed before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys_lib.checks import Floats, Ids, check_choice
from recsys_lib.models import inner_product_vectors
from recsys_lib.serving.scorers import PairScorer, check_agrees, count_ids

_ROWS = 1024  # pairs that go through the layers together: they fit in the second-level cache
_TOLERANCE = 1e-3  # in standard deviations of the scores


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "relu": lambda values: np.maximum(values, 0, out=values),
    "linear": lambda values: values,
    "tanh": np.tanh,
    "sigmoid": lambda values: np.tanh(values * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5),
}


@dataclass(frozen=True, eq=False)
class RankerParts:
    """A Keras rating model, taken apart; any of the two halves of a score may be missing.

    The logit of (u, i) is ``<user_vectors[u], item_vectors[i]>`` plus
    ``last . h(activation(user_half[u] + item_half[i])) + last_bias``, where h are the layers after
    the first, each followed by the activation.

    Args:
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
        """Return all arrays, for counting bytes."""
        alone = [array for array in vars(self).values() if isinstance(array, np.ndarray)]
        return alone + [array for layer in self.layers for array in layer]


def split_ranker(model: Any) -> RankerParts:
    """Take a model of ``build_rating_model`` apart, and do once what needs no pair.

    The first dense layer of a ranker sees ``[a_u, h_i]``, so that its product is a sum::

        [a_u, h_i] @ W = a_u @ W[:d] + h_i @ W[d:]

    The second term is computed here, for the whole catalogue.

    Args:
        model: of Keras 3 or tf_keras, of any of the five kinds.

    Raises:
        ValueError: not one of the five kinds.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> parts = split_ranker(build_rating_model(RatingModelConfig("mlp_ranker", 20, 30)))
        >>> parts.item_half.shape, [kernel.shape for kernel, _ in parts.layers], parts.last.shape
        ((30, 64), [(64, 32), (32, 16)], (16,))
    """
    if (vectors := inner_product_vectors(model)) is not None:
        return RankerParts(*vectors)
    layers = {layer.name: layer for layer in model.layers}
    if not {"user_embedding", "item_embedding", "concatenate", "dense_0", "score"} <= layers.keys():
        raise ValueError(f"model has layers {list(layers)}: expected those of build_rating_model")
    user_table = _table(layers["user_embedding"])
    item_table = _table(layers["item_embedding"])
    dense = [layers[f"dense_{n}"] for n in range(len(layers)) if f"dense_{n}" in layers]
    names = {getattr(layer.activation, "__name__", "?") for layer in dense}
    if len(names) > 1 or not names <= _ACTIVATIONS.keys():
        raise ValueError(f"model has activations {names}: expected one of {list(_ACTIVATIONS)}")
    (kernel, bias), *others = [_weights(layer) for layer in dense]
    user_kernel, item_kernel = np.split(kernel, [user_table.shape[1]])
    item_half = item_table @ item_kernel + bias
    last, (last_bias,) = _weights(layers["score"])
    last, user_vectors, item_vectors = last[:, 0].copy(), None, None
    if "user_gmf_embedding" in layers:  # neumf: score = [a'_u * h'_i, f] . last
        user_vectors = _table(layers["user_gmf_embedding"])
        item_vectors = _table(layers["item_gmf_embedding"])
        weights, last = np.split(last, [user_vectors.shape[1]])
        user_vectors = user_vectors * weights
    half = (user_table, user_kernel, item_half, tuple(others), last, float(last_bias))
    return RankerParts(user_vectors, item_vectors, *half, names.pop())


def _table(layer: Any) -> Floats:
    """Look all ids up, whatever the layer does for that."""
    return np.asarray(layer(np.arange(layer.input_dim, dtype=np.int32))).astype(np.float32)


def _weights(layer: Any) -> tuple[Floats, Floats]:
    kernel, *bias = (np.asarray(array, np.float32) for array in layer.get_weights())
    return kernel, bias[0] if bias else np.zeros(kernel.shape[1], np.float32)


class CandidateScorer(PairScorer):
    """Scores candidates for a user, as the Keras model does, without Keras.

    An inner product (dot_product, matrix_factorization, two_tower) becomes two tables of vectors.
    A ranker (mlp_ranker, neumf) is cut in two at its first dense layer, which is the largest: the
    item's half is computed here for the whole catalogue, the user's half once a call, so that a
    candidate costs a sum of two rows there. The other layers run in NumPy, or on 8-bit integers in
    compiled code (:mod:`recsys_lib.serving.ranker_int8`).

    The scorer is a copy: later changes of the model do not reach it. Threads may share it.

    Args:
        model: of :func:`recsys_lib.models.build_rating_model`, of Keras 3 or tf_keras.
        precision: "float32", equal to the model up to rounding; or "int8", for mlp_ranker and
            neumf with ReLU: weights of the layers after the first in 8 bits with a scale for each
            output, activations in 8 bits with a scale for each row, sums exact. Compiles for
            seconds, once. (:class:`TopKIndex` searches inner products in 8 bits.)

    Attributes:
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
        precision: as passed.
        nbytes: bytes of all tables and weights.

    Raises:
        TypeError: not a functional model.
        ValueError: a model that is not of the five kinds, changes the order of operations, or has
            NaN or infinity in its weights; an activation other than relu, linear, tanh, sigmoid;
            an unknown precision, or "int8" for a model without it.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 2 ("int8").

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 20, 30))
        >>> scorer = CandidateScorer(model)
        >>> candidates = np.array([4, 29, 0])
        >>> scores = scorer.score_candidates(7, candidates)
        >>> bool(np.allclose(scores, model([np.full(3, 7), candidates]), atol=1e-5))
        True
    """

    def __init__(self, model: Any, *, precision: str = "float32") -> None:
        self.precision = check_choice("precision", precision, ("float32", "int8"))
        self.num_users, self.num_items = count_ids(model)
        self._parts = parts = split_ranker(model)
        self.nbytes = sum(array.nbytes for array in parts.arrays())
        self._add_layers = self._add_float
        check_agrees(model, self, _TOLERANCE)
        if precision == "int8":
            if parts.last is None or parts.activation != "relu":
                raise ValueError("precision is 'int8': expected an mlp_ranker or neumf with relu")
            from recsys_lib.serving.ranker_int8 import add_scores, pack_layers

            packed, item_half, last = pack_layers(parts.layers), parts.item_half, parts.last
            self.nbytes += sum(array.nbytes for array in packed[1:])
            self.nbytes -= sum(array.nbytes for layer in parts.layers for array in layer)
            self._add_layers = lambda scores, items, halves, rows: add_scores(
                scores, item_half, items, halves, rows, *packed, last
            )

    def __repr__(self) -> str:
        counts = f"{self.num_users:,} users, {self.num_items:,} items"
        return f"CandidateScorer({counts}, {self.precision}, {self.nbytes:,} bytes)"

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        parts = self._parts
        scores = np.full(len(item_ids), parts.last_bias, np.float32)
        if len(user_ids) and (user_ids == user_ids[0]).all():
            users, rows = user_ids[:1], np.zeros(len(user_ids), np.int64)
        else:
            users, rows = np.unique(user_ids, return_inverse=True)
        if parts.user_vectors is not None and parts.item_vectors is not None:
            vectors = parts.item_vectors[item_ids]
            if len(users) == 1:  # a product is faster than a sum for each pair
                scores += vectors @ parts.user_vectors[users[0]]
            else:
                scores += np.einsum("nd,nd->n", vectors, parts.user_vectors[user_ids])
        if parts.user_table is not None and parts.user_kernel is not None:
            self._add_layers(scores, item_ids, parts.user_table[users] @ parts.user_kernel, rows)
        return scores

    def _add_float(self, scores: Floats, items: Ids, halves: Floats, rows: Ids) -> None:
        """Add what the layers say about pairs of ``halves[rows]`` and items, in float32."""
        parts, activate = self._parts, _ACTIVATIONS[self._parts.activation]
        assert parts.item_half is not None and parts.last is not None
        for start in range(0, len(scores), _ROWS):
            part = slice(start, start + _ROWS)
            values = parts.item_half.take(items[part], axis=0)  # (rows, h)
            values += halves if len(halves) == 1 else halves[rows[part]]
            values = activate(values)
            for kernel, bias in parts.layers:
                values = values @ kernel
                values += bias
                values = activate(values)
            scores[part] += values @ parts.last
