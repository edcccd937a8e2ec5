"""A smaller encoder gives the vectors it should; training its upper blocks acts, on them alone."""

import keras
import numpy as np
import pytest

from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.text import TextEncoder, TextEncoderConfig, build_text_encoder
from recsys_lib.text import training as tt
from recsys_lib.text.compress import (
    ExportedEncoder,
    export_text_encoder,
    keep_blocks,
    prune_text_neurons,
)
from recsys_lib.text.encoder import count_blocks, output_of_block
from recsys_lib.text.rating import ridge

tokenizers = pytest.importorskip("tokenizers")
CONFIG = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16, max_tokens=9)
IDS = np.array([[1, 7, 2, 0], [3, 4, 5, 6]], np.int32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
WORDS, RNG = [f"w{n}" for n in range(40)], np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(2, 9))) for _ in range(100)]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return build_text_encoder(CONFIG)


def test_the_model_is_saved_and_does_not_look_at_padding(model, tmp_path):
    expected = np.asarray(model([IDS, MASK]))
    model.save(tmp_path / "encoder.keras")
    again = keras.models.load_model(tmp_path / "encoder.keras")
    np.testing.assert_array_equal(np.asarray(again([IDS, MASK])), expected)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)
    masked = np.asarray(model([IDS * MASK + 9 * (1 - MASK), MASK]))
    np.testing.assert_allclose(masked, expected, atol=1e-6)


def test_parts_give_what_they_gave_in_the_whole(model):
    whole = np.asarray(model([IDS, MASK]))
    for count in (0, 2, 3):
        lower = keras.Model(model.inputs, output_of_block(model, count))
        tokens, fewer = np.asarray(lower([IDS, MASK])), keep_blocks(model, count)
        found = np.asarray(tt.upper_blocks(model, count)([tokens, MASK]))
        np.testing.assert_allclose(found, whole, atol=1e-6)
        assert count_blocks(fewer) == count
        mean = (tokens * MASK[:, :, None]).sum(axis=1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(np.asarray(fewer([IDS, MASK])), mean, atol=1e-6)


def test_dead_neurons_go_first_and_nothing_changes(model):
    """Half of the neurons are not read; without them the encoder is the same function."""
    weights, rng = named_weights(model), np.random.default_rng(0)
    factors = np.exp(rng.normal(size=16)).astype(np.float32)
    wide, narrow = "block_0_wide/kernel", "block_0_narrow/kernel"
    moved = {wide: weights[wide] * factors, narrow: weights[narrow] / factors[:, None]}
    rows = []  # a factor that is moved between layers changes nothing
    for one in (model, with_weights(model, moved)):
        kept = named_weights(prune_text_neurons(one, 0.5))[narrow]
        rows.append(kept / np.linalg.norm(kept, axis=1, keepdims=True))
    np.testing.assert_allclose(*rows, atol=1e-5)  # the same neurons, scaled
    for block in (0, 1, 2):
        weights[f"block_{block}_narrow/kernel"][rng.permutation(16)[:8]] = 0
    model = with_weights(model, weights)
    before = np.asarray(model([IDS, MASK]))
    smaller = prune_text_neurons(model, 0.5)
    assert smaller.count_params() == model.count_params() - 3 * 8 * (8 + 1 + 8)
    np.testing.assert_allclose(np.asarray(smaller([IDS, MASK])), before, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(model([IDS, MASK])), before)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_files_give_the_same_vectors(tmp_path, suffix):
    pytest.importorskip("ai_edge_litert" if suffix == "tflite" else "tf2onnx")
    keras.utils.set_random_seed(0)
    config = TextEncoderConfig(300, 64, num_layers=1, num_heads=4, hidden_units=128, max_tokens=16)
    model = build_text_encoder(config)
    paths = [tmp_path / f"{name}.{suffix}" for name in ("whole", "small")]
    for path, quantization in zip(paths, (None, "int8"), strict=True):
        export_text_encoder(model, path, quantization)
    whole, small = map(ExportedEncoder, paths)
    for count, width in ((3, 7), (1, 4), (3, 7), (5, 12)):  # any n and t, in any order
        rng = np.random.default_rng(width)
        mask = np.int32(np.arange(width) < rng.integers(2, width + 1, count)[:, None])
        inputs = rng.integers(1, 300, (count, width)).astype(np.int32) * mask, mask
        expected, found = np.asarray(model(list(inputs), training=False)), small(*inputs)
        np.testing.assert_allclose(whole(*inputs), expected, atol=2e-5)
        assert ((found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)).min() > 0.99
        assert np.abs(found - expected).max() > 1e-5  # it was rounded
    assert whole.nbytes > 4 * model.count_params()
    assert small.nbytes < 0.45 * whole.nbytes  # of a small model, names and graph are a good part
    with pytest.raises(ValueError, match="mask"):
        whole(np.ones((1, 3)), np.ones((1, 2)))


def test_what_is_not_the_encoder_leaves_no_file(model, tmp_path, monkeypatch):
    broken = with_weights(model, {})
    broken.get_layer("input_norm").gamma.assign([np.nan] * 8)
    with pytest.raises(ValueError, match="input_norm/gamma"):
        export_text_encoder(broken, tmp_path / "a.onnx")
    monkeypatch.setattr("recsys_lib.text.compress.plain_lookups", lambda _: keep_blocks(model, 0))
    with pytest.raises(ValueError, match="off by"):
        export_text_encoder(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_refuses(model, tmp_path):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    two, upper = keep_blocks(model, 2), tt.upper_blocks(model, 2)
    for word, call in (
        ("count is 4", lambda: keep_blocks(model, 4)),
        ("model is a", lambda: count_blocks(other)),
        ("block_2", lambda: tt.replace_upper_blocks(two, upper)),
        ("sparsity is 1", lambda: prune_text_neurons(model, 1)),
        ("no blocks", lambda: prune_text_neurons(keep_blocks(model, 0), 0.5)),
        ("path", lambda: export_text_encoder(model, tmp_path / "a.pt")),
        ("quantization", lambda: export_text_encoder(model, tmp_path / "a.onnx", "int4")),
        ("a.onnx", lambda: ExportedEncoder(tmp_path / "a.onnx")),
        ("none", lambda: export_text_encoder(model, tmp_path / "none" / "a.tflite")),
        ("learning_rate is 0", lambda: tt.TextTraining(learning_rate=0)),
        ("epochs is 0", lambda: tt.TextTraining(epochs=0)),
    ):
        with pytest.raises((TypeError, ValueError, FileNotFoundError), match=word):
            call()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    vocabulary = {word: n for n, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    config = TextEncoderConfig(41, 16, num_layers=2, num_heads=2, hidden_units=32, max_tokens=16)
    return TextEncoder(build_text_encoder(config), tokenizer, 16)


def test_cached_texts_have_the_vectors_they_had(encoder):
    expected = encoder.encode(TEXTS)
    for blocks in (0, 2):
        upper = tt.upper_blocks(encoder.model, blocks)
        found = tt.encode_cached(upper, tt.cache_tokens(encoder, TEXTS, blocks))
        np.testing.assert_allclose(found, expected, atol=3e-3)  # kept in float16


@pytest.mark.slow
def test_training_fits_targets_and_leaves_the_rest(encoder):
    """The targets depend on a product of words, which no linear layer on averages can give."""
    pairs = [("w0" in t.split()) == ("w1" in t.split()) for t in TEXTS]
    targets = np.array(pairs, np.float32)[:, None] - np.mean(pairs)
    cached, upper = tt.cache_tokens(encoder, TEXTS, 1), tt.upper_blocks(encoder.model, 1)
    lower, before = named_weights(encoder.model), named_weights(upper)
    config = tt.TextTraining(np.int64(25), 32, np.float32(3e-3), l2=1.0)
    assert [type(value) for value in vars(config).values()] == [int, int, float, float, int]
    trained, losses = tt.fit_upper_blocks(upper, cached, targets, config)
    assert len(losses) == 25 and losses[-1] < 0.7 * losses[0]
    np.testing.assert_equal(named_weights(upper), before)

    def error(vectors):
        kernel, bias = ridge(vectors, targets, 1.0)
        return np.mean((vectors @ kernel + bias - targets) ** 2)

    vectors = tt.encode_cached(trained, cached)
    assert error(vectors) < 0.8 * error(tt.encode_cached(upper, cached))
    changed = tt.replace_upper_blocks(encoder.model, trained)
    np.testing.assert_equal(named_weights(changed), lower | named_weights(trained))
    np.testing.assert_equal(named_weights(encoder.model), lower)
    whole = TextEncoder(changed, encoder.tokenizer, 16)
    np.testing.assert_allclose(whole.encode(TEXTS), vectors, atol=1e-2)
    again = tt.fit_upper_blocks(upper, cached, targets, tt.TextTraining(3, 32, 3e-3, l2=1.0))[1]
    assert again == losses[:3]
    with pytest.raises(ValueError, match="targets has shape"):
        tt.fit_upper_blocks(upper, cached, targets[1:], config)
