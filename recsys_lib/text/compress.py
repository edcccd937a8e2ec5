"""A smaller sentence encoder: fewer blocks, fewer neurons, and files for LiteRT and ONNX in int8.

A file maps ``token_ids`` and ``mask``, (n, t) int32 each for any n and t, to ``vectors``, (n, d).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_sparsity
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.files import LITERT_MARK, FilePath, replace_file, seal, unseal
from recsys_lib.serving.export import convert_to_onnx, plain_lookups, to_litert
from recsys_lib.serving.scorers import onnx_session
from recsys_lib.text.encoder import (
    TextEncoderConfig,
    build_text_encoder,
    copy_model,
    count_blocks,
    mean_of_tokens,
    output_of_block,
)

SUFFIXES = (".tflite", ".onnx")
_INPUTS = ("token_ids", "mask")
_FORMAT = "recsys_lib text encoder"
# How far vectors of length 1 may be off.
_TOLERANCES = {None: 1e-3, "int8": 0.5}


def keep_blocks(model: Any, count: int) -> Any:
    """Drop all blocks but the first ``count``: an encoder with the same inputs and outputs.

    Args:
        model: of :func:`recsys_lib.text.build_text_encoder`; it stays as it is.
        count: blocks that stay, from 0 (the mean of the token embeddings) to all.

    Returns:
        A new encoder with copies of the weights.

    Raises:
        TypeError, ValueError: another model, or a count out of range.

    Source:
        Sajjad et al., *On the Effect of Dropping Layers of Pre-trained Transformer Models*, 2023:
        dropping those on top does the least harm.

    Example:
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> count_blocks(keep_blocks(build_text_encoder(config), 1))
        1
    """
    import keras

    vectors = mean_of_tokens(output_of_block(model, count), model.inputs[1])
    return copy_model(keras.Model(model.inputs, vectors, name=model.name))


def prune_text_neurons(model: Any, sparsity: float) -> Any:
    """Remove the least important hidden neurons of every block.

    A neuron of a block's wide layer is a column of one kernel, a bias and a row of the next. Its
    importance here is the product of the lengths of column and row: a factor moved from one to the
    other does not change it. All blocks keep equally many. Attention stays whole.

    Args:
        model: of :func:`recsys_lib.text.build_text_encoder`; it stays as it is.
        sparsity: fraction of the neurons that go, in [0, 1); a block keeps at least one.

    Returns:
        A new, smaller encoder with the same inputs and outputs.

    Raises:
        TypeError, ValueError: another model, or a fraction out of range.

    Source:
        Li et al., *Pruning Filters for Efficient ConvNets*, ICLR 2017 (importance by length).

    Example:
        >>> config = TextEncoderConfig(50, 8, num_layers=1, num_heads=2, hidden_units=16)
        >>> smaller = prune_text_neurons(build_text_encoder(config), 0.75)
        >>> smaller.get_layer("block_0_wide").kernel.shape
        TensorShape([8, 4])
    """
    blocks = count_blocks(model)
    if not blocks:
        raise ValueError("model has no blocks: expected an encoder with at least one")
    share = 1 - check_sparsity(sparsity)
    kept = max(1, round(share * model.get_layer("block_0_wide").units))
    vocab_size, d = model.get_layer("tokens").embeddings.shape
    max_tokens = model.get_layer("positions").embeddings.shape[0]
    heads = model.get_layer("block_0_query_heads").target_shape[1]
    smaller = build_text_encoder(TextEncoderConfig(vocab_size, d, blocks, heads, kept, max_tokens))
    weights = named_weights(model)
    for block in (f"block_{n}" for n in range(blocks)):
        wide, bias, narrow = (f"{block}_{n}" for n in ("wide/kernel", "wide/bias", "narrow/kernel"))
        importance = np.linalg.norm(weights[wide], axis=0) * np.linalg.norm(weights[narrow], axis=1)
        stay = np.sort(np.argsort(-importance, kind="stable")[:kept])
        weights[wide], weights[bias] = weights[wide][:, stay], weights[bias][stay]
        weights[narrow] = weights[narrow][stay]
    return with_weights(smaller, weights)


def export_text_encoder(model: Any, path: FilePath, quantization: str | None = None) -> None:
    """Write a sentence encoder as one file for LiteRT (``.tflite``) or ONNX Runtime (``.onnx``).

    With "int8" the kernels and embedding tables are stored as whole numbers of 8 bits, and dense
    layers multiply whole numbers: what goes into a layer is rounded with the range that it has in
    this call (dynamic quantization). Between the layers numbers stay float32, because the few large
    outliers in a transformer's activations leave nothing for the rest of one fixed range. The file
    carries a checksum. It is opened and its vectors of two texts are compared with the model's
    before it takes its place: none is left that does not open or says something else.

    Args:
        model: of :func:`recsys_lib.text.build_text_encoder`, or made from one.
        path: of the file, replaced if it is there; its ending says the runtime.
        quantization: None or "int8".

    Raises:
        TypeError: another model.
        ValueError: another ending or quantization, NaN or infinity in a weight, or what the runtime
            cannot hold.
        FileNotFoundError: the folder is missing.
        ModuleNotFoundError: tf2onnx or onnxruntime is missing (``pip install
            recsys-lib[serving]``).

    Source:
        Dettmers et al., *LLM.int8()*, NeurIPS 2022 (outliers in activations).

    Example:
        >>> config = TextEncoderConfig(50, 8, num_layers=1, num_heads=2, hidden_units=16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_text_encoder(build_text_encoder(config), f"{folder}/encoder.tflite")
        ...     run = ExportedEncoder(f"{folder}/encoder.tflite")
        ...     run(np.array([[1, 7, 2]]), np.ones((1, 3))).shape
        (1, 8)
    """
    count_blocks(model)
    if quantization is not None:
        check_choice("quantization", quantization, ("int8",))
    convert = _litert if _suffix(path) == ".tflite" else _onnx
    vocab_size = len(named_weights(model)["tokens/embeddings"])
    ids = np.arange(8, dtype=np.int32).reshape(2, 4) % vocab_size
    expected = np.asarray(model([ids, np.ones_like(ids)], training=False))

    def write(temporary: Path) -> None:
        temporary.write_bytes(seal(convert(model, quantization), _FORMAT))
        found = _open(temporary, 1)(ids, np.ones_like(ids))
        error = float(np.abs(found - expected).max())
        if not error <= _TOLERANCES[quantization]:
            raise ValueError(f"vectors of the model are off by {error:.3g}: expected fewer layers")

    replace_file(path, write)


class ExportedEncoder:
    """A file of :func:`export_text_encoder`, opened.

    Args:
        path: of the file.
        num_threads: threads of the runtime.

    Attributes:
        nbytes: of the file.

    Raises:
        FileNotFoundError, ValueError: no such file; another ending, or a file that is foreign, cut
            or changed.
    """

    def __init__(self, path: FilePath, num_threads: int = 1) -> None:
        threads = check_number("num_threads", num_threads, 1, integer=True)
        _suffix(path)
        self.nbytes = Path(path).stat().st_size
        self._run = _open(Path(path), threads)

    def __call__(self, token_ids: Any, mask: Any) -> NDArray[np.float32]:
        """Return (n, d) vectors of (n, t) token ids and mask."""
        ids, present = np.asarray(token_ids, np.int32), np.asarray(mask, np.int32)
        if ids.ndim != 2 or not ids.size or present.shape != ids.shape:
            raise ValueError(f"token_ids, mask: {ids.shape}, {present.shape}, expected (n, t)")
        return self._run(ids, present)


def _suffix(path: FilePath) -> str:
    return check_choice("the ending of path", Path(path).suffix, SUFFIXES)


def _function(model: Any) -> tuple[Any, Any]:
    """A TensorFlow function of the copy of the model that is exported, and the copy."""
    import tensorflow as tf

    copy = plain_lookups(model)
    signature = [tf.TensorSpec([None, None], tf.int32, name=name) for name in _INPUTS]

    @tf.function(autograph=False, input_signature=signature)
    def encode(token_ids: Any, mask: Any) -> dict[str, Any]:
        return {"vectors": copy([token_ids, mask], training=False)}

    return encode, copy


def _litert(model: Any, quantization: str | None) -> bytes:
    return to_litert(*_function(model), quantization and "dynamic")


def _onnx(model: Any, quantization: str | None) -> bytes:
    proto = convert_to_onnx(_function(model)[0])
    if quantization is None:
        return proto.SerializeToString()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    how = {"weight_type": QuantType.QInt8, "op_types_to_quantize": ["MatMul", "Gather"]}
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "int8.onnx")
        quantize_dynamic(proto, small, per_channel=True, **how)
        return small.read_bytes()


def _open(path: Path, num_threads: int) -> Callable[..., NDArray[np.float32]]:
    content, _ = unseal(path, path.read_bytes(), _FORMAT)
    return (_open_litert if content[4:8] == LITERT_MARK else _open_onnx)(content, num_threads)


def _open_litert(content: bytes, num_threads: int) -> Callable[..., NDArray[np.float32]]:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=content, num_threads=num_threads).get_signature_runner()
    return lambda ids, mask: run(token_ids=ids, mask=mask)["vectors"]


def _open_onnx(content: bytes, num_threads: int) -> Callable[..., NDArray[np.float32]]:
    session = onnx_session(content, num_threads)
    mask_name, ids_name = sorted(inputs.name for inputs in session.get_inputs())
    return lambda ids, mask: session.run(None, {ids_name: ids, mask_name: mask})[0]
