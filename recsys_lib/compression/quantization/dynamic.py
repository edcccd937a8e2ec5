"""Dynamic-range quantization: int8 kernels, and inputs rounded anew for each row of each call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_weights
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.quantization.uniform import (
    UniformQuantization,
    UniformTensor,
    quantize_uniform,
)
from recsys_lib.compression.report import compare_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import keras_model, named_weights, replace_keras_model
from recsys_lib.models import Recommender


def quantize_rows(inputs: ArrayLike) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round each row to whole numbers from -127 to 127, by its own largest absolute value.

    Args:
        inputs: (n, d) finite numbers.

    Returns:
        Codes (n, d) int8 and scales (n, 1); a row of zeros has scale 0.

    Example:
        >>> codes, scale = quantize_rows(np.float32([[0.5, -1.0], [0, 0]]))
        >>> codes.tolist(), (codes * scale).round(2).tolist()
        ([[64, -127], [0, 0]], [[0.5, -1.0], [0.0, 0.0]])
    """
    rows = check_weights("inputs", inputs, ndim=2)
    scale = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(rows / np.where(scale > 0, scale, np.float32(1)))
    return codes.astype(np.int8), scale


def dynamic_dense(
    inputs: ArrayLike, kernel: UniformTensor, bias: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Multiply rows by an int8 kernel in whole numbers: ``scale_row * scale_column * sums + bias``.

    Args:
        inputs: (n, d) finite numbers; each row is rounded to 8 bits.
        kernel: (d, m), 8 bits, symmetric, with a scale for each column or one in all.
        bias: (m,); None for zeros.

    Returns:
        (n, m) float32. The sums of products are exact.

    Raises:
        ValueError: another kind of kernel, or shapes that do not fit.

    Source:
        Krishnamoorthi, *Quantizing deep convolutional networks for efficient inference*, 2018,
        section 3.1 (weights only, activations on the fly).

    Example:
        >>> kernel = np.float32([[1, 0], [0.5, 2]])
        >>> stored = quantize_uniform(kernel, UniformQuantization(8, "column", symmetric=True))
        >>> dynamic_dense(np.float32([[2, 4]]), stored).round(1).tolist()
        [[4.0, 8.0]]
    """
    config = kernel.config
    if config.bits != 8 or not config.symmetric or config.granularity == "row":
        raise ValueError(f"kernel has {config}: expected 8 bits, symmetric, by column or tensor")
    codes, scale = quantize_rows(inputs)
    if len(kernel.shape) != 2 or codes.shape[1] != kernel.shape[0]:
        raise ValueError(f"inputs has shape {codes.shape}, kernel {kernel.shape}: they do not fit")
    # float64 holds these whole numbers exactly, and NumPy has a fast product for it.
    sums = codes.astype(np.float64) @ (kernel.codes.astype(np.float64) - 127)
    result = sums.astype(np.float32) * scale * kernel.scale.astype(np.float32).reshape(1, -1)
    return result if bias is None else result + np.asarray(bias, np.float32)


def quantize_dynamic(model: Any) -> CompressedModel:
    """Store a Keras model's matrices in int8 and let its dense layers multiply whole numbers.

    Kernels have a scale for each output, embedding tables one for each row; a row that is looked up
    is decoded. Each row of inputs to a dense layer is rounded to 8 bits by its own largest
    absolute value when it comes, so nothing is calibrated. Vectors, such as biases, stay float32.

    Args:
        model: a functional Keras 3 model, or a fitted KerasRecommender around one; it stays as it
            is. Dense layers must have a kernel of two dimensions in float32.

    Returns:
        A model that scores with the arithmetic above. The scores are those of int8 arithmetic; for
        the speed of it see :class:`recsys_lib.serving.candidates.CandidateScorer`.

    Raises:
        TypeError: not such a model.
        ValueError: a model that is not built, or NaN in its weights.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 200, 300))
        >>> compressed = quantize_dynamic(model)
        >>> compressed.report.ratio > 3, compressed.score([3, 4], [5, 6]).shape
        (True, (2,))
    """
    import keras

    from recsys_lib.compression.quantization.dynamic_layers import DynamicDense

    inner = keras_model(model)
    if not isinstance(inner, keras.Model):
        raise TypeError(f"model is of type {type(inner)}: expected a Keras 3 model")
    weights = named_weights(model)
    dense = {layer.name for layer in inner.layers if type(layer) is keras.layers.Dense}
    tensors: dict[str, EncodedTensor] = {}
    for name, values in weights.items():
        if values.ndim < 2:
            tensors[name] = DenseTensor(values)
            continue
        by = "column" if name.split("/")[0] in dense else "row"
        config = UniformQuantization(8, by, symmetric=True, scale_dtype="float32")
        tensors[name] = quantize_uniform(values, config)

    def replace(layer: Any) -> Any:
        kind = DynamicDense if layer.name in dense else type(layer)
        return kind.from_config(layer.get_config())

    new = keras.models.clone_model(inner, clone_function=replace)
    for layer in new.layers:
        names = [name for name in tensors if name.split("/")[0] == layer.name]
        if layer.name in dense:
            layer.set_quantized(*(tensors[name] for name in names))
        else:
            layer.set_weights([tensors[name].decode() for name in names])
    report = compare_weights("dynamic-range quantization", None, weights, tensors)
    whole = replace_keras_model(model, new) if isinstance(model, Recommender) else new
    return CompressedModel(tensors, whole, report)
