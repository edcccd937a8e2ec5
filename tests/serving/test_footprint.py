"""Bytes, parameters and arithmetic, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from recsys_lib.serving import count_flops, count_parameters, model_size_bytes


@pytest.mark.parametrize("compressor", ["zlib", "lzma"])
def test_zeros_compress_and_noise_does_not(compressor):
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    size = model_size_bytes(noise, compressor=compressor)
    assert size.dense_bytes == 100_000
    assert size.compressed_bytes >= 99_000
    noise[::2] = 0
    assert model_size_bytes(noise, compressor=compressor).compressed_bytes < 80_000
    assert model_size_bytes(noise * 0, compressor=compressor).compressed_bytes < 300
    assert compressor in size.compressor


def test_nested_arrays_sparse_matrices_and_files(tmp_path):
    kernel, bias = np.ones((10, 4), np.float32), np.ones(4, np.float64)
    model = {"layers": [{"kernel": kernel, "bias": bias}], "scale": np.float32(2)}
    assert model_size_bytes(model).dense_bytes == 160 + 32 + 4
    assert count_parameters(model) == 45
    matrix = scipy.sparse.csr_matrix(np.eye(5, dtype=np.float32))
    assert count_parameters(matrix) == 5
    assert model_size_bytes(matrix).dense_bytes == 5 * 4 + 5 * 4 + 6 * 4
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.bin").write_bytes(b"x" * 1000)
    (tmp_path / "b.bin").write_bytes(b"y" * 500)
    assert model_size_bytes(tmp_path).dense_bytes == 1500
    assert model_size_bytes(str(tmp_path / "b.bin")).dense_bytes == 500


def test_not_contiguous_arrays_count_what_they_hold():
    assert model_size_bytes(np.ones((8, 8), np.float32)[:, ::2]).dense_bytes == 128


def test_what_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compressor is 'zip'"):
        model_size_bytes(np.ones(3), compressor="zip")
    with pytest.raises(TypeError, match="expected arrays"):
        model_size_bytes({"a": 3})
    with pytest.raises(TypeError, match="expected a functional"):
        count_flops(np.ones(3))
    with pytest.raises(FileNotFoundError):
        model_size_bytes(tmp_path / "absent")


def test_flops_of_a_small_network_by_hand():
    keras = pytest.importorskip("keras")
    users = keras.Input((), dtype="int32")
    items = keras.Input((), dtype="int32")
    tower = keras.layers.Dense(6, activation="relu")  # used twice
    user = tower(keras.layers.Embedding(10, 4)(users))
    item = tower(keras.layers.Embedding(20, 4)(items))
    score = keras.layers.Dot(axes=1)([user, item])
    model = keras.Model([users, items], score)
    assert count_flops(model) == 2 * (2 * 4 * 6 + 6 + 6) + 2 * 6
    assert count_parameters(model) == 10 * 4 + 20 * 4 + 4 * 6 + 6
    assert model_size_bytes(model).dense_bytes == 4 * count_parameters(model)
    nested = keras.Model([users, items], keras.layers.Dense(1)(model([users, items])))
    assert count_flops(nested) == count_flops(model) + 2 * 1 + 1


def test_an_unknown_layer_is_named():
    keras = pytest.importorskip("keras")
    inputs = keras.Input((4, 4))
    model = keras.Model(inputs, keras.layers.LSTM(3, name="recurrent")(inputs))
    with pytest.raises(ValueError, match="'recurrent' is a LSTM"):
        count_flops(model)


@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization", "two_tower", "neumf"])
def test_models_of_the_library_can_be_counted(kind):
    pytest.importorskip("keras")
    from recsys_lib.models import RatingModelConfig, build_rating_model

    hidden = (8,) if kind in ("two_tower", "neumf") else ()
    config = RatingModelConfig(kind, 5, 7, embedding_dim=4, hidden_units=hidden)
    assert count_flops(build_rating_model(config)) >= 2 * 4
