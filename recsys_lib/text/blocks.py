"""The sentence encoder in parts: its lower blocks, its upper blocks, fewer blocks.

All functions give new models with copies of the weights; the encoder that they are given stays as
it is. Names of layers stay, too, so that weights can be carried from one to the other by name.
"""

from __future__ import annotations

from typing import Any

from recsys_lib.checks import check_number


def count_blocks(model: Any) -> int:
    """Count the blocks of a sentence encoder.

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`, or made from one.

    Raises:
        TypeError: another model.

    Example:
        >>> from recsys_lib.text import TextEncoderConfig, build_text_encoder
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> count_blocks(build_text_encoder(config))
        3
    """
    names = [layer.name for layer in getattr(model, "layers", [])]
    blocks = sum(name.startswith("block_") and name.endswith("_output_norm") for name in names)
    if "vectors" not in names or "input_norm" not in names:
        raise TypeError(
            f"model is of type {type(model).__name__}: expected an encoder of build_text_encoder"
        )
    return blocks


def keep_blocks(model: Any, count: int) -> Any:
    """Drop all blocks but the first ``count``: an encoder with the same inputs and outputs.

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`.
        count: blocks that stay, from 0 (the mean of the token embeddings) to all.

    Returns:
        A new encoder.

    Raises:
        TypeError, ValueError: another model, or a count out of range.

    Source:
        Sajjad et al., *On the Effect of Dropping Layers of Pre-trained Transformer Models*, 2023:
        dropping those on top does the least harm.

    Example:
        >>> from recsys_lib.text import TextEncoderConfig, build_text_encoder
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> count_blocks(keep_blocks(build_text_encoder(config), 1))
        1
    """
    import keras

    from recsys_lib.text.layers import MeanOfTokens

    tokens, mask = _output_of(model, count), model.inputs[1]
    vectors = MeanOfTokens(name="vectors")([tokens, mask])
    return _copy(keras.Model(model.inputs, vectors, name=model.name))


def lower_blocks(model: Any, count: int) -> Any:
    """Give the part below: ``[token_ids, mask]`` (n, t) to the tokens after ``count`` blocks.

    While only the blocks above are trained, its output (n, t, d) is computed once for each text.

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`.
        count: blocks, from 0 (the embeddings, normalized) to all.

    Raises:
        TypeError, ValueError: as for :func:`keep_blocks`.
    """
    import keras

    return _copy(keras.Model(model.inputs, _output_of(model, count), name="lower"))


def upper_blocks(model: Any, count: int) -> Any:
    """Give the part above: ``[tokens (n, t, d), mask (n, t)]`` to vectors (n, d).

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`.
        count: blocks that are left out below.

    Raises:
        TypeError, ValueError: as for :func:`keep_blocks`.

    Example:
        >>> import numpy as np
        >>> from recsys_lib.text import TextEncoderConfig, build_text_encoder
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> whole = build_text_encoder(config)
        >>> ids, mask = np.array([[1, 7, 2]]), np.ones((1, 3), np.int32)
        >>> tokens = lower_blocks(whole, 2).predict([ids, mask], verbose=0)
        >>> vectors = upper_blocks(whole, 2).predict([tokens, mask], verbose=0)
        >>> bool(np.allclose(vectors, whole([ids, mask]), atol=1e-6))
        True
    """
    import keras

    below = [_output_of(model, count), model.inputs[1]]
    return _copy(keras.Model(below, model.outputs[0], name="upper"))


def replace_upper_blocks(model: Any, upper: Any) -> Any:
    """Put trained upper blocks back: a new encoder, with the weights of ``upper`` where it has any.

    Args:
        model: the encoder that ``upper`` was cut from.
        upper: of :func:`upper_blocks`.

    Raises:
        ValueError: ``upper`` has a layer that the model does not have.
    """
    whole = _copy(model)
    known = {layer.name: layer for layer in whole.layers}
    for layer in upper.layers:
        if layer.weights:
            if layer.name not in known:
                raise ValueError(f"upper has a layer {layer.name!r}: expected those of model")
            known[layer.name].set_weights(layer.get_weights())
    return whole


def _output_of(model: Any, count: int) -> Any:
    blocks = count_blocks(model)
    check_number("count", count, 0, integer=True)
    if count > blocks:
        raise ValueError(f"count is {count}: expected at most {blocks}, the blocks of the model")
    name = f"block_{count - 1}_output_norm" if count else "input_norm"
    return model.get_layer(name).output


def _copy(model: Any) -> Any:
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
