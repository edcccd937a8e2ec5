from __future__ import annotations

import threading

import numpy as np
import pytest

from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.serving import CandidateScorer

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
RANKERS = ("mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 1100  # more items than go through the layers together


def make_model(kind: str, keras=None, **changes):
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    settings = {"embedding_dim": 12, "global_bias": bias} | changes
    model = build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, **settings), keras)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(size=w.shape) * 0.2 for w in model.get_weights()])
    return model


def table_of(model) -> np.ndarray:
    users, items = np.indices((NUM_USERS, NUM_ITEMS)).reshape(2, -1).astype(np.int32)
    return np.asarray(model([users, items])).reshape(NUM_USERS, NUM_ITEMS)


def check(scorer: CandidateScorer, table: np.ndarray, tolerance: float) -> None:
    atol = tolerance * table.std()
    random = np.random.default_rng(2)
    for count in (0, 1, 2, 15, 16, 17, 100, 1500):
        users, items = random.integers(0, NUM_USERS, count), random.integers(0, NUM_ITEMS, count)
        scores = scorer.score(users, items)
        assert scores.dtype == np.float32 and scores.shape == (count,)
        np.testing.assert_allclose(scores, table[users, items], rtol=0, atol=atol)
        np.testing.assert_allclose(
            scorer.score_candidates(7, items), table[7, items], rtol=0, atol=atol
        )
    np.testing.assert_allclose(scorer.score_candidates(59), table[59], rtol=0, atol=atol)
    np.testing.assert_allclose(scorer.score_all_items([3, 0, 3]), table[[3, 0, 3]], atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_float_scores_are_those_of_keras(kind):
    model = make_model(kind)
    scorer = CandidateScorer(model)
    assert (scorer.num_users, scorer.num_items) == (NUM_USERS, NUM_ITEMS)
    check(scorer, table_of(model), 1e-5)


def test_int8_without_numba_is_a_clear_error(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"recsys-lib\[serving\]"):
        CandidateScorer(make_model("mlp_ranker"), precision="int8")


@pytest.mark.parametrize("kind", RANKERS)
@pytest.mark.parametrize("units", [(64,), (20,), (30, 20), (130, 70, 20), (256, 128, 64)])
def test_int8_scores_are_near_those_of_keras(kind, units):
    model = make_model(kind, hidden_units=units)
    check(CandidateScorer(model, precision="int8"), table_of(model), 0.1)


def test_compiled_layers_compute_what_the_definition_says():
    ranker_int8 = pytest.importorskip("recsys_lib.serving.ranker_int8")
    random = np.random.default_rng(0)
    item_half = random.normal(size=(50, 70)).astype(np.float32)
    user_halves = random.normal(size=(2, 70)).astype(np.float32)
    layers = [
        tuple(random.normal(size=size).astype(np.float32) for size in (shape, shape[1]))
        for shape in ((70, 130), (130, 10))
    ]
    last = random.normal(size=10).astype(np.float32)
    rows, items = np.arange(37) % 2, random.integers(0, 50, 37)
    scores, packed = np.ones(37, np.float32), ranker_int8.pack_layers(layers)
    ranker_int8.add_scores(scores, item_half, items, user_halves, rows, *packed, last)
    # The definition, in NumPy: codes of 8 bits, exact sums, a scale for each row and output.
    values = np.maximum(item_half[items] + user_halves[rows], 0)
    for kernel, bias in layers:
        scale = np.abs(kernel).max(0) / 127
        step = values.max(1, keepdims=True) / 255
        sums = np.floor(values / step + 0.5) @ np.rint(kernel / scale)
        values = np.maximum(sums * step * scale + bias, 0)
    np.testing.assert_allclose(scores - 1, values @ last, rtol=1e-2, atol=1e-2 * scores.std())


def test_an_item_without_activations_scores_the_biases():
    """All ReLUs shut: the largest value of the row is 0, and nothing may be divided by it."""
    model = make_model("mlp_ranker", hidden_units=(8, 4))
    weights = model.get_weights()
    weights[3] = np.full_like(weights[3], -1e3)  # bias of the first layer
    model.set_weights(weights)
    table = table_of(model)
    assert np.ptp(table) == 0
    for precision in ("float32", "int8"):
        scores = CandidateScorer(model, precision=precision).score_candidates(0)
        np.testing.assert_allclose(scores, table[0], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_other_activations(activation):
    model = make_model("neumf", activation=activation)
    check(CandidateScorer(model), table_of(model), 1e-5)
    with pytest.raises(ValueError, match="with relu"):
        CandidateScorer(model, precision="int8")


def test_models_of_tf_keras():
    import tf_keras

    for kind in ("two_tower", "mlp_ranker"):
        model = make_model(kind, tf_keras)
        check(CandidateScorer(model), table_of(model), 1e-5)


def test_the_scorer_is_a_copy():
    model = make_model("mlp_ranker")
    scorer = CandidateScorer(model)
    before = scorer.score_candidates(1)
    model.set_weights([w * 0 for w in model.get_weights()])
    np.testing.assert_array_equal(scorer.score_candidates(1), before)


def test_threads_may_share_a_scorer():
    model = make_model("mlp_ranker")
    for precision in ("float32", "int8"):
        scorer = CandidateScorer(model, precision=precision)
        expected = scorer.score_all_items(np.arange(NUM_USERS))
        wrong: list[int] = []

        def run(user: int, scorer=scorer, expected=expected, wrong=wrong) -> None:
            for _ in range(20):
                if not np.array_equal(scorer.score_candidates(user), expected[user]):
                    wrong.append(user)

        threads = [threading.Thread(target=run, args=(user,)) for user in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


@pytest.mark.parametrize(
    ("method", "arguments", "error", "message"),
    [
        ("score_candidates", (60, [0]), ValueError, "user_id holds 60"),
        ("score_candidates", (0, [1100]), ValueError, "item_ids holds 1100"),
        ("score_candidates", ([1, 2], [0]), ValueError, "user_id"),
        ("score_candidates", (0.0, [0]), TypeError, "user_id"),
        ("score", ([0, 1], [0]), ValueError, r"\(2,\), item_ids \(1,\)"),
    ],
)
def test_ids_are_checked(method, arguments, error, message):
    with pytest.raises(error, match=message):
        getattr(CandidateScorer(make_model("dot_product")), method)(*arguments)


def test_models_that_cannot_be_served_are_refused():
    import keras

    model = make_model("mlp_ranker")
    with pytest.raises(ValueError, match="precision is 'int4'"):
        CandidateScorer(model, precision="int4")
    with pytest.raises(ValueError, match="TopKIndex"):
        CandidateScorer(make_model("two_tower"), precision="int8")
    with pytest.raises(ValueError, match="gelu"):
        CandidateScorer(make_model("mlp_ranker", activation="gelu"))
    model.set_weights([w * np.nan for w in model.get_weights()])
    with pytest.raises(ValueError, match="NaN"):
        CandidateScorer(model)
    other = keras.Model(
        model.inputs, keras.layers.Rescaling(2.0)(make_model("neumf")(model.inputs))
    )
    with pytest.raises((ValueError, TypeError)):
        CandidateScorer(other)


def test_a_model_that_does_something_else_is_not_served():
    """Same names of layers, but the towers' embeddings swapped in the concatenation."""
    import keras

    ids = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [
        keras.layers.Embedding(9, 4, "uniform", name=f"{side}_embedding")(x)
        for side, x in zip(("user", "item"), ids, strict=True)
    ]
    joined = keras.layers.Concatenate(name="concatenate")(tables[::-1])
    hidden = keras.layers.Dense(8, "relu", name="dense_0")(joined)
    score = keras.layers.Reshape(())(keras.layers.Dense(1, name="score")(hidden))
    model = keras.Model(ids, score)
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    with pytest.raises(ValueError, match="other scores"):
        CandidateScorer(model)
