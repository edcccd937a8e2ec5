"""Distillation acts, mixes as it says, leaves what it is given alone, and refuses nonsense."""

from __future__ import annotations

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression.distillation import (
    CollaborativeDistillation,
    DistillationExperts,
    RankingDistillation,
    RelaxedRankingDistillation,
    SoftLabels,
    TeacherScores,
    agreement,
    distill,
)
from recsys_lib.compression.distillation.methods import draw_outside, pair_keys
from recsys_lib.compression.distillation.ranked import draw_by_rank
from recsys_lib.data import Interactions, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.models import IALS, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender, fit

DATA = make_synthetic(SyntheticConfig("video", 120, 90, 22.5), seed=3)
TEACHER = IALS(embedding_dim=16, l2=0.05).fit(DATA)
CONFIG = RatingModelConfig("dot_product", DATA.num_users, DATA.num_items, embedding_dim=8)
USERS = np.arange(DATA.num_users)
PLAIN = {"objective": "bpr", "epochs": 8, "batch_size": 256, "progress": False, "seed": 4}

METHODS = {
    "listwise": SoftLabels(weight=0.8, temperature=2.0, standardize=True),
    "listwise over candidates": SoftLabels(weight=0.8, num_candidates=40, standardize=True),
    "listwise over drawn items": SoftLabels(weight=0.8, items_per_update=40, standardize=True),
    "binary": SoftLabels(weight=0.8, loss="binary", standardize=True),
    "regression": SoftLabels(weight=0.8, loss="regression", standardize=True),
    "RD": RankingDistillation(weight=0.8),
    "CD": CollaborativeDistillation(weight=0.8, num_items=20, pool=40),
    "RRD": RelaxedRankingDistillation(
        weight=0.8, num_interesting=15, num_uninteresting=20, pool=30
    ),
    "DE": DistillationExperts(weight=0.8, num_experts=2),
}


def options(**more):
    return PLAIN | {"optimizer": keras.optimizers.Adam(0.02)} | more


def plain_student(**more):
    model = build_rating_model(CONFIG)
    fit(model, DATA, **options(**more))
    recommender = KerasRecommender(CONFIG)
    recommender._use(CONFIG, model)
    recommender.num_users, recommender.num_items = DATA.num_users, DATA.num_items
    return recommender


@pytest.fixture(scope="module")
def alone():
    return plain_student()


@pytest.mark.parametrize("name", METHODS)
def test_the_student_agrees_more_with_its_teacher(name, alone):
    taught = distill(TEACHER, CONFIG, DATA, METHODS[name], **options()).model
    before, after = (agreement(TEACHER, s, USERS, exclude=DATA) for s in (alone, taught))
    assert after.overlap > before.overlap + 0.005


@pytest.mark.parametrize("count", [1, 2])
def test_with_weight_zero_it_is_plain_training_to_the_bit(count, alone):
    taught = distill(TEACHER, CONFIG, DATA, *[SoftLabels(weight=0.0)] * count, **options()).model
    for got, wanted in zip(
        taught.keras_model.get_weights(), alone.keras_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_the_loss_is_the_weighted_sum():
    """One update of plain SGD moves by (1 - w) times one gradient plus w times the other."""

    def moved(*methods):
        sgd = keras.optimizers.SGD(1.0)
        settings = options(optimizer=sgd, epochs=1, batch_size=len(DATA))
        model = distill(TEACHER, CONFIG, DATA, *methods, **settings).model.keras_model
        start = build_rating_model(CONFIG).get_weights()
        return [a - b for a, b in zip(model.get_weights(), start, strict=True)]

    labels, teacher, both, two = (
        moved(SoftLabels(weight=0.0)),
        moved(SoftLabels(weight=1.0)),
        moved(SoftLabels(weight=0.3)),
        moved(SoftLabels(weight=0.3), DistillationExperts(weight=0.0)),
    )
    for a, b, mixed, pair in zip(labels, teacher, both, two, strict=True):
        np.testing.assert_allclose(mixed, 0.7 * a + 0.3 * b, atol=2e-6)
        np.testing.assert_array_equal(pair, mixed)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_items_drawn_for_each_update_are_other_ones_and_all_are_the_catalogue(jit_compile):
    def moved(items, users=32, epochs=1):
        sgd = keras.optimizers.SGD(1.0)
        method = SoftLabels(weight=1.0, users_per_update=users, items_per_update=items)
        settings = options(optimizer=sgd, epochs=epochs, batch_size=len(DATA))
        settings |= {"jit_compile": jit_compile}
        taught = distill(TEACHER, CONFIG, DATA, method, **settings).model
        start = build_rating_model(CONFIG).get_weights()[1]
        return taught.keras_model.get_weights()[1] - start  # of the items

    np.testing.assert_allclose(moved(90), moved(None), atol=1e-6)
    touched = [(np.abs(moved(10, epochs=n)) > 0).any(axis=1).sum() for n in (1, 4)]
    assert touched[0] == 10
    assert 10 < touched[1] <= 40


@pytest.mark.parametrize("kind", ["matrix_factorization", "two_tower", "neumf"])
def test_any_keras_student_is_taught_over_the_whole_catalogue(kind):
    config = RatingModelConfig(kind, DATA.num_users, DATA.num_items, embedding_dim=4)
    method = SoftLabels(weight=1.0, standardize=True, users_per_update=32)
    run = distill(TEACHER, config, DATA, method, **options(epochs=10))
    assert run.history.loss[-1] < 0.8 * run.history.loss[0]
    assert run.model.recommend([0, 1], k=3).shape == (2, 3)


def test_nothing_given_is_changed_and_a_fitted_student_goes_on():
    model = build_rating_model(CONFIG)
    recommender = KerasRecommender(CONFIG, **options(epochs=2)).fit(DATA)
    given = [w.copy() for m in (model, recommender.keras_model) for w in m.get_weights()]
    vectors = TEACHER.item_vectors.copy()
    for student in (model, recommender):
        result = distill(TEACHER, student, DATA, SoftLabels(weight=0.5), **options(epochs=1))
        assert isinstance(result.model, KerasRecommender)
        assert result.model is not student
    kept = [w for m in (model, recommender.keras_model) for w in m.get_weights()]
    for a, b in zip(given, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(TEACHER.item_vectors, vectors)
    assert recommender.options == options(epochs=2) | {
        "optimizer": recommender.options["optimizer"]
    }
    still = distill(
        TEACHER, recommender, DATA, SoftLabels(), **options(optimizer=keras.optimizers.SGD(1e-9))
    )
    np.testing.assert_allclose(
        still.model.score_all_items(USERS), recommender.score_all_items(USERS), atol=1e-5
    )


def test_a_keras_model_of_another_make_comes_back_as_one():
    inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
    user, item = (keras.layers.Embedding(n, 4)(x) for n, x in zip((120, 90), inputs, strict=True))
    model = keras.Model(inputs, keras.ops.sum(user * item, axis=-1))
    result = distill(TEACHER, model, DATA, SoftLabels(num_candidates=20), **options(epochs=2))
    assert isinstance(result.model, keras.Model)
    assert result.model is not model


def test_scores_are_computed_once_for_several_students():
    calls = []

    def teacher(user_ids, item_ids):
        calls.append(len(user_ids))
        return TEACHER.score(user_ids, item_ids)

    scores = TeacherScores(teacher, DATA.num_users, DATA.num_items)
    for seed in (1, 2):
        distill(scores, CONFIG, DATA, SoftLabels(), **options(epochs=1, seed=seed))
    assert sum(calls) == 120 * 90


def test_ranking_distillation_by_hand():
    """Without sampling: the places' weights times the cross entropy of items that are liked."""
    scores = np.float32([[3.0, 2.0, 1.0]])
    lesson = SimpleNamespace(
        teacher=TeacherScores(scores, 1, 3), train=None, num_users=1, num_items=3,
        score=lambda users, items: tf.gather(tf.constant([0.0, math.log(3), 5.0]), items),
    )  # fmt: skip
    method = RankingDistillation(num_items=2, decay=1.0, num_sampled=0, users_per_update=1)
    batch = SimpleNamespace(step=tf.constant(0, tf.int64))
    first = 1 / (1 + math.exp(-1))  # the second place counts 1/e of it
    expected = first * math.log(2) + (1 - first) * math.log(4 / 3)
    assert float(method.make_term(lesson, seed=0)(batch)) == pytest.approx(expected, rel=1e-5)


def test_draws_by_rank_have_the_probabilities_of_drawing_one_after_the_other():
    drawn = draw_by_rank(np.random.default_rng(1), 40_000, pool=3, count=2, decay=1.0)
    p = np.exp(-np.arange(3.0))
    p /= p.sum()
    for a, b in ((0, 1), (0, 2), (1, 2)):
        expected = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        seen = (drawn == (a, b)).all(axis=1).mean()
        assert seen == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(drawn)))


def test_draws_outside_are_uniform_and_never_excluded():
    excluded = pair_keys(5, np.array([0, 0, 1, 1]), np.array([0, 3, 4, 4]))
    drawn = draw_outside(np.random.default_rng(2), 5, 30_000, excluded)
    for row, allowed in zip(drawn, ([1, 2, 4], [0, 1, 2, 3]), strict=True):
        items, counts = np.unique(row, return_counts=True)
        assert items.tolist() == allowed
        np.testing.assert_allclose(counts / len(row), 1 / len(allowed), atol=0.015)


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        (SoftLabels, {"weight": 1.1}),
        (RelaxedRankingDistillation, {"weight": -0.1}),
        (SoftLabels, {"temperature": 0}),
        (CollaborativeDistillation, {"temperature": -1.0}),
        (SoftLabels, {"num_candidates": 1}),
        (SoftLabels, {"items_per_update": 1}),
        (SoftLabels, {"items_per_update": 5, "num_candidates": 5}),
        (SoftLabels, {"loss": "hinge"}),
        (RelaxedRankingDistillation, {"pool": 10}),
        (DistillationExperts, {"last_temperature": 2.0}),
        (RankingDistillation, {"num_items": 0}),
    ],
)
def test_settings_out_of_range_are_refused(method, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        method(**setting)


def test_numpy_numbers_are_kept_as_plain_ones():
    method = RankingDistillation(weight=np.float32(0.5), num_items=np.int64(7))
    assert type(method.weight) is float and type(method.num_items) is int


def refusal(error, message, *methods, teacher=TEACHER, student=CONFIG, **more):
    with pytest.raises(error, match=message):
        distill(teacher, student, DATA, *methods, **options(**more))


def test_what_does_not_fit_is_refused():
    half = SoftLabels(weight=0.6)
    refusal(ValueError, "weights", half, half)
    refusal(TypeError, "methods", "RRD")
    refusal(TypeError, "checkpoint", checkpoint="run.npz")
    refusal(ValueError, r"teacher.* NaN", teacher=np.full((120, 90), np.nan))
    refusal(ValueError, "teacher", teacher=np.zeros((90, 120)))
    refusal(TypeError, "model is of type str", student="small")
    refusal(ValueError, "student", student=RatingModelConfig("dot_product", 7, 90))
    refusal(ValueError, "items_per_update is 91", SoftLabels(items_per_update=91))
    neumf = RatingModelConfig("neumf", 120, 90)
    refusal(TypeError, "inner product", DistillationExperts(), student=neumf)
    with pytest.raises(ValueError, match="at least two candidates"):
        distill(
            np.zeros((2, 1)),
            RatingModelConfig("dot_product", 2, 1),
            Interactions([0, 1], [0, 0]),
            SoftLabels(weight=1.0),
            **options(),
        )
