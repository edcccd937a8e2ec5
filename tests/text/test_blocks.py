"""Parts of the encoder: equal outputs, nothing shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys_lib.text import TextEncoderConfig, build_text_encoder
from recsys_lib.text.blocks import (
    count_blocks,
    keep_blocks,
    lower_blocks,
    replace_upper_blocks,
    upper_blocks,
)

CONFIG = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16, max_tokens=9)
IDS = np.array([[1, 7, 2, 0], [3, 4, 5, 6]], np.int32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)


@pytest.fixture
def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return build_text_encoder(CONFIG)


def test_the_first_blocks_give_what_they_gave(model: Any) -> None:
    for count in range(4):
        fewer = keep_blocks(model, count)
        assert count_blocks(fewer) == count
        tokens = np.asarray(lower_blocks(model, count)([IDS, MASK]))
        np.testing.assert_array_equal(np.asarray(lower_blocks(fewer, count)([IDS, MASK])), tokens)
        mean = (tokens * MASK[:, :, None]).sum(axis=1) / MASK.sum(axis=1, keepdims=True)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(np.asarray(fewer([IDS, MASK])), mean, atol=1e-6)


def test_lower_and_upper_make_the_whole(model: Any) -> None:
    import tensorflow as tf

    whole = np.asarray(model([IDS, MASK]))
    for count in range(4):
        tokens = lower_blocks(model, count)([IDS, MASK])
        upper = upper_blocks(model, count)
        found = np.asarray(upper([tokens, tf.constant(MASK)]))
        np.testing.assert_allclose(found, whole, atol=1e-6)


def test_replaced_blocks_change_and_the_model_does_not(model: Any) -> None:
    before = [np.copy(values) for values in model.get_weights()]
    upper = upper_blocks(model, 2)
    upper.set_weights([values + 0.1 for values in upper.get_weights()])
    changed = replace_upper_blocks(model, upper)
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    first, last = "block_1_wide", "block_2_wide"
    np.testing.assert_array_equal(
        changed.get_layer(first).kernel.numpy(), model.get_layer(first).kernel.numpy()
    )
    np.testing.assert_array_equal(
        changed.get_layer(last).kernel.numpy(), upper.get_layer(last).kernel.numpy()
    )


def test_wrong_arguments(model: Any) -> None:
    import keras

    with pytest.raises(ValueError, match="count is 4: expected at most 3"):
        keep_blocks(model, 4)
    with pytest.raises(TypeError, match="expected an encoder of build_text_encoder"):
        count_blocks(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="upper has a layer 'block_2_query'"):
        replace_upper_blocks(keep_blocks(model, 2), upper_blocks(model, 2))
