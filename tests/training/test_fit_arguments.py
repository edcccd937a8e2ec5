"""What fit() refuses, before it touches anything."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from recsys_lib.data import Interactions, Split
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit


def toy_model():
    return build_rating_model(RatingModelConfig("matrix_factorization", 20, 15, 4))


def options(**changes):
    return {"epochs": 6, "batch_size": 64, "l2": 0.01, "progress": False} | changes


EVENTS = Interactions([0, 1], [0, 1], num_users=20, num_items=15)


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, "has no ratings", {"objective": "squared_error"}),
        (ValueError, "objective is 'mse'", {"objective": "mse"}),
        (ValueError, "epochs is 0", {"epochs": 0}),
        (TypeError, "epochs is 1.5", {"epochs": 1.5}),
        (ValueError, "batch_size is -1", {"batch_size": -1}),
        (ValueError, "negatives_per_positive is 0", {"negatives_per_positive": 0}),
        (ValueError, "l2 is -0.1", {"l2": -0.1}),
        (ValueError, "l2 is nan", {"l2": float("nan")}),
        (TypeError, "l2 is 'a'", {"l2": "a"}),
        (ValueError, "seed is -1", {"seed": -1}),
        (ValueError, "patience is 2, but there is no validation", {"patience": 2}),
        (ValueError, "optimizer is 'adma'", {"optimizer": "adma"}),
        (TypeError, "optimizer is of type float", {"optimizer": 0.1}),
        (TypeError, "validation is of type int", {"validation": 3}),
        (ValueError, "metric is 'auc'", {"validation": EVENTS, "metric": "auc"}),
        (ValueError, "no ratings", {"validation": EVENTS, "metric": "rmse"}),
        (ValueError, "without negatives", {"validation": Split(EVENTS, EVENTS)}),
        (
            ValueError,
            "ranks 2 candidates: expected at least 10",
            {"validation": Split(EVENTS, EVENTS, negatives=[[1], [2]])},
        ),
        (ValueError, "validation counts 2 users", {"validation": Interactions([0, 1], [0, 1])}),
        (FileNotFoundError, "expected an existing folder", {"checkpoint": "/no/such/folder/a.npz"}),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_touched(error, message, change):
    model = toy_model()
    before = model.get_weights()
    with pytest.raises(error, match=message):
        fit(model, EVENTS, **options(**change))
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def small_model(output, num_users: int = 20):
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    rows = [
        keras.layers.Embedding(count, 2)(ids)
        for count, ids in zip((num_users, 15), inputs, strict=True)
    ]
    return keras.Model(inputs, output(*rows))


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 1\) for two pairs"):
        fit(small_model(lambda u, i: keras.layers.Dot(1)([u, i])), EVENTS, **options())
    too_small = small_model(lambda u, i: keras.ops.sum(u * i, axis=1), num_users=5)
    with pytest.raises(ValueError, match="cannot score user 19"):
        fit(too_small, EVENTS, **options())
    with pytest.raises(TypeError, match="expected a Keras model"):
        fit(object(), EVENTS, **options())
    with pytest.raises(TypeError, match=r"of a Split, pass \.train"):
        fit(toy_model(), Split(EVENTS, EVENTS), **options())
    users, items = (keras.Input((), dtype="int32", name=n) for n in ("user_ids", "item_ids"))
    swapped = keras.Model([items, users], toy_model()([users, items]))
    with pytest.raises(ValueError, match="expected users first"):
        fit(swapped, EVENTS, **options())
    nested = keras.Model([users, items], toy_model()([users, items]))
    with pytest.raises(ValueError, match="no Embedding layer"):
        fit(nested, EVENTS, **options())
    fit(nested, EVENTS, **options(l2=0.0, epochs=1))
