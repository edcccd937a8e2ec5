"""Small data and models that the tests of training share."""

import keras
import numpy as np

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit


def toy_data(num_rows=300, seed=0, sizes=(20, 15)):
    random = np.random.default_rng(seed)
    users, items = (random.integers(size, size=num_rows) for size in sizes)
    return Interactions(users, items, (users + items) % 5 + 1.0, None, *sizes)


def toy_model(kind="matrix_factorization", **changes):
    return build_rating_model(RatingModelConfig(kind, 20, 15, **{"embedding_dim": 4} | changes))


def product(users, items):
    return keras.layers.Reshape(())(keras.layers.Dot(1)([users, items]))


def slow_product(users, items):
    """The same, by an operation whose gradients are not taken apart."""
    return keras.layers.Reshape(())(keras.ops.sum(users * items, 1, keepdims=True))


def towers(rows=20, output=product, more=lambda x: x, shared=False, **embedding):
    """Return a model that a user of Keras might write; ``more`` is a layer of the users."""
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [keras.layers.Embedding(rows, 4, **embedding) for _ in inputs]
    users, items = tables[0](inputs[0]), tables[not shared](inputs[1])
    users = keras.layers.Dense(4, "silu", kernel_regularizer="l2")(more(users))
    return keras.Model(inputs, output(users, items))


def train(model, data=None, **options):
    options = {"epochs": 2, "batch_size": 64, "progress": False} | options
    return fit(model, toy_data() if data is None else data, **options)


def assert_same_weights(first, second):
    """Models or lists of weights."""
    first, second = (getattr(x, "get_weights", lambda x=x: x)() for x in (first, second))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
