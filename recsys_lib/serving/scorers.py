"""Scorers for serving: the same methods for every runtime, and exported models opened again."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids, check_number

FORMAT, FORMAT_VERSION, FACTS_NAME = "recsys_lib scorer", 1, "recsys_lib.json"
_PAIRS_PER_CALL = 1 << 14
_LITERT_MARK = b"TFL3"  # bytes 4 to 7 of every LiteRT file
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
    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> NDArray[np.float32]:
        """Score pairs of checked ids, (n,) and (n,) to (n,)."""

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
        return self._score_pairs(users, items)

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
        given = np.arange(self.num_items) if item_ids is None else item_ids
        items = check_ids("item_ids", given, self.num_items)
        return self._score_pairs(np.repeat(users, len(items)), items)

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32 logits."""
        users = check_ids("user_ids", user_ids, self.num_users)
        items = np.arange(self.num_items)
        scores = np.empty((len(users), self.num_items), np.float32)
        for row, user in enumerate(users):
            scores[row] = self._score_pairs(np.full(len(items), user), items)
        return scores


def count_ids(model: Any) -> tuple[int, int]:
    """Return (num_users, num_items) that a rating model has rows for.

    Args:
        model: a functional Keras model whose two inputs, user ids and item ids in this order, go
            straight into layers with an ``input_dim`` (``Embedding``); the smallest one counts.

    Raises:
        TypeError: not a functional model of two inputs.
        ValueError: an input feeds no such layer.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> count_ids(build_rating_model(RatingModelConfig("neumf", 20, 30)))
        (20, 30)
    """
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list) or len(inputs) != 2:
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a functional Keras model with the "
            "inputs user_ids and item_ids, such as build_rating_model gives"
        )
    tables = [layer for layer in model.layers if hasattr(layer, "input_dim")]
    users, items = ([int(t.input_dim) for t in tables if t.input is ids] for ids in inputs)
    if not users or not items:
        raise ValueError(
            f"model looks {'item_ids' if users else 'user_ids'} up in no layer with an input_dim: "
            "expected an Embedding, as in the models of build_rating_model"
        )
    return min(users), min(items)


class ExportedScorer(PairScorer):
    """An exported model, opened; made by :func:`load_scorer`.

    One scorer may be shared by threads: calls wait for each other.

    Attributes:
        num_users: user ids are in [0, num_users).
        num_items: item ids are in [0, num_items).
        runtime: "litert", "onnx" or "saved_model".
    """

    runtime = ""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.num_users, self.num_items = facts["num_users"], facts["num_items"]
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        counts = f"{self.num_users:,} users, {self.num_items:,} items"
        return f"ExportedScorer({self.runtime}, {counts})"

    @abstractmethod
    def _run(
        self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]
    ) -> NDArray[np.float32]: ...

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> NDArray[np.float32]:
        users, items = user_ids.astype(np.int32), item_ids.astype(np.int32)
        parts = [np.empty(0, np.float32)]
        with self._lock:
            for at in range(0, len(users), _PAIRS_PER_CALL):
                part = slice(at, at + _PAIRS_PER_CALL)
                parts.append(self._run(users[part], items[part]))
        return parts[1] if len(parts) == 2 else np.concatenate(parts)


class _LiteRTScorer(ExportedScorer):
    runtime = "litert"

    def __init__(self, path: Path, num_threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        text, content = None, path.read_bytes()
        try:
            with zipfile.ZipFile(path) as archive:
                text = archive.read(FACTS_NAME)
        except (zipfile.BadZipFile, KeyError, RuntimeError, ValueError, OSError):
            pass  # no facts, which is said below
        facts = _parse_facts(path, text)
        content = content[: facts.get("model_bytes", 0)]
        if hashlib.sha256(content).hexdigest() != facts.get("sha256"):
            raise ValueError(f"{path} is damaged: expected the file as export_litert wrote it")
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


class _OnnxScorer(ExportedScorer):
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
        super().__init__(_parse_facts(path, metadata.get(FACTS_NAME)))

    def _run(self, user_ids: NDArray[np.int32], item_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        return self._session.run(["logits"], {"user_ids": user_ids, "item_ids": item_ids})[0]


class _SavedModelScorer(ExportedScorer):
    runtime = "saved_model"

    def __init__(self, path: Path) -> None:
        facts_file = path / "assets.extra" / FACTS_NAME
        facts = _parse_facts(path, facts_file.read_bytes() if facts_file.is_file() else None)
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


def load_scorer(path: str | os.PathLike[str], num_threads: int = 1) -> ExportedScorer:
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
        >>> from recsys_lib.serving import export_litert
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_litert(model, f"{folder}/ranker.tflite")
        ...     load_scorer(f"{folder}/ranker.tflite")
        ExportedScorer(litert, 20 users, 30 items)
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


def folder_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file of a SavedModel but the facts, by relative name."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != FACTS_NAME
    }


def _parse_facts(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """Read facts back; ValueError where they are missing, damaged, or of a newer format."""
    try:
        facts = json.loads(text or b"")
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(
            f"{path} has no facts of a {FORMAT}: expected a whole file written by export_litert, "
            "export_onnx or export_saved_model"
        )
    version = facts.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r}, this recsys_lib reads {FORMAT_VERSION}: "
            "expected another file or another recsys_lib"
        )
    if not all(isinstance(facts.get(key), int) for key in ("num_users", "num_items")):
        raise ValueError(f"{path} is damaged: expected num_users and num_items in its facts")
    return facts
