"""Neurons out of a sentence encoder: narrower dense layers inside its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from recsys_lib.checks import check_sparsity
from recsys_lib.text.blocks import count_blocks
from recsys_lib.text.encoder import TextEncoderConfig, build_text_encoder


def prune_text_neurons(model: Any, sparsity: float) -> Any:
    """Remove the least important hidden neurons of every block.

    A neuron of a block's wide layer is a column of one kernel, a bias and a row of the next. Its
    importance here is the product of the lengths of column and row: a factor moved from one to the
    other does not change it. All blocks keep equally many. Attention stays whole.

    Args:
        model: of :func:`recsys_lib.models.build_text_encoder`.
        sparsity: fraction of the neurons that go, in [0, 1); a block keeps at least one.

    Returns:
        A new, smaller encoder with the same inputs and outputs; ``model`` stays as it is.

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
    check_sparsity(sparsity)
    blocks = count_blocks(model)
    if not blocks:
        raise ValueError("model has no blocks: expected an encoder with at least one")
    hidden = model.get_layer("block_0_wide").kernel.shape[1]
    kept = max(1, round((1 - sparsity) * hidden))
    vocab_size, d = model.get_layer("tokens").embeddings.shape
    config = TextEncoderConfig(
        vocab_size,
        d,
        num_layers=blocks,
        num_heads=model.get_layer("block_0_attention").num_heads,
        hidden_units=kept,
        max_tokens=model.get_layer("positions").embeddings.shape[0],
    )
    smaller = build_text_encoder(config)
    for layer in smaller.layers:
        if layer.weights and not layer.name.endswith(("_wide", "_narrow")):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    for block in range(blocks):
        wide, bias = model.get_layer(f"block_{block}_wide").get_weights()
        narrow, offset = model.get_layer(f"block_{block}_narrow").get_weights()
        importance = np.linalg.norm(wide, axis=0) * np.linalg.norm(narrow, axis=1)
        stay = np.sort(np.argsort(-importance, kind="stable")[:kept])
        smaller.get_layer(f"block_{block}_wide").set_weights([wide[:, stay], bias[stay]])
        smaller.get_layer(f"block_{block}_narrow").set_weights([narrow[stay], offset])
    return smaller
