"""The sentence encoder as a file: LiteRT and ONNX, in float32 or int8.

A file maps ``token_ids`` and ``mask``, (n, t) int32 each for any n and t, to ``vectors``, (n, d).
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.serving.export import check_target, plain_lookups, put_in_place
from recsys_lib.text.blocks import count_blocks

SUFFIXES = (".tflite", ".onnx")
QUANTIZATIONS = (None, "int8")
_ONNX_OPSET = 18
_INPUTS = ("token_ids", "mask")


def export_text_encoder(
    model: Any, path: str | os.PathLike[str], quantization: str | None = None
) -> None:
    """Write a sentence encoder as one file for LiteRT (``.tflite``) or ONNX Runtime (``.onnx``).

    With "int8" the kernels and embedding tables are stored as whole numbers of 8 bits, and dense
    layers multiply whole numbers: what goes into a layer is rounded with the range that it has in
    this call (dynamic quantization). Between the layers numbers stay float32, because the few large
    outliers in a transformer's activations leave nothing for the rest of one fixed range.

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`, or made from one.
        path: of the file, replaced if it is there; its ending says the runtime.
        quantization: None or "int8".

    Raises:
        TypeError: another model.
        ValueError: another ending or quantization.
        FileNotFoundError, FileExistsError: the folder is missing, or ``path`` is one.
        ModuleNotFoundError: tf2onnx or onnxruntime is missing (``pip install
            recsys-lib[serving]``).

    Source:
        Dettmers et al., *LLM.int8()*, NeurIPS 2022 (outliers in activations).

    Example:
        >>> from recsys_lib.text import TextEncoderConfig, build_text_encoder
        >>> config = TextEncoderConfig(50, 8, num_layers=1, num_heads=2, hidden_units=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_text_encoder(build_text_encoder(config), f"{folder}/encoder.tflite")
        ...     run = load_exported_encoder(f"{folder}/encoder.tflite")
        ...     run(np.array([[1, 7, 2]]), np.ones((1, 3))).shape
        (1, 8)
    """
    count_blocks(model)
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization is {quantization!r}: expected one of {QUANTIZATIONS}")
    target = check_target(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"path ends in {target.suffix!r}: expected one of {SUFFIXES}")
    write = _litert if target.suffix == ".tflite" else _onnx
    content = write(model, quantization)

    def put(temporary: Path) -> None:
        temporary.write_bytes(content)

    put_in_place(target, put)


class ExportedEncoder:
    """A file of :func:`export_text_encoder`, opened.

    Args:
        path: of the file.
        num_threads: threads of the runtime.

    Attributes:
        nbytes: of the file.
    """

    def __init__(self, path: str | os.PathLike[str], num_threads: int = 1) -> None:
        check_number("num_threads", num_threads, 1, integer=True)
        source = Path(path)
        if not source.is_file():
            raise FileNotFoundError(f"path is {source}: expected a file of export_text_encoder")
        if source.suffix not in SUFFIXES:
            raise ValueError(f"path ends in {source.suffix!r}: expected one of {SUFFIXES}")
        self.nbytes = source.stat().st_size
        if source.suffix == ".tflite":
            self._run = _litert_runner(source, num_threads)
        else:
            self._run = _onnx_runner(source, num_threads)

    def __call__(self, token_ids: Any, mask: Any) -> NDArray[np.float32]:
        """Give (n, d) vectors of (n, t) token ids and mask."""
        ids, present = np.asarray(token_ids, np.int32), np.asarray(mask, np.int32)
        if ids.ndim != 2 or ids.shape != present.shape or not ids.size:
            raise ValueError(
                f"token_ids has shape {ids.shape} and mask {present.shape}: expected the same "
                "(n, t), neither of them 0"
            )
        return self._run(ids, present)


def load_exported_encoder(path: str | os.PathLike[str], num_threads: int = 1) -> ExportedEncoder:
    """Open a file of :func:`export_text_encoder`.

    Raises:
        FileNotFoundError, ValueError: no such file, or another ending.
    """
    return ExportedEncoder(path, num_threads)


def _function(model: Any) -> tuple[Any, Any]:
    """Give the copy of the model that is exported, and a TensorFlow function of it."""
    import tensorflow as tf

    copy = plain_lookups(model)
    signature = [tf.TensorSpec([None, None], tf.int32, name=name) for name in _INPUTS]

    @tf.function(autograph=False, input_signature=signature)
    def encode(token_ids: Any, mask: Any) -> dict[str, Any]:
        return {"vectors": copy([token_ids, mask], training=False)}

    return copy, encode


def _litert(model: Any, quantization: str | None) -> bytes:
    import tensorflow as tf

    copy, encode = _function(model)
    module = tf.Module()
    # What is tracked is stored, and frozen by the converter; what is not, comes out as NaN.
    module.model_variables = [getattr(variable, "value", variable) for variable in copy.weights]
    module.serve = encode
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        tf.saved_model.save(module, folder, signatures={"serving_default": encode})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if quantization == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def _onnx(model: Any, quantization: str | None) -> bytes:
    import tf2onnx

    copy, encode = _function(model)
    for layer in copy.layers:
        if getattr(getattr(layer, "activation", None), "__name__", "") == "gelu":
            layer.activation = _gelu
    proto, _ = tf2onnx.convert.from_function(
        encode, input_signature=encode.input_signature, opset=_ONNX_OPSET
    )
    if quantization is None:
        return proto.SerializeToString()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        whole.write_bytes(proto.SerializeToString())
        quantize_dynamic(
            whole,
            small,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gather"],
        )
        return small.read_bytes()


def _gelu(x: Any) -> Any:
    """GELU as ONNX can say it: TensorFlow's own uses Erfc, which ONNX does not have."""
    import tensorflow as tf

    return x * (tf.math.erf(x / 2**0.5) + 1.0) * 0.5


def _litert_runner(path: Path, num_threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=num_threads)
    interpreter.allocate_tensors()  # its notices come here, at loading
    places = {}
    for detail in interpreter.get_input_details():
        places[next(name for name in _INPUTS if name in detail["name"])] = detail["index"]
    output = interpreter.get_output_details()[0]["index"]
    shape: list[tuple[int, ...]] = [()]

    def run(ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        if ids.shape != shape[0]:
            for place in places.values():
                interpreter.resize_tensor_input(place, ids.shape)
            interpreter.allocate_tensors()
            shape[0] = ids.shape
        interpreter.set_tensor(places["token_ids"], ids)
        interpreter.set_tensor(places["mask"], mask)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def _onnx_runner(path: Path, num_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {name: i.name for i in session.get_inputs() for name in _INPUTS if name in i.name}

    def run(ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        return session.run(None, {names["token_ids"]: ids, names["mask"]: mask})[0]

    return run
