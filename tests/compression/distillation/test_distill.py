"""Distillation acts, mixes as it says, leaves what it is given alone, and refuses nonsense."""

from __future__ import annotations

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize("method", [SoftLabels(weight=0.0), (SoftLabels(weight=0.0),) * 2])
def test_with_weight_zero_it_is_plain_training_to_the_bit(method, alone):
    taught = distill(TEACHER, CONFIG, DATA, method, **options()).model
    for got, wanted in zip(
        taught.keras_model.get_weights(), alone.keras_model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_the_loss_is_the_weighted_sum():
    """One update of plain SGD moves by (1 - w) times one gradient plus w times the other."""

    def moved(method):
        sgd = keras.optimizers.SGD(1.0)
        settings = options(optimizer=sgd, epochs=1, batch_size=len(DATA))
        model = distill(TEACHER, CONFIG, DATA, method, **settings).model.keras_model
        start = build_rating_model(CONFIG).get_weights()
        return [a - b for a, b in zip(model.get_weights(), start, strict=True)]

    labels, teacher, both, two = (
        moved(SoftLabels(weight=0.0)),
        moved(SoftLabels(weight=1.0)),
        moved(SoftLabels(weight=0.3)),
        moved((SoftLabels(weight=0.3), DistillationExperts(weight=0.0))),
    )
    for a, b, mixed, pair in zip(labels, teacher, both, two, strict=True):
        np.testing.assert_allclose(mixed, 0.7 * a + 0.3 * b, atol=2e-6)
        np.testing.assert_array_equal(pair, mixed)


def test_weight_one_ignores_the_labels():
    shuffled = np.random.default_rng(0).permutation(DATA.item_ids)
    other = Interactions(DATA.user_ids, shuffled, num_users=120, num_items=90)
    settings = options(batch_size=len(DATA), epochs=2, jit_compile=False)
    students = [
        distill(TEACHER, CONFIG, data, SoftLabels(weight=1.0), **settings).model
        for data in (DATA, other)
    ]
    scores = [student.score_all_items(USERS) for student in students]
    np.testing.assert_allclose(*scores, atol=1e-6)


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
        result = distill(scores, CONFIG, DATA, SoftLabels(), **options(epochs=1, seed=seed))
    assert sum(calls) == 120 * 90
    assert result.cache_bytes == 4 * 120 * 90


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftLabels(weight=1.1), "weight is 1.1"),
        (lambda: RelaxedRankingDistillation(weight=-0.1), "weight is -0.1"),
        (lambda: SoftLabels(temperature=0), "temperature is 0"),
        (lambda: CollaborativeDistillation(temperature=-1.0), "temperature is -1.0"),
        (lambda: SoftLabels(num_candidates=1), "always 1 and teaches nothing"),
        (lambda: SoftLabels(items_per_update=1), "items_per_update is 1: a softmax"),
        (lambda: SoftLabels(num_candidates=5, items_per_update=5), "beside num_candidates"),
        (lambda: SoftLabels(loss="hinge"), "loss is 'hinge'"),
        (lambda: RelaxedRankingDistillation(pool=10), "pool is 10"),
        (lambda: DistillationExperts(last_temperature=2.0), "last_temperature is 2.0"),
        (lambda: RankingDistillation(num_items=0), "num_items is 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def refusal(error, message, teacher=TEACHER, student=CONFIG, method=None, **more):
    with pytest.raises(error, match=message):
        distill(teacher, student, DATA, method, **options(**more))


def test_what_does_not_fit_is_refused():
    half = SoftLabels(weight=0.6)
    refusal(ValueError, "weights .* at most 1", method=(half, half))
    refusal(TypeError, "method is of type str", method=["RRD"])
    refusal(TypeError, "checkpoint is given", checkpoint="run.npz")
    refusal(ValueError, "NaN", teacher=np.full((120, 90), np.nan))
    refusal(ValueError, "shape", teacher=np.zeros((90, 120)))
    refusal(TypeError, "model is of type str", student="small")
    small = RatingModelConfig("dot_product", 7, 90)
    refusal(ValueError, "student counts 7 users", student=small)
    one_item = Interactions([0, 1], [0, 0])
    with pytest.raises(ValueError, match="at least two candidates"):
        distill(
            np.zeros((2, 1)),
            RatingModelConfig("dot_product", 2, 1),
            one_item,
            SoftLabels(weight=1.0),
            **options(),
        )
    many = SoftLabels(items_per_update=91)
    refusal(ValueError, "items_per_update is 91: expected at most the 90", method=many)
    neumf = RatingModelConfig("neumf", 120, 90)
    refusal(TypeError, "inner product", student=neumf, method=DistillationExperts())
