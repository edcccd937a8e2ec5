"""Ranges of activations from examples."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression.quantization import (
    RangeCalibration,
    activation_ranges,
    calibrate_range,
)
from recsys_lib.compression.quantization.scales import squared_error
from recsys_lib.models import Popularity, RatingModelConfig, build_rating_model

RANDOM = np.random.default_rng(0)
BATCHES = [np.maximum(RANDOM.normal(size=(50, 8)), 0).astype(np.float32) for _ in range(20)]
BATCHES[7][3, 3] = 30.0  # one outlier
ALL = np.concatenate([batch.ravel() for batch in BATCHES])


def test_minmax_takes_everything_in() -> None:
    assert calibrate_range(BATCHES, RangeCalibration()) == (0.0, 30.0)


def test_percentiles_are_numpys() -> None:
    found = calibrate_range(BATCHES, RangeCalibration("percentile", percentile=99))
    assert found == pytest.approx(tuple(np.percentile(ALL, [1, 99])), rel=1e-6)


def test_mse_clips_the_outlier_only_at_few_bits() -> None:
    for bits, below in ((3, 12.0), (8, 31.0)):
        low, high = calibrate_range(BATCHES, RangeCalibration("mse", bits=bits))
        assert high < below
        ends = np.float32([low]), np.float32([high])
        found = squared_error(ALL[None], *ends, 2**bits - 1)
        whole = squared_error(ALL[None], np.float32([0]), np.float32([30]), 2**bits - 1)
        assert found <= whole
    assert calibrate_range(BATCHES, RangeCalibration("mse", bits=8))[1] > 15


def test_the_moving_average_is_that_of_tensorflow() -> None:
    import tensorflow as tf

    mean = tf.train.ExponentialMovingAverage(0.8)
    high = tf.Variable(float(BATCHES[0].max()))
    mean.apply([high])
    for batch in BATCHES[1:]:
        high.assign(float(batch.max()))
        mean.apply([high])
    found = calibrate_range(BATCHES, RangeCalibration("moving_average", momentum=0.8))
    assert found[1] == pytest.approx(float(mean.average(high)), rel=1e-5)
    assert found[1] < 30


def test_symmetric_ranges_are() -> None:
    for method in ("minmax", "percentile", "mse", "moving_average"):
        low, high = calibrate_range(BATCHES, RangeCalibration(method, symmetric=True))
        assert low == -high


def test_ranges_of_a_model_are_those_of_its_layers() -> None:
    model = build_rating_model(
        RatingModelConfig("mlp_ranker", 20, 30, embedding_dim=4, hidden_units=(5,))
    )
    users, items = RANDOM.integers(0, 20, 100), RANDOM.integers(0, 30, 100)
    ranges = activation_ranges(
        model, [(users[:60], items[:60]), (users[60:], items[60:])], RangeCalibration()
    )
    tables = [model.get_layer(f"{side}_embedding").get_weights()[0] for side in ("user", "item")]
    inputs = np.hstack([tables[0][users], tables[1][items]])
    assert ranges["concatenate"] == pytest.approx((inputs.min(), inputs.max()))
    kernel, bias = model.get_layer("dense_0").get_weights()
    hidden = np.maximum(inputs @ kernel + bias, 0)
    assert ranges["dense_0"] == pytest.approx((hidden.min(), hidden.max()), rel=1e-5)
    assert not any("ids" in name for name in ranges)


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "batches is empty: expected at least one batch"),
        ([np.zeros((0, 3))], ValueError, r"batches\[0\] has shape \(0, 3\)"),
        ([np.ones(2), np.float32([np.nan])], ValueError, r"batches\[1\] holds 1 NaN"),
        ([np.arange(3)], TypeError, r"batches\[0\] is of type int64"),
    ],
)
def test_batches_without_numbers_are_refused(batches, error, message) -> None:
    with pytest.raises(error, match=message):
        calibrate_range(batches, RangeCalibration("mse"))


def test_an_empty_calibration_set_of_a_model_is_refused() -> None:
    model = build_rating_model(RatingModelConfig("dot_product", 3, 4))
    with pytest.raises(ValueError, match="batches is empty"):
        activation_ranges(model, [], RangeCalibration())
    with pytest.raises(TypeError, match="expected a factor model"):
        activation_ranges(Popularity(), [], RangeCalibration())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "entropy"}, ValueError, "method is 'entropy'"),
        ({"bits": 9}, ValueError, "bits is 9"),
        ({"percentile": 40}, ValueError, "percentile is 40"),
        ({"percentile": 100.5}, ValueError, "percentile is 100.5"),
        ({"momentum": 1.0}, ValueError, "momentum is 1.0"),
    ],
)
def test_a_wrong_calibration_is_refused(options, error, message) -> None:
    with pytest.raises(error, match=message):
        RangeCalibration(**options)
