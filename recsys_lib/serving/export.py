"""Rating models as files for serving: LiteRT, ONNX and TensorFlow SavedModel.

Each file maps ``user_ids`` and ``item_ids``, both (n,) int32 for any n, to ``logits``, (n,)
float32, and knows how many users and items there are. :func:`load_scorer` opens all of them.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids
from recsys_lib.data import Interactions
from recsys_lib.serving.exported_files import (
    FACTS_NAME,
    append_facts,
    check_target,
    count_ids,
    folder_digests,
    make_facts,
    put_in_place,
)
from recsys_lib.serving.graph import plain_lookups, serving_function, write_saved_model
from recsys_lib.serving.scorers import load_scorer

__all__ = ["QUANTIZATIONS", "export_litert", "export_onnx", "export_saved_model", "load_scorer"]

QUANTIZATIONS = (None, "float16", "dynamic", "int8", "int16x8")
_CALIBRATED = ("int8", "int16x8")
_CALIBRATION_PAIRS = 2048
_ONNX_OPSET = 18
Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]


def export_saved_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as a TensorFlow SavedModel: a folder that TensorFlow Serving can load.

    Args:
        model: a functional Keras model from user and item ids, (n,) each, to (n,) logits, such as
            :func:`recsys_lib.models.build_rating_model` gives.
        path: the folder to write; a SavedModel that is there is replaced.

    Raises:
        TypeError: not such a model.
        FileNotFoundError: the folder above does not exist.
        FileExistsError: path is a folder, and not a SavedModel.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_saved_model(model, f"{folder}/ranker")
        ...     load_scorer(f"{folder}/ranker").score([0, 19], [29, 0]).shape
        (2,)
    """
    target, facts = check_target(path), make_facts(model, runtime="saved_model")

    def write(folder: Path) -> None:
        write_saved_model(model, folder)
        (folder / "assets.extra").mkdir()
        text = json.dumps(facts | {"sha256": folder_digests(folder)})
        (folder / "assets.extra" / FACTS_NAME).write_text(text, encoding="utf-8")

    put_in_place(target, write)


def export_litert(
    model: Any,
    path: str | os.PathLike[str],
    quantization: str | None = None,
    calibration: Interactions | tuple[ArrayLike, ArrayLike] | None = None,
) -> None:
    """Write a model as one LiteRT (``.tflite``) file.

    ================  ==================  ==================  =================================
    quantization      weights             arithmetic          calibration
    ================  ==================  ==================  =================================
    None              float32             float32             no
    ``"float16"``     float16             float32             no
    ``"dynamic"``     int8                int8 in the dense   no: ranges of each call
                                          layers, or float32
    ``"int8"``        int8                int8                yes
    ``"int16x8"``     int8                int16               yes
    ================  ==================  ==================  =================================

    LiteRT leaves tensors of few elements unquantized in ``"dynamic"``.

    Args:
        model: as for :func:`export_saved_model`.
        path: of the file, replaced if it is there.
        quantization: one of the above.
        calibration: pairs that the model will be asked to score, to learn from them what range the
            numbers between the layers have; up to 2,048 are used. ``(user_ids, item_ids)``, or
            Interactions: then each user is paired with a random item as well, since a served model
            scores mostly items that a user has not touched.

    Raises:
        TypeError, FileNotFoundError, FileExistsError: as for :func:`export_saved_model`.
        ValueError: an unknown quantization, missing or empty calibration, or ids out of range.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 2 (``"int8"``).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 20, 30))
        >>> export_litert(model, "ranker.tflite", "int8")
        Traceback (most recent call last):
        ValueError: calibration is None: expected Interactions or (user_ids, item_ids) for int8
    """
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization is {quantization!r}: expected one of {QUANTIZATIONS}")
    target, facts = check_target(path), make_facts(model, runtime="litert")
    pairs = _calibration_pairs(calibration, quantization, *count_ids(model))
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        write_saved_model(model, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if quantization == "int16x8":
            integers = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
            converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, integers)]
        if pairs is not None:
            converter.representative_dataset = lambda: _batches(pairs)
        content = converter.convert()
    facts |= {"quantization": quantization}
    put_in_place(target, lambda temporary: append_facts(content, facts, temporary))


def export_onnx(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model as one ONNX file, in float32.

    Args:
        model: as for :func:`export_saved_model`.
        path: of the file, replaced if it is there.

    Raises:
        TypeError, FileNotFoundError, FileExistsError: as for :func:`export_saved_model`.
        ModuleNotFoundError: tf2onnx is not installed (``pip install recsys-lib[serving]``).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(model, f"{folder}/ranker.onnx")
        ...     load_scorer(f"{folder}/ranker.onnx").score([0, 19], [29, 0]).shape
        (2,)
    """
    target, facts = check_target(path), make_facts(model, runtime="onnx")
    import tf2onnx

    function, signature = serving_function(plain_lookups(model))
    graph_model, _ = tf2onnx.convert.from_function(
        function, input_signature=signature, opset=_ONNX_OPSET
    )
    graph = graph_model.graph
    for node in graph.node:  # the converter calls the output after its operation
        for names in (node.input, node.output):
            names[:] = ["logits" if name == graph.output[0].name else name for name in names]
    graph.output[0].name = "logits"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    entry = graph_model.metadata_props.add()
    entry.key, entry.value = FACTS_NAME, json.dumps(facts)
    content = graph_model.SerializeToString()
    put_in_place(target, lambda temporary: _write_bytes(temporary, content))


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _calibration_pairs(
    calibration: Any, quantization: str | None, num_users: int, num_items: int
) -> Pairs | None:
    if quantization not in _CALIBRATED:
        return None
    expected = f"expected Interactions or (user_ids, item_ids) for {quantization}"
    if calibration is None:
        raise ValueError(f"calibration is None: {expected}")
    if isinstance(calibration, Interactions):
        rows = _spread(len(calibration), _CALIBRATION_PAIRS // 2)
        random_items = np.random.default_rng(0).integers(0, num_items, len(rows))
        users = np.repeat(calibration.user_ids[rows], 2)
        items = np.column_stack([calibration.item_ids[rows], random_items]).ravel()
    elif isinstance(calibration, tuple | list) and len(calibration) == 2:
        users, items = calibration
    else:
        raise TypeError(f"calibration is of type {type(calibration).__name__}: {expected}")
    users = check_ids("calibration user_ids", users, num_users)
    items = check_ids("calibration item_ids", items, num_items)
    if not len(users) or users.shape != items.shape:
        raise ValueError(
            f"calibration has {len(users)} user_ids and {len(items)} item_ids: "
            "expected equally many, at least one"
        )
    chosen = _spread(len(users), _CALIBRATION_PAIRS)
    return users[chosen].astype(np.int32), items[chosen].astype(np.int32)


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """Give at most ``most`` of the numbers below ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _batches(pairs: Pairs) -> Iterator[dict[str, NDArray[np.int32]]]:
    """Yield pairs one by one and by name.

    The converter sorts inputs, so that lists would swap users and items without a word, and it
    gives each input its new size in turn, so that any size but the first fails in between.
    """
    for user, item in zip(*pairs, strict=True):
        yield {"user_ids": user[None], "item_ids": item[None]}
