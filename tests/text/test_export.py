"""The encoder in files: the same vectors, and int8 that is small and near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_lib.text import TextEncoderConfig, build_text_encoder
from recsys_lib.text.export import export_text_encoder, load_exported_encoder

CONFIG = TextEncoderConfig(300, 64, num_layers=2, num_heads=4, hidden_units=128, max_tokens=16)


@pytest.fixture(scope="module")
def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    return build_text_encoder(CONFIG)


def _texts(count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width)
    mask = (np.arange(width) < rng.integers(2, width + 1, count)[:, None]).astype(np.int32)
    return rng.integers(1, 300, (count, width)).astype(np.int32) * mask, mask


@pytest.mark.parametrize("suffix", ["tflite", "onnx"])
def test_files_give_the_same_vectors(model: Any, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("ai_edge_litert" if suffix == "tflite" else "tf2onnx")
    export_text_encoder(model, tmp_path / f"whole.{suffix}")
    export_text_encoder(model, tmp_path / f"small.{suffix}", "int8")
    whole, small = (load_exported_encoder(tmp_path / f"{n}.{suffix}") for n in ("whole", "small"))
    for count, width in ((3, 7), (1, 4), (3, 7), (5, 12)):  # any n and t, in any order
        inputs = _texts(count, width)
        expected = np.asarray(model(list(inputs), training=False))
        np.testing.assert_allclose(whole(*inputs), expected, atol=2e-5)
        found = small(*inputs)
        cosine = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)
        assert cosine.min() > 0.99
        assert np.abs(found - expected).max() > 1e-5  # it was rounded
    assert whole.nbytes > 4 * model.count_params()
    assert small.nbytes < 0.45 * whole.nbytes  # of a small model, names and graph are a good part


def test_wrong_arguments(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path ends in '\.pt'"):
        export_text_encoder(model, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="quantization is 'int4'"):
        export_text_encoder(model, tmp_path / "a.onnx", "int4")
    with pytest.raises(FileNotFoundError, match=r"expected a file of export_text_encoder"):
        load_exported_encoder(tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        export_text_encoder(model, tmp_path / "none" / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_inputs(model: Any, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    export_text_encoder(model, tmp_path / "a.tflite")
    run = load_exported_encoder(tmp_path / "a.tflite")
    with pytest.raises(ValueError, match=r"token_ids has shape \(1, 3\) and mask \(1, 2\)"):
        run(np.ones((1, 3)), np.ones((1, 2)))
