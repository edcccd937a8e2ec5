"""Rating models as files for serving: LiteRT, ONNX and TensorFlow SavedModel.

Each maps ``user_ids`` and ``item_ids``, both (n,) int32 for any n, to ``logits``, (n,) float32. The
files of LiteRT and ONNX know how many users and items there are, and :func:`load_scorer` opens
them; a SavedModel is for TensorFlow Serving.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids
from recsys_lib.data import Interactions
from recsys_lib.serving.scorers import FACTS_NAME, count_ids, seal

_QUANTIZATIONS = (None, "float16", "dynamic", "int8", "int16x8")
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
        ...     (Path(folder) / "ranker" / "saved_model.pb").exists()
        True
    """
    target = check_target(path)
    count_ids(model)
    put_in_place(target, lambda temporary: _write_saved_model(model, temporary))


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
        FileNotFoundError, FileExistsError: as for :func:`export_saved_model`.
        TypeError: another kind of model; no calibration or another type.
        ValueError: an unknown quantization, empty calibration, or ids out of range.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 2 (``"int8"``).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 20, 30))
        >>> export_litert(model, "ranker.tflite", "int8")
        Traceback (most recent call last):
        TypeError: calibration is of type NoneType: expected Interactions or ...
    """
    if quantization not in _QUANTIZATIONS:
        raise ValueError(f"quantization is {quantization!r}: expected one of {_QUANTIZATIONS}")
    target = check_target(path)
    counts, pairs = count_ids(model), None
    if quantization in ("int8", "int16x8"):
        pairs = _calibration_pairs(calibration, *counts)
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        _write_saved_model(model, Path(folder))
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
        content = append_facts(converter.convert(), model)
    put_in_place(target, lambda temporary: temporary.write_bytes(content))


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
        >>> from recsys_lib.serving import load_scorer
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(model, f"{folder}/ranker.onnx")
        ...     load_scorer(f"{folder}/ranker.onnx").score([0, 19], [29, 0]).shape
        (2,)
    """
    target = check_target(path)
    count_ids(model)
    import onnx
    import tf2onnx

    function, signature = _serving_function(plain_lookups(model))
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
    content = graph_model.SerializeToString()
    # Two messages in a row are one message: the facts come behind what they are about.
    facts = onnx.StringStringEntryProto(key=FACTS_NAME, value=seal(content, model).decode())
    content += onnx.ModelProto(metadata_props=[facts]).SerializeToString()
    put_in_place(target, lambda temporary: temporary.write_bytes(content))


def _calibration_pairs(calibration: Any, num_users: int, num_items: int) -> Pairs:
    if isinstance(calibration, Interactions):
        rows = _spread(len(calibration), _CALIBRATION_PAIRS // 2)
        random_items = np.random.default_rng(0).integers(0, num_items, len(rows))
        users = np.repeat(calibration.user_ids[rows], 2)
        items = np.column_stack([calibration.item_ids[rows], random_items]).ravel()
    elif isinstance(calibration, tuple | list) and len(calibration) == 2:
        users, items = calibration
    else:
        raise TypeError(
            f"calibration is of type {type(calibration).__name__}: expected Interactions or "
            "(user_ids, item_ids) for whole numbers"
        )
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
    """Return at most ``most`` of the numbers below ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _batches(pairs: Pairs) -> Iterator[dict[str, NDArray[np.int32]]]:
    """Yield pairs one by one and by name.

    The converter sorts inputs, so that lists would swap users and items without a word, and it
    gives each input its new size in turn, so that any size but the first fails in between.
    """
    for user, item in zip(*pairs, strict=True):
        yield {"user_ids": user[None], "item_ids": item[None]}


def plain_lookups(model: Any) -> Any:
    """Return a copy of a model, with nothing but a lookup where it looks ids up.

    Keras 3 lets negative ids count from the end of a table, which takes three to six operations
    for each table; converters keep them, and LiteRT's 16-bit quantizer fails on them. A served id
    is checked before, so they go.

    Args:
        model: a functional model of Keras 3 or tf_keras, whose layers can be made from their
            config.

    Returns:
        A new model of the same namespace with the same weights; ids below 0 are an error in it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3))
        >>> [weights.shape for weights in plain_lookups(model).get_weights()]
        [(2, 32), (3, 32)]
    """
    import tensorflow as tf

    keras = importlib.import_module(type(model).__module__.split(".")[0])
    embedding = keras.layers.Embedding

    class Lookup(embedding):  # type: ignore[misc, valid-type]
        def call(self, ids: Any) -> Any:
            return tf.gather(tf.convert_to_tensor(self.embeddings), ids)

    def clone(layer: Any) -> Any:
        plain = type(layer) is embedding and not getattr(layer, "quantization_mode", None)
        return (Lookup if plain else type(layer)).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _serving_function(model: Any) -> tuple[Any, list[Any]]:
    """Return ``user_ids``, ``item_ids`` (n,) int32 to ``{"logits": (n,)}``, and its signature."""
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.int32, name=name) for name in ("user_ids", "item_ids")]

    @tf.function(autograph=False, input_signature=signature)
    def logits(user_ids: Any, item_ids: Any) -> dict[str, Any]:
        return {"logits": tf.cast(model([user_ids, item_ids], training=False), tf.float32)}

    return logits, signature


def _write_saved_model(model: Any, folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default`` of that function."""
    import tensorflow as tf

    model = plain_lookups(model)
    module = tf.Module()
    # What is tracked is stored, and frozen by converters; what is not, comes out as NaN.
    module.model_variables = [
        variable if isinstance(variable, tf.Variable) else variable.value
        for variable in model.weights
    ]
    module.serve, _ = _serving_function(model)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def check_target(path: str | os.PathLike[str]) -> Path:
    """Return the path, if a file can be put there.

    Raises:
        FileNotFoundError: its folder does not exist.
        FileExistsError: there is a folder that is no SavedModel.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}: expected an existing folder {path.parent}")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise FileExistsError(
            f"path is {path}, a folder that is no SavedModel: expected a new path"
        )
    return path


def put_in_place(path: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` make a file or folder under a temporary name, then move it to ``path``.

    Args:
        path: where to; what is there is replaced.
        write: gets the temporary path, which lies in the same folder.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    old = temporary.with_suffix(".old")
    try:
        write(temporary)
        if path.is_dir() or (temporary.is_dir() and path.exists()):  # no such move in one step
            path.rename(old)
        temporary.replace(path)
    finally:
        for leftover in (temporary, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def append_facts(content: bytes, model: Any) -> bytes:
    """Return a LiteRT file with facts about the model behind it, where every runtime skips them.

    Args:
        content: what the converter made.
        model: the Keras model that it was made of.
    """
    facts = seal(content, model)
    return content + facts + len(facts).to_bytes(8, "little")
