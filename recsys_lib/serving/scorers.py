"""Scorers for serving: the same methods for every runtime, and exported models opened again."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import Floats, check_ids, check_number, check_pairs, check_shape
from recsys_lib.files import LITERT_MARK, FilePath, unseal

FORMAT = "recsys_lib scorer"
_PAIRS_PER_CALL = 1 << 14
_CHECKED = 64  # pairs
_HALF_TOLERANCE = 0.05
Ids = NDArray[np.int64]


class PairScorer(ABC):
    """Scores user-item pairs; what :func:`load_scorer` opens and CandidateScorer are such.

    Attributes:
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
    """

    num_users: int
    num_items: int

    @abstractmethod
    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        """Score pairs of checked ids, (n,) and (n,) to (n,)."""

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Floats:
        """Score pairs: two (n,) integer arrays to (n,) float32 logits.

        Raises:
            TypeError: ids that are not integers.
            ValueError: ids out of range, or arrays of different length.
        """
        return self._score_pairs(*check_pairs(user_ids, item_ids, self.num_users, self.num_items))

    def score_candidates(self, user_id: int, item_ids: ArrayLike | None = None) -> Floats:
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
        given = np.arange(self.num_items) if item_ids is None else item_ids
        items = check_ids("item_ids", given, self.num_items)
        return self._score_pairs(np.repeat(users, len(items)), items)

    def score_all_items(self, user_ids: ArrayLike) -> Floats:
        """Score all items for users (b,): (b, num_items) float32 logits."""
        users = check_ids("user_ids", user_ids, self.num_users)
        items = np.arange(self.num_items)
        scores = np.empty((len(users), self.num_items), np.float32)
        for row, user in enumerate(users):
            scores[row] = self._score_pairs(np.full(len(items), user), items)
        return scores


def count_ids(model: Any) -> tuple[int, int]:
    """Return (num_users, num_items) that a rating model of finite weights has rows for.

    Args:
        model: a functional Keras model whose two inputs, user ids and item ids in this order, go
            straight into layers with an ``input_dim`` (``Embedding``); the smallest one counts.

    Raises:
        TypeError: not a functional model of two inputs.
        ValueError: an input feeds no such layer, or weights hold NaN or infinity.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> count_ids(build_rating_model(RatingModelConfig("neumf", 20, 30)))
        (20, 30)
    """
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list) or len(inputs) != 2:
        kind = type(model).__name__
        raise TypeError(f"model is a {kind}: expected a Keras model from user_ids and item_ids")
    tables = [layer for layer in model.layers if hasattr(layer, "input_dim")]
    users, items = ([int(t.input_dim) for t in tables if t.input is ids] for ids in inputs)
    if not users or not items:
        name = "item_ids" if users else "user_ids"
        raise ValueError(f"model looks {name} up in no layer with an input_dim: expected Embedding")
    for layer in model.layers:
        if not all(np.isfinite(np.asarray(w, np.float32)).all() for w in layer.get_weights()):
            raise ValueError(f"layer {layer.name!r} holds NaN or infinity: expected finite weights")
    return min(users), min(items)


def check_agrees(model: Any, scorer: PairScorer, tolerance: float, pairs: Any = None) -> None:
    """Score some pairs both ways, so that what does something else than the model is not served.

    Args:
        model: a rating model.
        scorer: made of it.
        tolerance: largest root mean square of the differences, in standard deviations of scores;
            for a model that computes in 16 bits, at least 0.05.
        pairs: user and item ids to score; None for random ones.

    Raises:
        ValueError: the scores differ by more, in their shape, or are not finite.
    """
    if pairs is None:
        random = np.random.default_rng(0)
        pairs = [random.integers(0, n, _CHECKED) for n in (scorer.num_users, scorer.num_items)]
    users, items = (np.asarray(ids[:_CHECKED], np.int32) for ids in pairs)
    expected = np.asarray(model([users, items], training=False)).astype(np.float32)
    given = scorer._score_pairs(users.astype(np.int64), items.astype(np.int64))
    check_shape("scores", given, expected.shape)
    error = float(np.sqrt(np.mean((given - expected) ** 2)))
    if any(getattr(layer, "compute_dtype", "float32") != "float32" for layer in model.layers):
        tolerance = max(tolerance, _HALF_TOLERANCE)
    allowed = tolerance * float(expected.std() + 0.02 * np.abs(expected).max()) + 1e-6
    if not error <= allowed:
        raise ValueError(f"scores of the model are off by {error:.3g}: expected {allowed:.3g}")


class ExportedScorer(PairScorer):
    """An exported model, opened; made by :func:`load_scorer`.

    One scorer may be shared by threads: calls wait for each other.

    Attributes:
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
        runtime: "litert" or "onnx".
    """

    def __init__(self, runtime: str, facts: dict[str, Any], run: Callable[..., Any]) -> None:
        self.runtime, self._run, self._lock = runtime, run, threading.Lock()
        self.num_users, self.num_items = facts["num_users"], facts["num_items"]

    def __repr__(self) -> str:
        counts = f"{self.num_users:,} users, {self.num_items:,} items"
        return f"ExportedScorer({self.runtime}, {counts})"

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        users, items = user_ids.astype(np.int32), item_ids.astype(np.int32)
        parts: list[Floats] = []
        with self._lock:
            for at in range(0, len(users), _PAIRS_PER_CALL):
                part = slice(at, at + _PAIRS_PER_CALL)
                parts.append(self._run(users[part], items[part]))
        return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _open_litert(content: bytes, facts: dict[str, Any], num_threads: int) -> ExportedScorer:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=num_threads)
    runner = interpreter.get_signature_runner("serving_default")
    places = {name: tensor["index"] for name, tensor in runner.get_input_details().items()}
    logits = runner.get_output_details()["logits"]["index"]
    prepared = -1  # number of pairs that memory is laid out for

    def run(users: NDArray[np.int32], items: NDArray[np.int32]) -> Floats:
        nonlocal prepared
        if len(users) != prepared:
            prepared = -1  # whatever happens below
            for place in places.values():
                interpreter.resize_tensor_input(place, [len(users)])
            interpreter.allocate_tensors()
            prepared = len(users)
        interpreter.set_tensor(places["user_ids"], users)
        interpreter.set_tensor(places["item_ids"], items)
        interpreter.invoke()
        return interpreter.get_tensor(logits)

    return ExportedScorer("litert", facts, run)


def _open_onnx(content: bytes, facts: dict[str, Any], num_threads: int) -> ExportedScorer:
    session = onnx_session(content, num_threads)

    def run(users: NDArray[np.int32], items: NDArray[np.int32]) -> Floats:
        return session.run(["logits"], {"user_ids": users, "item_ids": items})[0]

    return ExportedScorer("onnx", facts, run)


def onnx_session(content: bytes, num_threads: int) -> Any:
    """Return an ONNX file as ONNX Runtime has it opened."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    options.log_severity_level = 4  # errors arrive as exceptions
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def load_scorer(path: FilePath, num_threads: int = 1) -> ExportedScorer:
    """Open what export_litert or export_onnx wrote.

    The kind is found from the content. LiteRT runs in ``ai_edge_litert``, ONNX in ``onnxruntime``.
    Runtimes in one process disturb each other's threads: measure them in processes of their own.

    Args:
        path: of the file.
        num_threads: that a call may use.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, changed, or not one of ours.

    Example:
        >>> import tempfile
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> from recsys_lib.serving import export_litert
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_litert(model, f"{folder}/ranker.tflite")
        ...     load_scorer(f"{folder}/ranker.tflite")
        ExportedScorer(litert, 20 users, 30 items)
    """
    num_threads = check_number("num_threads", num_threads, 1, integer=True)
    content, facts = unseal(path, Path(path).read_bytes(), FORMAT)
    open_it = _open_litert if content[4:8] == LITERT_MARK else _open_onnx
    return open_it(content, facts, num_threads)
