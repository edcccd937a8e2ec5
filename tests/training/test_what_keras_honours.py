"""What Keras' own fit honours: here it is honoured as well, or refused before training."""

import gc
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression.distillation import train_with_average
from recsys_lib.data import Interactions, Split
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import fit


def toy_data(num_rows=300):
    random = np.random.default_rng(0)
    users, items = random.integers(20, size=num_rows), random.integers(15, size=num_rows)
    return Interactions(users, items, (users + items) % 5 + 1.0, num_users=20, num_items=15)


def toy_model():
    return build_rating_model(RatingModelConfig("matrix_factorization", 20, 15, 4))


def train(model, data=None, **options):
    data = toy_data() if data is None else data
    return fit(model, data, **{"epochs": 2, "batch_size": 64, "progress": False} | options)


def assert_same_weights(first, second):
    first, second = (getattr(x, "get_weights", lambda x=x: x)() for x in (first, second))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


DATA = toy_data(80)
SGD = keras.optimizers.SGD
INPUTS = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **options):
        return 0.0


class Scale(keras.layers.Layer):
    """A layer whose attributes its configuration leaves out."""

    by, noise, table = 1.0, 0.0, np.zeros(500, np.float32)

    def call(self, x, training=False):
        if self.noise and training:
            x = x + self.noise
        return x * self.by + tf.reduce_sum(self.table)


class Penalty(keras.layers.Layer):
    """An extra loss with a regularizer, and with add_loss."""

    def __init__(self, l2=0.0, added=0.0):
        super().__init__()
        self.number = self.add_weight(
            shape=(), initializer="ones", regularizer="l2" if l2 else None
        )
        self.added = added

    def call(self, batch):
        self.add_loss(self.added * self.number)
        return 0.0 * self.number


class OwnUpdate(SGD):
    def apply_gradients(self, pairs):
        return super().apply_gradients([(tf.zeros(weight.shape), weight) for _, weight in pairs])


def towers(rows=20, *, dtype="float32", more=lambda x: x):
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((), dtype="int32", name=x.name) for x in INPUTS]
    rows = [keras.layers.Embedding(rows, 4, dtype=dtype)(x) for x in inputs]
    rows[0] = keras.layers.Dense(4, "silu", dtype=dtype)(more(rows[0]))
    out = keras.layers.Dot(1, dtype=dtype)(rows)
    return keras.Model(inputs, keras.layers.Reshape((), dtype=dtype)(out))


def both(model, optimizer, data=DATA):
    """Train two copies, here and by Keras; return their weights."""
    ours, theirs = model(), model()
    run = {"epochs": 5, "batch_size": 80}  # one batch, so that order plays no role
    fit(ours, data, objective="squared_error", optimizer=optimizer(), progress=False, **run)
    theirs.compile(optimizer(), "mse")
    theirs.fit([data.user_ids, data.item_ids], data.ratings, verbose=0, **run)
    return ours.get_weights(), theirs.get_weights()


OPTIONS = [
    *({"clipnorm": 0.01}, {"clipvalue": 0.001}, {"global_clipnorm": 0.01}, {"weight_decay": 0.1}),
    {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    *({"gradient_accumulation_steps": 2}, {"loss_scale_factor": 64.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 2000])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_options_of_optimizers(options, rows):
    """No id occurs twice: Keras clips the gradients of repeated rows before it adds them up."""
    users, items = np.arange(15), np.arange(15)[::-1]
    data = Interactions(users, items, users % 5 + 1.0, num_users=rows, num_items=rows)

    def build():
        return towers(rows)

    theirs = options
    if "loss_scale_factor" in options:  # Keras cannot, of embeddings
        theirs = {}
    seen = iter([options, theirs])
    for a, b in zip(*both(build, lambda: SGD(0.1, **next(seen)), data), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_layers_with_a_state(frozen):
    def build():
        model = towers(more=keras.layers.BatchNormalization(trainable=not frozen))
        model.layers[1].trainable = not frozen
        return model

    for a, b in zip(*both(build, lambda: SGD(0.1)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_dropout_goes_on_where_it_was(tmp_path):
    def run(model, epochs, **more):
        fit(model, DATA, epochs=epochs, batch_size=32, progress=False, **more)
        return model

    def build():
        return towers(more=keras.layers.Dropout(0.5, seed=3))

    run(build(), 2, checkpoint=tmp_path / "run")
    assert_same_weights(run(build(), 4, checkpoint=tmp_path / "run"), run(build(), 4))


@pytest.mark.slow
def test_half_precision_scales_the_loss_as_keras_does():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        ours, theirs = both(lambda: towers(dtype=None), lambda: SGD(1e-7, clipvalue=1e-9))
        model = towers(dtype=None)
    finally:
        keras.config.set_dtype_policy("float32")
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-9)
    seen = []
    loss = type("Loss", (), {"__call__": lambda self, batch: 0.0})()
    fit(
        model,
        DATA,
        epochs=1,
        progress=False,
        extra_loss=loss,
        on_epoch_end=lambda *x: seen.append(x),
    )
    assert len(seen) == 1 and all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.slow
def test_an_optimizer_with_its_own_way_of_applying():
    for weights in both(towers, lambda: OwnUpdate(0.1)):
        for a, b in zip(weights, towers().get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


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

        extra = {"extra_loss": again} if twice else {}
        train(model, DATA, optimizer=SGD(0.5), **extra)
        return model

    assert_same_weights(push(True), push(False))


def step_of_an_instance():
    model = toy_model()
    model.train_step = lambda data: {}
    return model


@pytest.mark.parametrize("build", [OwnStep, OwnLoss, step_of_an_instance])
def test_a_training_step_of_its_own_is_refused(build):
    own = build is step_of_an_instance
    model = build() if own else build(INPUTS, towers()(INPUTS))
    before = model.get_weights()
    for call in (train, *(() if own else (train_with_average,))):
        with pytest.raises(TypeError, match=r"model has its own .*\.(train_step|compute_loss)"):
            call(model, toy_data(), epochs=1, progress=False)
    assert_same_weights(model.get_weights(), before)


def test_a_compiled_model_is_told_that_this_is_not_used():
    model = toy_model()
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match=r"model is compiled.*not used"):
        train(model, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(toy_model(), epochs=1)


def test_an_extra_loss_that_holds_the_model_is_refused():
    layer, model = Penalty(), toy_model()
    layer.student = model
    with pytest.raises(ValueError, match=r"extra_loss has layer '.*' of model"):
        train(model, extra_loss=layer)


CHANGES = [{"by": 2.0}, {"noise": 0.5}, {"table": [1.0]}, {"table": np.ones(500, np.float32)}]


@pytest.mark.parametrize("loss", [False, True], ids=["model", "extra_loss"])
@pytest.mark.parametrize("change", CHANGES, ids=["number", "in_training", "array", "numbers"])
@pytest.mark.slow
def test_a_checkpoint_sees_what_no_configuration_tells(tmp_path, change, loss):
    def run(epochs, **attributes):
        layer = Scale()
        for name, value in attributes.items():
            setattr(layer, name, value)
        model = towers(more=(lambda x: x) if loss else layer)
        before, more = model.get_weights(), {"checkpoint": tmp_path / "run"}
        if loss:
            more["extra_loss"] = lambda batch: tf.reduce_mean(layer(batch.logits, training=True))
        try:
            return train(model, epochs=epochs, **more).epochs
        except ValueError:
            assert_same_weights(model.get_weights(), before)
            raise

    run(1)
    with pytest.raises(ValueError, match="model_graph was"):
        run(2, **change)
    assert run(2) == 2


def test_validation_of_another_vocabulary_is_refused():
    def read(users):
        frame = {"u": users, "i": list("wxyz") * 5}
        return Interactions.from_frame(frame, user="u", item="i")

    first, other = (read([f"{letter}{n:02}" for n in range(20)]) for letter in "ab")
    negatives = np.tile(np.arange(4), (20, 3))
    for validation in (other, Split(other, other, negatives=negatives)):
        with pytest.raises(ValueError, match="user_vocabulary of validation"):
            train(toy_model(), first, validation=validation, metric="recall")


def test_the_average_asks_for_the_direction_as_fit_does():
    run = {"epochs": 3, "progress": False, "validation": lambda model: 0.5}
    with pytest.raises(ValueError, match="lower_is_better is None"):
        train_with_average(toy_model(), toy_data(), patience=1, **run)
    history = train_with_average(toy_model(), toy_data(), objective="squared_error", **run).history
    assert (history.metric, history.lower_is_better, history.best_epoch) == (
        "validation",
        None,
        None,
    )


@pytest.mark.slow
@pytest.mark.alone
def test_memory_does_not_grow_with_fits():
    process = pytest.importorskip("psutil").Process()
    model, sizes, objects = towers(), [], []
    for _ in range(3):
        for _ in range(10):
            train(model, DATA, epochs=1)
        gc.collect()
        sizes.append(process.memory_info().rss / 2**20)
        objects.append(len(gc.get_objects()))
    assert objects[2] - objects[1] < 1000  # a graph has 3,000 a fit
    assert sizes[2] - sizes[1] < 12  # it was 26
