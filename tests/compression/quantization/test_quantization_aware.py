"""Models that train on rounded numbers."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import named_weights, with_weights
from recsys_lib.compression.quantization import (
    IntegerQuantization,
    convert,
    quantization_aware,
)
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit
from recsys_lib.training.forward import embedding_tables

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 80
IDS = [np.arange(60, dtype=np.int32), np.arange(20, 80, dtype=np.int32)]


def build(kind="neumf", **options):
    config = RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, 8, init_std=0.5, **options)
    return build_rating_model(config)


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(0)
    users, items = random.integers(0, NUM_USERS, 3000), random.integers(0, NUM_ITEMS, 3000)
    liked = (users % 4) == (items % 4)
    return Interactions(users[liked], items[liked], num_users=NUM_USERS, num_items=NUM_ITEMS)


@pytest.mark.parametrize("kind", KINDS)
def test_eight_bits_are_near_and_two_are_not(kind):
    model = build(kind)
    before = named_weights(model)
    exact = np.asarray(model(IDS))
    spread = {}
    for bits in (8, 4, 2):
        rounded = quantization_aware(model, IntegerQuantization(bits))
        spread[bits] = np.abs(np.asarray(rounded(IDS)) - exact).max() / np.abs(exact).max()
    assert spread[8] < 0.05 < spread[2]
    assert spread[8] < spread[4] < spread[2]
    after = named_weights(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_training_recovers_what_rounding_loses(data):
    model = build("mlp_ranker", hidden_units=(16, 8))
    options = {"batch_size": 256, "progress": False, "jit_compile": False}
    exact = fit(model, data, epochs=40, optimizer="adam", **options).loss[-1]
    config = IntegerQuantization(bits=2)
    start, aware = (quantization_aware(model, config) for _ in range(2))
    run = fit(aware, data, epochs=20, optimizer="adam", **options)
    rounded = run.loss[0]  # of the first steps, so less than rounding really costs
    assert rounded > 1.1 * exact
    assert rounded - run.loss[-1] > 0.5 * (rounded - exact)
    before, after = named_weights(start), named_weights(aware)
    moved = [name for name in before if "scale" in name and (before[name] != after[name]).any()]
    assert len(moved) == 8  # 5 of weights, 3 of inputs


@pytest.mark.slow
def test_the_compiled_loop_is_the_same_with_and_without_xla(data):
    runs = []
    for jit in (False, True):
        aware = quantization_aware(
            build("mlp_ranker", hidden_units=(8,)), IntegerQuantization(bits=4)
        )
        runs.append(fit(aware, data, epochs=2, batch_size=512, jit_compile=jit, progress=False,
                        optimizer="sgd").loss)  # fmt: skip
    np.testing.assert_allclose(*runs, rtol=2e-3)


def test_the_compiled_loop_takes_a_model_with_a_dot_product_apart(data):
    aware = quantization_aware(build("two_tower"), IntegerQuantization(bits=4))
    before = named_weights(aware)
    fit(aware, data, epochs=1, batch_size=512, progress=False, jit_compile=False)
    changed = [name for name, values in named_weights(aware).items()
               if (values != before[name]).any()]  # fmt: skip
    assert set(before) - set(changed) == {
        f"{side}_dense_{n}/{end}_zero_point" for side in ("user", "item")
        for n, end in ((0, "input"), (1, "input"), (1, "output"))
    }  # fmt: skip


def test_shrinkage_finds_the_tables(data):
    aware = quantization_aware(build(), IntegerQuantization())
    assert [side for _, side in embedding_tables(aware)] == ["users", "items"] * 2
    run = fit(aware, data, epochs=1, batch_size=512, l2=0.01, progress=False, jit_compile=False)
    assert np.isfinite(run.loss).all()


def test_keras_own_fit_clone_and_file(tmp_path, data):
    import keras

    aware = quantization_aware(build("mlp_ranker"), IntegerQuantization(bits=4))
    aware.compile("adam", "mse", jit_compile=False)
    before = aware.get_layer("dense_0").weight_log_scale.numpy().copy()
    aware.fit([data.user_ids, data.item_ids], np.ones(len(data)), epochs=1, verbose=0)
    assert not np.allclose(before, aware.get_layer("dense_0").weight_log_scale.numpy())
    clone = keras.models.clone_model(aware)
    clone.set_weights(aware.get_weights())
    np.testing.assert_array_equal(clone(IDS), aware(IDS))
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded(IDS), aware(IDS))
    np.testing.assert_array_equal(convert(loaded).score(*IDS), convert(aware).score(*IDS))


@pytest.mark.slow
def test_zeros_of_a_pruned_model_stay(data):
    model = build("mlp_ranker")
    random = np.random.default_rng(0)
    pruned = with_weights(model, {
        name: np.where(random.random(values.shape) < 0.8, 0, values)
        for name, values in named_weights(model).items() if values.ndim == 2
    })  # fmt: skip
    zeros = {
        name: values == 0 for name, values in named_weights(pruned).items() if "bias" not in name
    }
    kept = quantization_aware(pruned, IntegerQuantization(bits=4))
    lost = quantization_aware(pruned, IntegerQuantization(bits=4, keep_zeros=False))
    for aware in (kept, lost):
        fit(aware, data, epochs=2, batch_size=128, l2=0.001, progress=False, jit_compile=False)
    stored = convert(kept).tensors
    for name, zero in zeros.items():
        assert not np.any(named_weights(kept)[name][zero])
        assert not np.any(stored[name].decode()[zero])
    left = np.mean(named_weights(lost)["dense_0/kernel"][zeros["dense_0/kernel"]] == 0)
    assert left < 0.1


def test_an_all_zero_channel_and_row_are_defined():
    model = build("mlp_ranker")
    weights = named_weights(model)
    weights["dense_0/kernel"][:, 3] = 0
    weights["dense_0/bias"][3] = 0.25
    weights["item_embedding/embeddings"][7] = 0
    model = with_weights(model, weights)
    aware = quantization_aware(model, IntegerQuantization(8))
    assert np.isfinite(np.asarray(aware(IDS))).all()
    new = named_weights(convert(aware).model)
    assert not new["dense_0/kernel"][:, 3].any()
    assert not new["item_embedding/embeddings"][7].any()
    assert new["dense_0/bias"][3] == pytest.approx(0.25, rel=0.01)


def test_recommenders_are_taken_too(data):
    config = RatingModelConfig("mlp_ranker", NUM_USERS, NUM_ITEMS, 4, hidden_units=(8,))
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(data)
    aware = quantization_aware(recommender, IntegerQuantization(), data)
    np.testing.assert_allclose(aware(IDS), recommender.score(*IDS), atol=0.01)


def test_float_inputs_need_a_calibration():
    import keras

    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(2)(keras.layers.Dense(4, activation="relu")(inputs))
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="calibration is None"):
        quantization_aware(model, IntegerQuantization())
    rows = np.random.default_rng(0).normal(0, 1, (300, 5)).astype(np.float32)
    aware = quantization_aware(model, IntegerQuantization(), (rows,))
    np.testing.assert_allclose(aware(rows), model(rows), atol=0.05)
    np.testing.assert_allclose(convert(aware)([rows]), aware(rows), atol=1e-5)


def test_range_search_clips_outliers():
    import keras

    inputs = keras.Input((50,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    rows = np.random.default_rng(0).standard_t(2, (2000, 50)).astype(np.float32)
    scales = []
    for search in ("minmax", "percentile", "mse"):
        config = IntegerQuantization(activation_bits=3, range_search=search)
        dense = quantization_aware(model, config, (rows,)).layers[-1]
        scales.append(float(dense.activation_grid("input").scale))
    assert scales[0] > 2 * scales[1]
    assert scales[0] > 2 * scales[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bits", 1),
        ("activation_bits", 9),
        ("scale_search", "best"),
        ("range_search", "best"),
        ("scale_rate", 0.0),
    ],
)
def test_bad_choices(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        IntegerQuantization(**{name: value})


def broken(kind):
    import keras

    inputs = keras.Input((4,))
    layers = {
        "tanh": lambda x: keras.layers.Dense(2, activation="tanh", name="culprit")(x),
        "BatchNormalization": lambda x: keras.layers.BatchNormalization(name="culprit")(x),
        "input has shape": lambda x: keras.layers.Dense(2, name="culprit")(x[:, None]),
        "used more than once": lambda x: twice(keras.layers.Dense(4, name="culprit"), x),
        "normalizes": lambda x: keras.layers.Dot(1, normalize=True, name="culprit")([x, x]),
        "plain ReLU": lambda x: keras.layers.ReLU(max_value=6, name="culprit")(x),
    }

    def twice(layer, x):
        return layer(layer(x))

    if kind == "input has shape":
        reshaped = keras.layers.Reshape((1, 4))(inputs)
        return keras.Model(inputs, keras.layers.Dense(2, name="culprit")(reshaped))
    return keras.Model(inputs, keras.layers.Dense(3)(layers[kind](inputs)))


@pytest.mark.parametrize(
    "kind",
    ["tanh", "BatchNormalization", "input has shape", "used more than once", "normalizes",
     "plain ReLU"],
)  # fmt: skip
def test_a_layer_that_cannot_be_quantized_is_named(kind):
    with pytest.raises(ValueError, match=f"layer 'culprit' cannot be quantized: .*{kind}"):
        quantization_aware(broken(kind), IntegerQuantization(), (np.ones((3, 4)),))


def test_bad_models():
    import keras
    import tf_keras

    with pytest.raises(TypeError, match="config is of type dict"):
        quantization_aware(build(), {})
    with pytest.raises(TypeError, match="model is of type str"):
        quantization_aware("model", IntegerQuantization())
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="model is not built"):
        quantization_aware(unbuilt, IntegerQuantization())
    twin = build_rating_model(RatingModelConfig("mlp_ranker", 5, 6), keras=tf_keras)
    with pytest.raises(TypeError, match="expected a functional Keras 3 model"):
        quantization_aware(twin, IntegerQuantization())
    weights = build().get_weights()
    weights[0][3, 2] = np.nan
    model = build()
    model.set_weights(weights)
    with pytest.raises(ValueError, match=r"user_embedding/embeddings holds 1 NaN"):
        quantization_aware(model, IntegerQuantization())


@pytest.mark.parametrize(
    ("calibration", "error", "message"),
    [
        (([], []), ValueError, "calibration has"),
        (([1, 2], [1]), ValueError, "calibration has"),
        (([1],), ValueError, "calibration has 1 arrays"),
        (([1], [NUM_ITEMS]), ValueError, "calibration item_ids"),
        ("all", TypeError, "calibration is of type str"),
    ],
)
def test_bad_calibration(calibration, error, message):
    with pytest.raises(error, match=message):
        quantization_aware(build(), IntegerQuantization(), calibration)
