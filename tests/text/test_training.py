"""Training upper blocks: it acts, on them alone, and the cache changes nothing."""

import keras
import numpy as np
import pytest

from recsys_lib.text import TextEncoder, TextEncoderConfig, build_text_encoder
from recsys_lib.text import training as tt
from recsys_lib.text.rating import ridge

tokenizers = pytest.importorskip("tokenizers")
WORDS = [f"w{n}" for n in range(40)]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(2, 9))) for _ in range(100)]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    keras.utils.set_random_seed(0)
    vocabulary = {word: n for n, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = TextEncoderConfig(41, 16, num_layers=2, num_heads=2, hidden_units=32, max_tokens=16)
    return TextEncoder(build_text_encoder(config), tokenizer, 16)


def test_cached_texts_have_the_vectors_they_had(encoder: TextEncoder) -> None:
    expected = encoder.encode(TEXTS)
    for blocks in (0, 2):
        upper = tt.upper_blocks(encoder.model, blocks)
        found = tt.encode_cached(upper, tt.cache_tokens(encoder, TEXTS, blocks))
        np.testing.assert_allclose(found, expected, atol=3e-3)  # kept in float16


def test_training_fits_targets_and_leaves_the_rest(encoder: TextEncoder) -> None:
    """The targets depend on a product of words, which no linear layer on averages can give."""
    pairs = [("w0" in t.split()) == ("w1" in t.split()) for t in TEXTS]
    targets = np.array(pairs, np.float32)[:, None] - np.mean(pairs)
    cached, upper = tt.cache_tokens(encoder, TEXTS, 1), tt.upper_blocks(encoder.model, 1)
    before = [np.copy(values) for values in upper.get_weights()]
    config = tt.TextTraining(epochs=25, batch_size=32, learning_rate=3e-3, l2=1.0)
    trained, losses = tt.fit_upper_blocks(upper, cached, targets, config)
    assert len(losses) == 25 and losses[-1] < 0.7 * losses[0]
    for old, now in zip(before, upper.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)

    def error(vectors: np.ndarray) -> float:
        kernel, bias = ridge(vectors, targets, 1.0)
        return float(np.mean((vectors @ kernel + bias - targets) ** 2))

    vectors = tt.encode_cached(trained, cached)
    assert error(vectors) < 0.8 * error(tt.encode_cached(upper, cached))
    whole = TextEncoder(tt.replace_upper_blocks(encoder.model, trained), encoder.tokenizer, 16)
    np.testing.assert_allclose(whole.encode(TEXTS), vectors, atol=1e-2)
    _, same = tt.fit_upper_blocks(upper, cached, targets, config)
    assert same == losses
    with pytest.raises(ValueError, match="targets has shape"):
        tt.fit_upper_blocks(upper, cached, targets[1:], config)


def test_settings_are_checked_and_kept_as_plain_numbers() -> None:
    kept = tt.TextTraining(epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.int32(0))
    assert [type(value) for value in vars(kept).values()] == [int, int, float, float, int]
    for setting in ({"learning_rate": 0}, {"epochs": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))} is 0"):
            tt.TextTraining(**setting)
