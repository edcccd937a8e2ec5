"""Rating models as files for serving: LiteRT, ONNX and TensorFlow SavedModel.

Each maps ``user_ids`` and ``item_ids``, both (n,) int32 for any n, to ``logits``, (n,) float32. The
files of LiteRT and ONNX know how many users and items there are, and :func:`load_scorer` opens
them; a SavedModel is for TensorFlow Serving.
"""

from __future__ import annotations

import importlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_type
from recsys_lib.compression.quantization.qat import calibration_rows
from recsys_lib.data import Interactions
from recsys_lib.files import FilePath, replace_file, seal, temporary_beside
from recsys_lib.serving.scorers import FORMAT, check_agrees, count_ids, load_scorer

# How far scores may be off, in their standard deviations (root mean square).
_TOLERANCES = {"float32": 1e-3, "float16": 0.02, "dynamic": 0.5, "int8": 0.5, "int16x8": 0.5}
_INT16X8 = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
_INTEGERS = {"int8": "TFLITE_BUILTINS_INT8", "int16x8": _INT16X8}
_CALIBRATION_PAIRS = 2048
_ONNX_OPSET = 18


def export_saved_model(model: Any, path: FilePath) -> None:
    """Write a model as a TensorFlow SavedModel: a folder that TensorFlow Serving can load.

    Args:
        model: a functional Keras model from user and item ids, (n,) each, to (n,) logits, such as
            :func:`recsys_lib.models.build_rating_model` gives.
        path: the folder to write, which must not be there yet: a server takes each version of a
            model from a folder of its own, such as ``ranker/1`` and ``ranker/2``.

    Raises:
        TypeError: not such a model.
        ValueError: NaN or infinity in its weights.
        FileNotFoundError: the folder above does not exist.
        FileExistsError: there is something at the path.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_saved_model(model, f"{folder}/ranker")
        ...     (Path(folder) / "ranker" / "saved_model.pb").exists()
        True
    """
    target = Path(path)
    if target.exists():
        raise FileExistsError(f"path is {path}, which is there: expected a new one")
    count_ids(model)
    with temporary_beside(target) as temporary:
        _write_saved_model(*_serving_function(model), temporary)
        temporary.rename(target)


def export_litert(
    model: Any,
    path: FilePath,
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

    LiteRT leaves tensors of few elements unquantized in ``"dynamic"``. The file is opened and some
    scores are compared with the model's before it takes its place: none is left that does not open
    or scores something else.

    Args:
        model: as for :func:`export_saved_model`.
        path: of the file, replaced if it is there.
        quantization: one of the above.
        calibration: pairs that the model will be asked to score, to learn from them what range the
            numbers between the layers have; up to 2,048 are used. ``(user_ids, item_ids)``, or
            Interactions: then each user is paired with a random item as well, since a served model
            scores mostly items that a user has not touched.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: another kind of model; no calibration or another type.
        ValueError: an unknown quantization, empty calibration, or ids out of range; NaN or infinity
            in a weight; what the format cannot hold, with the names of the layers.

    Source:
        Jacob et al., *Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference*, CVPR 2018, section 2 (``"int8"``).

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 20, 30))
        >>> export_litert(model, "ranker.tflite", "int8")
        Traceback (most recent call last):
        TypeError: calibration is of type NoneType: expected Interactions, tuple, list
    """
    if quantization is not None:
        check_choice("quantization", quantization, list(_TOLERANCES)[1:])
    counts, pairs = count_ids(model), None
    if quantization in _INTEGERS:
        check_type("calibration", calibration, (Interactions, tuple, list))
        by_name = dict(zip(("user_ids", "item_ids"), counts, strict=True))
        pairs = calibration_rows(by_name, calibration, _CALIBRATION_PAIRS)

    def convert() -> bytes:
        return append_facts(to_litert(*_serving_function(model), quantization, pairs), model)

    _write_and_try(model, path, convert, _TOLERANCES[quantization or "float32"], pairs)


def to_litert(function: Any, model: Any, quantization: Any = None, pairs: Any = None) -> bytes:
    """Return a TensorFlow function of a model as LiteRT; see :func:`export_litert`."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        _write_saved_model(function, model, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantization is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization in _INTEGERS:
            operations = getattr(tf.lite.OpsSet, _INTEGERS[quantization])
            converter.target_spec.supported_ops = [operations]
        if pairs is not None:
            converter.representative_dataset = lambda: _batches(pairs)
        return converter.convert()


def export_onnx(model: Any, path: FilePath) -> None:
    """Write a model as one ONNX file, in float32; tried before it takes its place, as LiteRT.

    Args:
        model: as for :func:`export_saved_model`.
        path: of the file, replaced if it is there.

    Raises:
        TypeError, ValueError, FileNotFoundError: as for :func:`export_litert`.
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
    count_ids(model)
    _write_and_try(model, path, lambda: _to_onnx(model), _TOLERANCES["float32"])


def _to_onnx(model: Any) -> bytes:
    graph_model = convert_to_onnx(_serving_function(model)[0])
    graph = graph_model.graph
    for node in graph.node:  # the converter calls the output after its operation
        for names in (node.input, node.output):
            names[:] = ["logits" if name == graph.output[0].name else name for name in names]
    graph.output[0].name = "logits"
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    return append_facts(graph_model.SerializeToString(), model)


def convert_to_onnx(function: Any) -> Any:
    """Return a TensorFlow function as an ONNX model.

    ONNX has no complement of the error function, which TensorFlow's gelu is made of: it is written
    as ``1 - erf(x)``.
    """
    import tf2onnx

    def erfc(graph: Any, node: Any, name: str, args: Any) -> None:
        dtype, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
        graph.remove_node(node.name)
        one = graph.make_const(f"{name}_one", np.ones((), np.float32)).output[0]
        erf = graph.make_node("Erf", node.input, dtypes=[dtype], shapes=[shape]).output[0]
        numbers = {"dtypes": [dtype], "shapes": [shape]}
        graph.make_node("Sub", [one, erf], name=name, outputs=node.output, **numbers)

    own: dict[str, Any] = {"opset": _ONNX_OPSET, "custom_op_handlers": {"Erfc": (erfc, [])}}
    return tf2onnx.convert.from_function(function, function.input_signature, **own)[0]


def _write_and_try(
    model: Any, path: Any, convert: Any, tolerance: float, pairs: Any = None
) -> None:
    """Convert, write, open and compare; leave no file, and name the layers, if that fails."""

    def write(temporary: Path) -> None:
        try:
            temporary.write_bytes(convert())
            check_agrees(model, load_scorer(temporary), tolerance, pairs)
        except (ImportError, OSError):
            raise
        except Exception as error:  # each converter and runtime has classes of its own
            why = str(error.__cause__ or error)
            names = [layer.name for layer in model.layers]
            blamed = [name for name in names if f"/{name}" in why] or names
            raise ValueError(f"model cannot be exported for its layers {blamed}: {why}") from error

    replace_file(path, write)


def _batches(pairs: Any) -> Iterator[dict[str, NDArray[np.int32]]]:
    """Yield pairs one by one and by name.

    The converter sorts inputs, so that lists would swap users and items without a word, and it
    gives each input its new size in turn, so that any size but the first fails in between.
    """
    for user, item in zip(*pairs, strict=True):
        yield {"user_ids": user[None], "item_ids": item[None]}


def plain_lookups(model: Any) -> Any:
    """Return a copy of a model in float32, with nothing but a lookup where it looks ids up.

    Keras 3 lets negative ids count from the end of a table, which takes three to six operations
    for each table; converters keep them, and LiteRT's 16-bit quantizer fails on them. A served id
    is checked before, so they go.

    Args:
        model: a functional model of Keras 3 or tf_keras, whose layers can be made from their
            config. One that computes in 16 bits does so in float32 in the copy: converters and
            runtimes have few operations of 16 bits.

    Returns:
        A new model of the same namespace with the same weights; ids below 0 are an error in it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3))
        >>> [weights.shape for weights in plain_lookups(model).get_weights()]
        [(2, 64), (3, 64)]
    """
    import tensorflow as tf

    keras = importlib.import_module(type(model).__module__.split(".")[0])
    embedding = keras.layers.Embedding

    class Lookup(embedding):  # type: ignore[misc, valid-type]
        def call(self, ids: Any) -> Any:
            return tf.gather(tf.convert_to_tensor(self.embeddings), ids)

    def clone(layer: Any) -> Any:
        config, quantized = layer.get_config(), getattr(layer, "quantization_mode", None)
        if not quantized and getattr(layer, "compute_dtype", "float32") != "float32":
            config["dtype"] = "float32"
        plain = type(layer) is embedding and not quantized
        return (Lookup if plain else type(layer)).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _serving_function(model: Any) -> tuple[Any, Any]:
    """Return ``user_ids``, ``item_ids`` (n,) int32 to ``{"logits": (n,)}``, and its model."""
    import tensorflow as tf

    copy = plain_lookups(model)
    signature = [tf.TensorSpec([None], tf.int32, name=name) for name in ("user_ids", "item_ids")]

    @tf.function(autograph=False, input_signature=signature)
    def logits(user_ids: Any, item_ids: Any) -> dict[str, Any]:
        return {"logits": tf.cast(copy([user_ids, item_ids], training=False), tf.float32)}

    return logits, copy


def _write_saved_model(function: Any, model: Any, folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default`` of a function of a model."""
    import tensorflow as tf

    module = tf.Module()
    # What is tracked is stored, and frozen by converters; what is not, comes out as NaN.
    module.model_variables = [
        variable if isinstance(variable, tf.Variable) else variable.value
        for variable in model.weights
    ]
    module.serve = function
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})


def append_facts(content: bytes, model: Any) -> bytes:
    """Return a LiteRT or ONNX file with its numbers of ids and its checksum behind it.

    Args:
        content: what the converter made.
        model: the Keras model that it was made of.
    """
    num_users, num_items = count_ids(model)
    return seal(content, FORMAT, num_users=num_users, num_items=num_items)
