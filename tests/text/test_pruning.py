"""Fewer neurons in the blocks of an encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys_lib.text import TextEncoderConfig, build_text_encoder
from recsys_lib.text.blocks import keep_blocks
from recsys_lib.text.pruning import prune_text_neurons

IDS = np.array([[1, 7, 2], [3, 4, 5]], np.int32)
MASK = np.ones((2, 3), np.int32)


@pytest.fixture
def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    config = TextEncoderConfig(50, 8, num_layers=2, num_heads=2, hidden_units=16, max_tokens=9)
    return build_text_encoder(config)


def test_dead_neurons_go_first_and_nothing_changes(model: Any) -> None:
    """Half of the neurons are not read; without them the encoder is the same function."""
    rng = np.random.default_rng(0)
    for block in (0, 1):
        layer = model.get_layer(f"block_{block}_narrow")
        kernel, bias = layer.get_weights()
        kernel[rng.permutation(16)[:8]] = 0
        layer.set_weights([kernel, bias])
    before = np.asarray(model([IDS, MASK]))
    smaller = prune_text_neurons(model, 0.5)
    assert smaller.get_layer("block_1_wide").kernel.shape == (8, 8)
    assert smaller.count_params() == model.count_params() - 2 * 8 * (8 + 1 + 8)
    np.testing.assert_allclose(np.asarray(smaller([IDS, MASK])), before, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(model([IDS, MASK])), before)


def test_a_factor_moved_between_layers_changes_nothing(model: Any) -> None:
    before = prune_text_neurons(model, 0.5)
    factors = np.exp(np.random.default_rng(0).normal(size=16)).astype(np.float32)
    wide, bias = model.get_layer("block_0_wide").get_weights()
    narrow, offset = model.get_layer("block_0_narrow").get_weights()
    model.get_layer("block_0_wide").set_weights([wide * factors, bias])
    model.get_layer("block_0_narrow").set_weights([narrow / factors[:, None], offset])
    after = prune_text_neurons(model, 0.5).get_layer("block_0_wide").bias.shape
    assert after == before.get_layer("block_0_wide").bias.shape
    first = before.get_layer("block_0_narrow").kernel.numpy()
    second = prune_text_neurons(model, 0.5).get_layer("block_0_narrow").kernel.numpy()
    cosine = (
        (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    )
    np.testing.assert_allclose(cosine, 1, atol=1e-5)  # the same neurons, scaled


def test_wrong_arguments(model: Any) -> None:
    with pytest.raises(ValueError, match=r"sparsity is 1: expected a number in \[0, 1\)"):
        prune_text_neurons(model, 1)
    with pytest.raises(ValueError, match="model has no blocks"):
        prune_text_neurons(keep_blocks(model, 0), 0.5)
