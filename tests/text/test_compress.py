"""A smaller encoder: blocks, neurons and files give the vectors they should; nothing is shared."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.text import TextEncoderConfig, build_text_encoder
from recsys_lib.text.compress import (
    ExportedEncoder,
    export_text_encoder,
    keep_blocks,
    prune_text_neurons,
)
from recsys_lib.text.encoder import count_blocks, output_of_block
from recsys_lib.text.training import replace_upper_blocks, upper_blocks

CONFIG = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16, max_tokens=9)
IDS = np.array([[1, 7, 2, 0], [3, 4, 5, 6]], np.int32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)


@pytest.fixture
def model() -> Any:
    keras.utils.set_random_seed(0)
    return build_text_encoder(CONFIG)


def test_parts_give_what_they_gave_in_the_whole(model: Any) -> None:
    whole = np.asarray(model([IDS, MASK]))
    for count in range(4):
        lower = keras.Model(model.inputs, output_of_block(model, count))
        tokens = np.asarray(lower([IDS, MASK]))
        found = np.asarray(upper_blocks(model, count)([tokens, MASK]))
        np.testing.assert_allclose(found, whole, atol=1e-6)
        fewer = keep_blocks(model, count)
        assert count_blocks(fewer) == count
        mean = (tokens * MASK[:, :, None]).sum(axis=1) / MASK.sum(axis=1, keepdims=True)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(np.asarray(fewer([IDS, MASK])), mean, atol=1e-6)


def test_replaced_blocks_change_and_the_model_does_not(model: Any) -> None:
    before, upper = named_weights(model), upper_blocks(model, 2)
    upper.set_weights([values + 0.1 for values in upper.get_weights()])
    changed, top = named_weights(replace_upper_blocks(model, upper)), named_weights(upper)
    for name, now in named_weights(model).items():
        np.testing.assert_array_equal(now, before[name])
        np.testing.assert_array_equal(changed[name], top.get(name, now))


def test_dead_neurons_go_first_and_nothing_changes(model: Any) -> None:
    """Half of the neurons are not read; without them the encoder is the same function."""
    rng = np.random.default_rng(0)
    weights = named_weights(model)
    for block in (0, 1, 2):
        weights[f"block_{block}_narrow/kernel"][rng.permutation(16)[:8]] = 0
    model = with_weights(model, weights)
    before = np.asarray(model([IDS, MASK]))
    smaller = prune_text_neurons(model, 0.5)
    assert smaller.count_params() == model.count_params() - 3 * 8 * (8 + 1 + 8)
    np.testing.assert_allclose(np.asarray(smaller([IDS, MASK])), before, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(model([IDS, MASK])), before)


def test_a_factor_moved_between_layers_changes_nothing(model: Any) -> None:
    factors = np.exp(np.random.default_rng(0).normal(size=16)).astype(np.float32)
    weights, wide, narrow = named_weights(model), "block_0_wide/kernel", "block_0_narrow/kernel"
    moved = {wide: weights[wide] * factors, narrow: weights[narrow] / factors[:, None]}
    rows = []
    for one in (model, with_weights(model, moved)):
        kept = named_weights(prune_text_neurons(one, 0.5))[narrow]
        rows.append(kept / np.linalg.norm(kept, axis=1, keepdims=True))
    np.testing.assert_allclose(*rows, atol=1e-5)  # the same neurons, scaled


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_files_give_the_same_vectors(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("ai_edge_litert" if suffix == "tflite" else "tf2onnx")
    keras.utils.set_random_seed(0)
    config = TextEncoderConfig(300, 64, num_layers=1, num_heads=4, hidden_units=128, max_tokens=16)
    model = build_text_encoder(config)
    export_text_encoder(model, tmp_path / f"whole.{suffix}")
    export_text_encoder(model, tmp_path / f"small.{suffix}", "int8")
    whole, small = (ExportedEncoder(tmp_path / f"{n}.{suffix}") for n in ("whole", "small"))
    for count, width in ((3, 7), (1, 4), (3, 7), (5, 12)):  # any n and t, in any order
        rng = np.random.default_rng(width)
        mask = np.int32(np.arange(width) < rng.integers(2, width + 1, count)[:, None])
        inputs = rng.integers(1, 300, (count, width)).astype(np.int32) * mask, mask
        expected = np.asarray(model(list(inputs), training=False))
        np.testing.assert_allclose(whole(*inputs), expected, atol=2e-5)
        found = small(*inputs)
        cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)
        assert cosine.min() > 0.99
        assert np.abs(found - expected).max() > 1e-5  # it was rounded
    assert whole.nbytes > 4 * model.count_params()
    assert small.nbytes < 0.45 * whole.nbytes  # of a small model, names and graph are a good part
    with pytest.raises(ValueError, match="mask"):
        whole(np.ones((1, 3)), np.ones((1, 2)))


def test_wrong_arguments(model: Any, tmp_path: Path) -> None:
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for word, call in (
        ("count is 4", lambda: keep_blocks(model, 4)),
        ("model is a", lambda: count_blocks(other)),
        ("block_2", lambda: replace_upper_blocks(keep_blocks(model, 2), upper_blocks(model, 2))),
        ("sparsity is 1", lambda: prune_text_neurons(model, 1)),
        ("no blocks", lambda: prune_text_neurons(keep_blocks(model, 0), 0.5)),
        ("path", lambda: export_text_encoder(model, tmp_path / "a.pt")),
        ("quantization", lambda: export_text_encoder(model, tmp_path / "a.onnx", "int4")),
        ("a.onnx", lambda: ExportedEncoder(tmp_path / "a.onnx")),
        ("none", lambda: export_text_encoder(model, tmp_path / "none" / "a.tflite")),
    ):
        with pytest.raises((TypeError, ValueError, FileNotFoundError), match=word):
            call()
    assert not list(tmp_path.iterdir())
