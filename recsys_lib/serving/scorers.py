"""Exported models, opened again: the same ``score`` for every runtime."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids, check_number
from recsys_lib.serving.exported_files import (
    FACTS_NAME,
    folder_digests,
    parse_facts,
    split_facts,
)

_PAIRS_PER_CALL = 1 << 14
_LITERT_MARK = b"TFL3"  # bytes 4 to 7 of every LiteRT file


class Scorer(ABC):
    """Scores user-item pairs with an exported model; made by :func:`load_scorer`.

    One scorer may be shared by threads: calls wait for each other.

    Attributes:
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
        runtime: "litert", "onnx" or "saved_model".

    Example:
        >>> Scorer.score.__doc__.splitlines()[0]
        'Score pairs: two (n,) integer arrays to (n,) float32 logits.'
    """

    runtime = ""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.num_users, self.num_items = int(facts["num_users"]), int(facts["num_items"])
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Scorer({self.runtime}, {self.num_users:,} users, {self.num_items:,} items)"

    @abstractmethod
    def _run(
        self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]
    ) -> NDArray[np.float32]: ...

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs: two (n,) integer arrays to (n,) float32 logits.

        Raises:
            TypeError: ids that are not integers.
            ValueError: ids out of range, or arrays of different length.
        """
        users = check_ids("user_ids", user_ids, self.num_users).astype(np.int32)
        items = check_ids("item_ids", item_ids, self.num_items).astype(np.int32)
        if users.shape != items.shape:
            raise ValueError(
                f"user_ids has shape {users.shape}, item_ids {items.shape}: expected (n,) twice"
            )
        with self._lock:
            if len(users) <= _PAIRS_PER_CALL:
                return self._run(users, items) if len(users) else np.empty(0, np.float32)
            return np.concatenate(
                [
                    self._run(users[at : at + _PAIRS_PER_CALL], items[at : at + _PAIRS_PER_CALL])
                    for at in range(0, len(users), _PAIRS_PER_CALL)
                ]
            )

    def score_candidates(self, user_id: int, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score candidates (n,) for one user: (n,) float32 logits."""
        items = np.asarray(item_ids)
        return self.score(np.full(items.shape, user_id), items)

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32 logits."""
        users, items = np.asarray(user_ids), np.arange(self.num_items)
        scores = self.score(np.repeat(users, self.num_items), np.tile(items, len(users)))
        return scores.reshape(len(users), self.num_items)


class _LiteRTScorer(Scorer):
    runtime = "litert"

    def __init__(self, path: Path, num_threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        content, facts = split_facts(path)
        super().__init__(facts)
        self._interpreter = Interpreter(model_content=content, num_threads=num_threads)
        runner = self._interpreter.get_signature_runner("serving_default")
        inputs = runner.get_input_details()
        self._users, self._items = (inputs[name]["index"] for name in ("user_ids", "item_ids"))
        self._logits = runner.get_output_details()["logits"]["index"]
        self._size = -1

    def _run(self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        if len(user_ids) != self._size:
            self._size = -1  # whatever happens below
            for tensor in (self._users, self._items):
                self._interpreter.resize_tensor_input(tensor, [len(user_ids)])
            self._interpreter.allocate_tensors()
            self._size = len(user_ids)
        self._interpreter.set_tensor(self._users, user_ids)
        self._interpreter.set_tensor(self._items, item_ids)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._logits)


class _OnnxScorer(Scorer):
    runtime = "onnx"

    def __init__(self, path: Path, num_threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 4  # errors arrive as exceptions
        try:
            self._session = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has a class of its own for each failure
            raise ValueError(
                f"{path} is neither a whole ONNX nor a whole LiteRT file: expected what "
                "export_onnx or export_litert wrote, not truncated or changed"
            ) from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        super().__init__(parse_facts(path, metadata.get(FACTS_NAME)))

    def _run(self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._session.run(["logits"], {"user_ids": user_ids, "item_ids": item_ids})[0]


class _SavedModelScorer(Scorer):
    runtime = "saved_model"

    def __init__(self, path: Path) -> None:
        facts_file = path / "assets.extra" / FACTS_NAME
        text = facts_file.read_text(encoding="utf-8") if facts_file.is_file() else None
        facts = parse_facts(path, text)
        if folder_digests(path) != facts.get("sha256"):
            raise ValueError(
                f"{path} is damaged: expected the files as export_saved_model wrote them"
            )
        super().__init__(facts)
        import tensorflow as tf

        self._model = tf.saved_model.load(str(path))  # the function needs it alive
        self._function = self._model.signatures["serving_default"]
        self._to_tensor = tf.constant

    def _run(self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        ids = {"user_ids": self._to_tensor(user_ids), "item_ids": self._to_tensor(item_ids)}
        return self._function(**ids)["logits"].numpy()


def load_scorer(path: str | os.PathLike[str], num_threads: int = 1) -> Scorer:
    """Open what export_litert, export_onnx or export_saved_model wrote.

    The kind is found from the content. LiteRT runs in ``ai_edge_litert``, ONNX in ``onnxruntime``.
    Runtimes in one process disturb each other's threads: measure them in processes of their own.

    Args:
        path: of the file, or of the folder of a SavedModel. Open only files that you trust: a
            SavedModel is a program.
        num_threads: of LiteRT and ONNX Runtime; TensorFlow has its own setting for the process.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the file is truncated, changed, or not one of ours.

    Example:
        >>> import tempfile
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> from recsys_lib.serving.export import export_litert
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_litert(model, f"{folder}/ranker.tflite")
        ...     load_scorer(f"{folder}/ranker.tflite")
        Scorer(litert, 20 users, 30 items)
    """
    num_threads = check_number("num_threads", num_threads, 1, integer=True)
    path = Path(path)
    if path.is_dir():
        return _SavedModelScorer(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start[4:] == _LITERT_MARK:
        return _LiteRTScorer(path, num_threads)
    return _OnnxScorer(path, num_threads)
