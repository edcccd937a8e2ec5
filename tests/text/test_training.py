"""Training upper blocks: it acts, on them alone, and the cache changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys_lib.text import TextEncoder, TextEncoderConfig, build_text_encoder
from recsys_lib.text.rating import ridge
from recsys_lib.text.training import (
    TextTraining,
    cache_tokens,
    encode_cached,
    fit_upper_blocks,
    replace_upper_blocks,
    upper_blocks,
)

tokenizers = pytest.importorskip("tokenizers")
WORDS = [f"w{n}" for n in range(40)]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    import keras

    keras.utils.set_random_seed(0)
    vocabulary = {word: n for n, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = TextEncoderConfig(41, 16, num_layers=2, num_heads=2, hidden_units=32, max_tokens=16)
    return TextEncoder(build_text_encoder(config), tokenizer, 16)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(150)]


def test_cached_texts_have_the_vectors_they_had(encoder: TextEncoder, texts: list[str]) -> None:
    for blocks in (0, 1, 2):
        cached = cache_tokens(encoder, texts, blocks)
        found = encode_cached(upper_blocks(encoder.model, blocks), cached)
        np.testing.assert_allclose(found, encoder.encode(texts), atol=3e-3)  # kept in float16


def test_training_fits_targets_and_leaves_the_rest(encoder: TextEncoder, texts: list[str]) -> None:
    """The targets depend on a product of words, which no linear layer on averages can give."""
    pairs = [("w0" in t.split()) == ("w1" in t.split()) for t in texts]
    targets = np.array(pairs, np.float32)[:, None] - np.mean(pairs)
    cached = cache_tokens(encoder, texts, 1)
    upper = upper_blocks(encoder.model, 1)
    before = [np.copy(values) for values in upper.get_weights()]
    config = TextTraining(epochs=30, batch_size=32, learning_rate=3e-3, l2=1.0)
    trained, losses = fit_upper_blocks(upper, cached, targets, config)
    assert len(losses) == 30 and losses[-1] < 0.7 * losses[0]
    for old, now in zip(before, upper.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)

    def error(vectors: Any) -> float:
        kernel, bias = ridge(vectors, targets, 1.0)
        return float(np.mean((vectors @ kernel + bias - targets) ** 2))

    vectors = encode_cached(trained, cached)
    assert error(vectors) < 0.8 * error(encode_cached(upper, cached))
    whole = TextEncoder(replace_upper_blocks(encoder.model, trained), encoder.tokenizer, 16)
    np.testing.assert_allclose(whole.encode(texts), vectors, atol=1e-2)
    _, same = fit_upper_blocks(upper, cached, targets, config)
    assert same == losses


def test_wrong_arguments(encoder: TextEncoder, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="learning_rate is 0"):
        TextTraining(learning_rate=0)
    with pytest.raises(ValueError, match="epochs is 0"):
        TextTraining(epochs=0)
    cached = cache_tokens(encoder, texts[:5], 1)
    with pytest.raises(ValueError, match="targets has shape"):
        fit_upper_blocks(upper_blocks(encoder.model, 1), cached, np.ones((4, 2)), TextTraining())
