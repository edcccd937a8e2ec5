"""One user, many candidates: everything that does not depend on both is computed before."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids
from recsys_lib.serving.ranker_parts import Floats, split_ranker

_ROWS = 1024  # pairs that go through the layers together: they fit in the second-level cache
_CHECKED_PAIRS = 64


def _relu(values: Floats) -> None:
    np.maximum(values, 0, out=values)


def _sigmoid(values: Floats) -> None:
    np.tanh(np.multiply(values, 0.5, out=values), out=values)
    np.add(np.multiply(values, 0.5, out=values), 0.5, out=values)


_ACTIVATIONS: dict[str, Callable[[Floats], object]] = {
    "relu": _relu,
    "linear": lambda values: None,
    "tanh": lambda values: np.tanh(values, out=values),
    "sigmoid": _sigmoid,
}


def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


class CandidateScorer:
    """Scores candidates for a user, as the Keras model does, without Keras.

    An inner product (dot_product, matrix_factorization, two_tower) becomes two tables of vectors.
    A ranker (mlp_ranker, neumf) is cut in two at its first dense layer, which is the largest: the
    item's half is computed here for the whole catalogue, the user's half once a call, so that a
    candidate costs a sum of two rows there. The other layers run in NumPy, with sums and ReLU
    compiled where Numba is installed, or on 8-bit integers in compiled code
    (:mod:`recsys_lib.serving.ranker_int8`).

    The scorer is a copy: later changes of the model do not reach it. Threads may share it.

    Args:
        model: of :func:`recsys_lib.models.build_rating_model`, of Keras 3 or tf_keras.
        precision: "float32", equal to the model up to rounding; or "int8", for mlp_ranker and
            neumf with ReLU: weights of the layers after the first in 8 bits with a scale for each
            output, activations in 8 bits with a scale for each row, sums exact. Needs Numba
            (``pip install recsys-lib[serving]``) and compiles for seconds, once.

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
        ModuleNotFoundError: "int8" without Numba.

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
        if precision not in ("float32", "int8"):
            raise ValueError(f"precision is {precision!r}: expected 'float32' or 'int8'")
        parts = split_ranker(model)
        if parts.activation not in _ACTIVATIONS:
            raise ValueError(
                f"model has the activation {parts.activation!r}: expected one of "
                f"{sorted(_ACTIVATIONS)}"
            )
        if not all(np.isfinite(array).all() for array in parts.arrays()):
            raise ValueError("model has weights of NaN or infinity: expected finite numbers")
        self.num_users, self.num_items, self.precision = parts.num_users, parts.num_items, precision
        self.nbytes = sum(array.nbytes for array in parts.arrays())
        self._parts, self._scratch = parts, threading.local()
        self._add_ranker: Callable[..., None] = self._add_float
        self._all_items, self._no_rows = np.arange(self.num_items), np.zeros(_ROWS, np.int64)
        self._compiled: Any = None
        if parts.last is not None and parts.activation == "relu" and _has_numba():
            self._compiled = importlib.import_module("recsys_lib.serving.ranker_float")
        self._check_against(model)
        if precision == "int8":
            if parts.last is None or parts.activation != "relu":
                raise ValueError(
                    "precision is 'int8': expected an mlp_ranker or neumf with relu "
                    "(TopKIndex searches inner products in 8 bits)"
                )
            if not _has_numba():
                raise ModuleNotFoundError(
                    "precision 'int8' needs Numba: pip install recsys-lib[serving]"
                )
            from recsys_lib.serving.ranker_int8 import Int8Layers

            assert parts.item_half is not None
            layers = Int8Layers(parts.item_half, parts.layers, parts.last)
            self.nbytes += layers.nbytes - sum(
                array.nbytes for layer in parts.layers for array in layer
            )
            self._add_ranker = layers.add_scores

    def __repr__(self) -> str:
        counts = f"{self.num_users:,} users, {self.num_items:,} items"
        return f"CandidateScorer({counts}, {self.precision}, {self.nbytes:,} bytes)"

    def score_candidates(
        self, user_id: int, item_ids: ArrayLike | None = None
    ) -> NDArray[np.float32]:
        """Score candidates for one user.

        Args:
            user_id: one user.
            item_ids: (n,) candidates; None for the whole catalogue, in order.

        Returns:
            (n,) float32 logits.

        Raises:
            TypeError: ids that are not integers.
            ValueError: ids out of range.
        """
        users = check_ids("user_id", [user_id], self.num_users)
        items = None if item_ids is None else check_ids("item_ids", item_ids, self.num_items)
        return self._score(users, None, items)

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs: two (n,) integer arrays to (n,) float32 logits.

        Raises:
            TypeError: ids that are not integers.
            ValueError: ids out of range, or arrays of different length.
        """
        users = check_ids("user_ids", user_ids, self.num_users)
        items = check_ids("item_ids", item_ids, self.num_items)
        if users.shape != items.shape:
            raise ValueError(
                f"user_ids has shape {users.shape}, item_ids {items.shape}: expected (n,) twice"
            )
        distinct, rows = np.unique(users, return_inverse=True)
        return self._score(distinct, rows.astype(np.int64), items)

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32 logits."""
        users = check_ids("user_ids", user_ids, self.num_users)
        parts = self._parts
        if parts.last is None and parts.user_vectors is not None and parts.item_vectors is not None:
            return parts.user_vectors[users] @ parts.item_vectors.T
        scores = np.empty((len(users), self.num_items), np.float32)
        for row in range(len(users)):
            scores[row] = self._score(users[row : row + 1], None, None)
        return scores

    def _score(
        self, users: NDArray[np.int64], rows: NDArray[np.int64] | None, items: Any
    ) -> NDArray[np.float32]:
        """Score items (None: all) for the users ``users[rows]`` (None: the only user)."""
        parts, count = self._parts, self.num_items if items is None else len(items)
        scores = np.full(count, parts.last_bias, np.float32)
        if parts.user_vectors is not None and parts.item_vectors is not None:
            vectors = parts.item_vectors if items is None else parts.item_vectors[items]
            if rows is None:
                scores += vectors @ parts.user_vectors[users[0]]
            else:
                scores += np.einsum("nd,nd->n", vectors, parts.user_vectors[users[rows]])
        if parts.user_table is not None and parts.user_kernel is not None:
            self._add_ranker(parts.user_table[users] @ parts.user_kernel, rows, items, scores)
        return scores

    def _add_float(
        self, user_halves: Floats, rows: NDArray[np.int64] | None, items: Any, scores: Floats
    ) -> None:
        """Add the ranker's part of the scores, in float32."""
        parts, activate = self._parts, _ACTIVATIONS[self._parts.activation]
        assert parts.item_half is not None and parts.last is not None
        for start in range(0, len(scores), _ROWS):
            stop = min(start + _ROWS, len(scores))
            buffers = [buffer[: stop - start] for buffer in self._buffers()]
            values = buffers[0]  # (rows, h)
            some_items = slice(start, stop) if items is None else items[start:stop]
            some_users = None if rows is None else rows[start:stop]
            self._first_layer(some_items, user_halves, some_users, values)
            for (kernel, bias), result in zip(parts.layers, buffers[1:], strict=True):
                np.matmul(values, kernel, out=result)
                if self._compiled is not None:
                    self._compiled.add_bias_relu(result, bias)
                else:
                    np.add(result, bias, out=result)
                    activate(result)
                values = result
            scores[start:stop] += values @ parts.last

    def _first_layer(
        self, items: Any, user_halves: Floats, rows: NDArray[np.int64] | None, result: Floats
    ) -> None:
        """Set (n, h) activations of the first layer; items are ids, or a slice of all."""
        item_half = self._parts.item_half
        assert item_half is not None
        if self._compiled is not None:
            ids = self._all_items[items] if isinstance(items, slice) else items
            user_rows = self._no_rows[: len(ids)] if rows is None else rows
            self._compiled.add_rows_relu(item_half, ids, user_halves, user_rows, result)
            return
        half = user_halves if rows is None else user_halves[rows]
        if isinstance(items, slice):
            np.add(item_half[items], half, out=result)
        else:
            np.take(item_half, items, axis=0, out=result, mode="clip")
            np.add(result, half, out=result)
        _ACTIVATIONS[self._parts.activation](result)

    def _buffers(self) -> list[Floats]:
        """Give this thread's memory for the activations: asking for new costs more than filling."""
        buffers = getattr(self._scratch, "buffers", None)
        if buffers is None:
            assert self._parts.item_half is not None
            widths = [self._parts.item_half.shape[1]]
            widths += [kernel.shape[1] for kernel, _ in self._parts.layers]
            buffers = self._scratch.buffers = [np.empty((_ROWS, w), np.float32) for w in widths]
        return buffers

    def _check_against(self, model: Any) -> None:
        """Score some pairs both ways, so that a model that does something else is not served."""
        random = np.random.default_rng(0)
        users = random.integers(0, self.num_users, _CHECKED_PAIRS).astype(np.int32)
        items = random.integers(0, self.num_items, _CHECKED_PAIRS).astype(np.int32)
        expected = np.asarray(model([users, items], training=False), np.float32)
        given = self.score(users, items)
        if expected.shape != given.shape or not np.allclose(given, expected, rtol=1e-3, atol=1e-4):
            raise ValueError(
                "model gives other scores than its layers by name: expected a float32 model as "
                "build_rating_model builds it"
            )
