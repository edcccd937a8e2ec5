"""What Keras' own fit honours: here it is honoured as well, or refused before training."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression.distillation import train_with_average
from recsys_lib.data import Interactions, Split
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit
from tests.training.toys import (
    assert_same_weights,
    product,
    slow_product,
    towers,
    toy_data,
    toy_model,
    train,
)

DATA, SGD = toy_data(80), keras.optimizers.SGD


class Push(keras.layers.Layer):
    def call(self, x):
        self.add_loss(3 * keras.ops.mean(x**2))
        return x


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1 + keras.ops.cast(step, "float32"))


def excluding(rate):
    optimizer = SGD(rate, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    return optimizer


class OwnUpdate(SGD):
    def apply_gradients(self, pairs):
        return super().apply_gradients(
            [(tf.convert_to_tensor(g) / 2, weight) for g, weight in pairs]
        )


def equals_keras(build, optimizer, theirs=None, data=DATA, rtol=1e-4, atol=1e-5):
    """Train two copies, here and by Keras, in one batch, so that order plays no role."""
    own, other, run = build(), build(), {"epochs": 5, "batch_size": 80}
    start, theirs = own.get_weights(), theirs or optimizer
    train(own, data, objective="squared_error", optimizer=optimizer(0.1), **run)
    other.compile(theirs(0.1), "mse")
    other.fit([data.user_ids, data.item_ids], data.ratings, verbose=0, **run)
    for a, b in zip(own.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    changes = [np.abs(a - b).max() for a, b in zip(own.get_weights(), start, strict=True)]
    return own, changes


BROUGHT = [
    ({"embeddings_regularizer": keras.regularizers.L2(0.5)}, SGD),
    ({"embeddings_regularizer": "l1", "shared": True}, SGD),
    *(({"activity_regularizer": "l2"}, SGD), ({"more": lambda x: Push()(x)}, SGD), ({}, excluding)),
    *(({}, lambda rate: SGD(lambda: rate)), ({}, lambda rate: SGD(Halving())), ({}, OwnUpdate)),
]
KINDS = ("dot_product", "matrix_factorization", "two_tower", "neumf")


@pytest.mark.slow
@pytest.mark.parametrize("output", [product, slow_product])
@pytest.mark.parametrize("options, optimizer", BROUGHT)
def test_what_model_and_optimizer_bring_along(options, optimizer, output):
    changes = equals_keras(lambda: towers(output=output, **options), optimizer)[1]
    assert min(changes) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rating_models_and_that_keras_saves_them(kind, tmp_path):
    model = equals_keras(lambda: toy_model(kind, init_std=0.5, global_bias=0.5), SGD)[0]
    model.save(tmp_path / "model.keras")
    again, pairs = keras.models.load_model(tmp_path / "model.keras"), [DATA.user_ids, DATA.item_ids]
    np.testing.assert_array_equal(again(pairs), model(pairs))


OPTIONS = [
    *({"clipnorm": 0.01}, {"clipvalue": 0.001}, {"global_clipnorm": 0.01}, {"weight_decay": 0.1}),
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    *({"use_ema": True}, {"gradient_accumulation_steps": 2}, {"loss_scale_factor": 64.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 2000])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_of_optimizers(options, rows):
    """No id occurs twice: Keras clips the gradients of repeated rows before it adds them up."""
    users, items = np.arange(15), np.arange(15)[::-1]
    data = Interactions(users, items, users % 5 + 1.0, num_users=rows, num_items=rows)
    theirs = {} if "loss_scale_factor" in options else options  # Keras cannot, of embeddings
    equals_keras(
        lambda: towers(rows), lambda r: SGD(r, **options), lambda r: SGD(r, **theirs), data
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_with_a_state(frozen):
    def build():
        model = towers(more=keras.layers.BatchNormalization(trainable=not frozen))
        model.layers[1].trainable = not frozen
        return model

    equals_keras(build, SGD, rtol=1e-3)


@pytest.mark.slow
def test_half_precision_scales_the_loss_as_keras_does():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        equals_keras(towers, lambda _: SGD(1e-7, clipvalue=1e-9), rtol=1e-2, atol=1e-9)
        model = towers()
    finally:
        keras.config.set_dtype_policy("float32")
    train(model, DATA, extra_loss=lambda batch: 0.0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.slow
def test_dropout_goes_on_where_it_was(tmp_path):
    def run(epochs, **more):
        model = towers(more=keras.layers.Dropout(0.5, seed=3))
        train(model, DATA, epochs=epochs, batch_size=32, **more)
        return model

    run(2, checkpoint=tmp_path / "run")
    assert_same_weights(run(4, checkpoint=tmp_path / "run"), run(4))


class Penalty(keras.layers.Layer):
    """An extra loss with a regularizer, and with add_loss."""

    def __init__(self, l2=0.0, added=0.0):
        super().__init__()
        regularizer = "l2" if l2 else None
        self.number = self.add_weight(shape=(), initializer="ones", regularizer=regularizer)
        self.added = added

    def call(self, batch):
        self.add_loss(self.added * self.number)
        return 0.0 * self.number


@pytest.mark.parametrize("options", [{"l2": 1.0}, {"added": 0.02}])
def test_losses_of_an_extra_loss(options):
    layer = Penalty(**options)
    train(toy_model(), extra_loss=layer, optimizer=SGD(0.1), epochs=1, batch_size=300)
    assert float(layer.number) == pytest.approx(1 - 0.1 * 0.02, rel=1e-5)  # l2 is 0.01 * x ** 2


def test_a_loss_of_the_model_outlives_a_second_call():
    def push(twice):
        model = towers(more=keras.layers.ActivityRegularization(l2=1.0))

        def again(batch):
            model([0 * batch.user_ids, batch.item_ids[:, 0]], training=True)
            return 0.0

        train(model, DATA, optimizer=SGD(0.5), **({"extra_loss": again} if twice else {}))
        return model

    assert_same_weights(push(True), push(False))


def own(**methods):
    """Return a model of a class of its own, which has these methods."""
    base = towers()
    return type("Own", (keras.Model,), methods)(base.inputs, base.outputs[0])


def step_of_an_instance():
    model = toy_model()
    model.train_step = lambda data: {}
    return model


def loss_with_the_model():
    layer, model = Penalty(), toy_model()
    layer.student = model
    return model, {"extra_loss": layer}


def rows_of(letter):
    frame = {"u": [f"{letter}{n:02}" for n in range(20)], "i": list("wxyz") * 5}
    return Interactions.from_frame(frame, user="u", item="i")


OTHER, NEGATIVES = rows_of("b"), np.tile(np.arange(4), (20, 3))
OTHERS = OTHER, Split(OTHER, OTHER, negatives=NEGATIVES)
REFUSED = [
    (fit, own(train_step=lambda self, data: {}), {}, r"own .*\.train_step"),
    (fit, own(compute_loss=lambda self, *_, **__: 0.0), {}, r"own .*\.compute_loss"),
    (train_with_average, own(train_step=lambda self, data: {}), {}, r"own .*\.train_step"),
    (fit, step_of_an_instance(), {}, r"own .*\.train_step"),
    (fit, *loss_with_the_model(), "extra_loss has layer '.*' of model"),
    *(
        (fit, toy_model(), {"validation": x, "metric": "recall"}, "user_vocabulary of validation")
        for x in OTHERS
    ),
    (train_with_average, toy_model(), {"validation": len, "patience": 1}, "lower_is_better is"),
]


@pytest.mark.parametrize("train, model, options, message", REFUSED)
def test_what_cannot_be_honoured_is_refused(train, model, options, message):
    before, data = model.get_weights(), rows_of("a") if "metric" in options else toy_data()
    with pytest.raises((TypeError, ValueError), match=message):
        train(model, data, epochs=1, progress=False, **options)
    assert_same_weights(model.get_weights(), before)


def test_a_compiled_model_is_told_that_this_is_not_used():
    model = toy_model()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"model is compiled.*not used"):
        train(model, epochs=1)
    with warnings.catch_warnings(action="error"):
        train(toy_model(), epochs=1)


class Scale(keras.layers.Layer):
    """A layer whose attributes its configuration leaves out."""

    by, noise, table = 1.0, 0.0, np.zeros(500, np.float32)

    def call(self, x, training=False):
        if self.noise and training:
            x = x + self.noise
        return x * self.by + tf.reduce_sum(self.table)


CHANGES = [{"by": 2.0}, {"noise": 0.5}, {"table": [1.0]}, {"table": np.ones(500, np.float32)}]


@pytest.mark.parametrize("loss", [False, True], ids=["model", "extra_loss"])
@pytest.mark.slow
def test_a_checkpoint_sees_what_no_configuration_tells(tmp_path, loss):
    def run(epochs, **attributes):
        layer = Scale()
        vars(layer).update(attributes)
        model, more = towers(more=(lambda x: x) if loss else layer), {}
        if loss:
            more["extra_loss"] = lambda batch: tf.reduce_mean(layer(batch.logits, training=True))
        before = model.get_weights()
        try:
            return train(model, epochs=epochs, checkpoint=tmp_path / "run", **more).epochs
        except ValueError:
            assert_same_weights(model.get_weights(), before)
            raise

    run(1)
    for change in CHANGES:
        with pytest.raises(ValueError, match="model_graph was"):
            run(2, **change)
    assert run(2) == 2


def few():
    return towers(), DATA


def many():  # so many interactions that products are compiled
    random = np.random.default_rng(0)
    data = Interactions(random.integers(100, size=60_000), random.integers(90, size=60_000))
    return build_rating_model(RatingModelConfig("dot_product", 100, 90, 8)), data


@pytest.mark.slow
@pytest.mark.parametrize("start", [few, many])
def test_memory_does_not_grow_with_fits(start, growth):
    def fits():
        for _ in range(3):
            train(*start(), epochs=1)

    size, objects = growth(fits)
    assert objects < 1000  # a graph has 3,000 a fit
    assert size < 6  # it was 14, and 60 with a program a fit
