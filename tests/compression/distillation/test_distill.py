"""Distillation acts, mixes as it says, leaves what it is given alone, and refuses nonsense."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression import distillation as kd
from recsys_lib.compression.distillation import distill
from recsys_lib.compression.distillation.methods import draw_outside, pair_keys
from recsys_lib.compression.distillation.ranked import draw_by_rank
from recsys_lib.data import Interactions, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.models import EASE, IALS, Popularity, RatingModelConfig, build_rating_model
from recsys_lib.training import KerasRecommender

DATA = make_synthetic(SyntheticConfig("video", 120, 90, 22.5), seed=3)
TEACHER = IALS(embedding_dim=16, l2=0.05).fit(DATA)
CONFIG = RatingModelConfig("dot_product", 120, 90, embedding_dim=8)
USERS = np.arange(120)
METHODS = [
    kd.SoftLabels(0.8, temperature=2.0, standardize=True),
    *(kd.SoftLabels(0.8, loss=loss, standardize=True) for loss in ("binary", "regression")),
    *(
        kd.SoftLabels(0.8, **{name: 40}, standardize=True)
        for name in ("num_candidates", "items_per_update")
    ),
    *(kd.RankingDistillation(0.8), kd.CollaborativeDistillation(0.8, num_items=20, pool=40)),
    kd.RelaxedRankingDistillation(0.8, num_interesting=15, num_uninteresting=20, pool=30),
    kd.DistillationExperts(0.8, num_experts=2),
]
PLAIN = {"objective": "bpr", "epochs": 8, "batch_size": 256, "progress": False, "seed": 4}


def options(**more):
    return PLAIN | {"optimizer": keras.optimizers.Adam(0.02)} | more


def assert_same(first, second, atol=0):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def alone():
    return KerasRecommender(CONFIG, **options()).fit(DATA)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_the_student_agrees_more_with_its_teacher(method, alone):
    taught = distill(TEACHER, CONFIG, DATA, method, **options()).model
    before, after = (kd.agreement(TEACHER, s, USERS, exclude=DATA) for s in (alone, taught))
    assert after.overlap > before.overlap + 0.005


def test_with_weight_zero_it_is_plain_training_to_the_bit(alone):
    nothing = kd.SoftLabels(weight=0.0), kd.DistillationExperts(weight=0.0)
    taught = distill(TEACHER, CONFIG, DATA, *nothing, **options()).model
    assert_same(taught.keras_model.get_weights(), alone.keras_model.get_weights())


def moves(*methods, epochs=1):
    """How far plain SGD over all the data at once moves each of the student's weights."""
    settings = options(optimizer=keras.optimizers.SGD(1.0), epochs=epochs, batch_size=len(DATA))
    model = distill(TEACHER, CONFIG, DATA, *methods, **settings).model.keras_model
    start = build_rating_model(CONFIG).get_weights()
    return [a - b for a, b in zip(model.get_weights(), start, strict=True)]


@pytest.mark.slow
def test_the_loss_is_the_weighted_sum():
    """One update moves by (1 - w) times one gradient plus w times the other."""
    labels, teacher, mixed = (moves(kd.SoftLabels(weight=w)) for w in (0.0, 1.0, 0.3))
    sums = [0.7 * a + 0.3 * b for a, b in zip(labels, teacher, strict=True)]
    assert_same(mixed, sums, atol=2e-6)
    assert_same(moves(kd.SoftLabels(weight=0.3), kd.DistillationExperts(weight=0.0)), mixed)


@pytest.mark.slow
def test_items_drawn_for_each_update_are_other_ones_and_all_are_the_catalogue():
    def moved(items, epochs=1):
        return moves(kd.SoftLabels(1.0, users_per_update=32, items_per_update=items), epochs=epochs)

    np.testing.assert_allclose(moved(90)[1], moved(None)[1], atol=1e-6)
    touched = [(np.abs(moved(10, epochs=n)[1]) > 0).any(axis=1).sum() for n in (1, 4)]
    assert touched[0] == 10 < touched[1] <= 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two_tower", "neumf"])
def test_any_keras_student_is_taught_over_the_whole_catalogue(kind):
    config = RatingModelConfig(kind, 120, 90, embedding_dim=4)
    method = kd.SoftLabels(weight=1.0, standardize=True, users_per_update=32)
    run = distill(TEACHER, config, DATA, method, **options(epochs=10))
    assert run.history.loss[-1] < 0.8 * run.history.loss[0]
    assert run.model.recommend([0, 1], k=3).shape == (2, 3)


@pytest.mark.slow
def test_nothing_given_is_changed_and_a_fitted_student_goes_on():
    model, slow = (
        build_rating_model(CONFIG),
        options(optimizer=keras.optimizers.SGD(1e-9), epochs=1),
    )
    before = [w.copy() for w in (*model.get_weights(), TEACHER.item_vectors)]
    distill(TEACHER, model, DATA, kd.SoftLabels(), **options(epochs=1))
    assert_same(before, [*model.get_weights(), TEACHER.item_vectors])
    fitted = KerasRecommender(CONFIG, **options(epochs=2)).fit(DATA)
    still = distill(TEACHER, fitted, DATA, kd.SoftLabels(), **slow).model
    assert_same(still.score_all_items(USERS), fitted.score_all_items(USERS), atol=1e-5)


def test_a_keras_model_of_another_make_comes_back_as_one():
    inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
    user, item = (keras.layers.Embedding(n, 4)(x) for n, x in zip((120, 90), inputs, strict=True))
    model = keras.Model(inputs, keras.ops.sum(user * item, axis=-1))
    scores = kd.TeacherScores(TEACHER, 120, 90)
    result = distill(scores, model, DATA, kd.SoftLabels(num_candidates=20), **options(epochs=2))
    assert isinstance(result.model, keras.Model) and result.model is not model


def test_ranking_distillation_by_hand():
    """Without sampling: the places' weights times the cross entropy of items that are liked."""
    scores = np.float32([[3.0, 2.0, 1.0]])
    lesson = SimpleNamespace(
        teacher=kd.TeacherScores(scores, 1, 3), train=None, num_users=1, num_items=3,
        score=lambda users, items: tf.gather(tf.constant([0.0, math.log(3), 5.0]), items),
    )  # fmt: skip
    method = kd.RankingDistillation(num_items=2, decay=1.0, num_sampled=0, users_per_update=1)
    batch = SimpleNamespace(step=tf.constant(0, tf.int64))
    first = 1 / (1 + math.exp(-1))  # the second place counts 1/e of it
    expected = first * math.log(2) + (1 - first) * math.log(4 / 3)
    assert float(method.make_term(lesson, 0)(batch)) == pytest.approx(expected, rel=1e-5)


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


RNG = np.random.default_rng(0)
FEW = Interactions(RNG.integers(0, 30, 200), RNG.integers(0, 20, 200), num_users=30, num_items=20)
SMALL = IALS(embedding_dim=4).fit(FEW)
EXPECTED = SMALL.user_vectors @ SMALL.item_vectors.T


class OnlyScore:
    def score(self, user_ids, item_ids):
        return EXPECTED[user_ids, item_ids]


@pytest.mark.parametrize(
    "teacher",
    [SMALL, EXPECTED, OnlyScore(), lambda u, i: EXPECTED[u, i], kd.Ensemble([SMALL])],
    ids=["recommender", "array", "score", "function", "ensemble"],
)
def test_any_scorer_teaches(teacher):
    scores = kd.TeacherScores(teacher, 30, 20)
    lists = np.argsort(-EXPECTED, axis=1)[:, :5]
    np.testing.assert_array_equal(scores.best_items(5), lists)
    got = scores.all_scores()
    assert scores.all_scores() is got  # computed once
    if isinstance(teacher, kd.Ensemble):  # one scale per user, the same order
        got = got * EXPECTED.std(axis=1, keepdims=True) + EXPECTED.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got, EXPECTED, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dot_product", "neumf"])
def test_a_keras_model_and_its_recommender_teach_the_same(kind):
    config = RatingModelConfig(kind, 30, 20, embedding_dim=4)
    model = KerasRecommender(config, epochs=1, progress=False).fit(FEW)
    for teacher in (model, model.keras_model):
        found = kd.TeacherScores(teacher, 30, 20).all_scores()
        np.testing.assert_allclose(found, model.score_all_items(np.arange(30)), atol=1e-5)


def test_lists_leave_out_what_was_met_and_are_kept():
    scores = kd.TeacherScores(SMALL, 30, 20)
    lists = scores.best_items(3, FEW)
    met = FEW.to_csr("binary").toarray() > 0
    assert not np.take_along_axis(met, lists.astype(np.int64), axis=1).any()
    assert scores.best_items(3, FEW) is lists
    np.testing.assert_allclose(scores.scores_of(lists), np.take_along_axis(EXPECTED, lists, axis=1))


@pytest.mark.parametrize("exclude", [None, FEW])
def test_an_ensemble_is_the_mean_of_standardised_scores(exclude):
    members, users = [Popularity().fit(FEW), EASE(l2=5.0).fit(FEW)], np.array([3, 9])
    seen = FEW.to_csr()[users].toarray() > 0
    expected = np.zeros((2, 20))
    for weight, member in zip((0.25, 0.75), members, strict=True):
        scores = member.score_all_items(users).astype(np.float64)
        own = np.ma.array(scores, mask=seen & (exclude is not None))
        expected += weight * (scores - own.mean(1, keepdims=True)) / own.std(1, keepdims=True)
    both = kd.Ensemble(members, weights=[1, 3], exclude=exclude)
    np.testing.assert_allclose(both.score_all_items(users), expected, atol=1e-4)
    pairs = both.score([9, 3, 9], [0, 5, 19])
    np.testing.assert_allclose(pairs, expected[[1, 0, 1], [0, 5, 19]], atol=1e-4)


def test_refuses(refuses):
    nan = np.where(np.arange(600).reshape(30, 20) == 77, np.nan, EXPECTED)
    column, ones = (lambda u, i: EXPECTED[u, i][:, None]), Interactions([0], [0])
    never = kd.TeacherScores(lambda u, i: pytest.fail("called"), 30, 20)
    never.max_cache_bytes = 2_399
    half, neumf = kd.SoftLabels(weight=0.6), RatingModelConfig("neumf", 120, 90)
    small, many = RatingModelConfig("dot_product", 7, 90), kd.SoftLabels(items_per_update=91)

    def run(*methods, teacher=TEACHER, student=CONFIG, **more):
        return lambda: distill(teacher, student, DATA, *methods, **options(**more))

    refuses(
        ("weights", run(half, half)),
        ("methods", run("RRD")),
        ("checkpoint", run(checkpoint="run.npz")),
        ("teacher", run(teacher=np.zeros((90, 120)))),
        ("model is of type str", run(student="small")),
        ("student", run(student=small)),
        ("items_per_update is 91", run(many)),
        ("inner product", run(kd.DistillationExperts(), student=neumf)),
        ("items_per_update", lambda: kd.SoftLabels(items_per_update=5, num_candidates=5)),
        ("pool", lambda: kd.RelaxedRankingDistillation(pool=10)),
        ("averaging", lambda: kd.MeanTeacher(averaging=0.9)),
        ("2,400 bytes", never.all_scores),  # before anything is computed
        ("teacher", lambda: kd.TeacherScores(nan, 30, 20).all_scores()),
        ("teacher", lambda: kd.TeacherScores(nan, 30, 20).best_items(2)),
        (r"teacher.*\(20, 30\)", lambda: kd.TeacherScores(EXPECTED.T, 30, 20)),
        ("teacher counts", lambda: kd.TeacherScores(SMALL, 30, 21)),
        (r"\(600, 1\)", lambda: kd.TeacherScores(column, 30, 20).all_scores()),
        ("teacher is of type str", lambda: kd.TeacherScores("iALS", 30, 20)),
        ("fewer than 20", lambda: kd.TeacherScores(SMALL, 30, 20).best_items(20, FEW)),
        ("teacher is of type", lambda: kd.TeacherScores(EXPECTED, 30, 20).vectors()),
        ("exclude", lambda: kd.Ensemble([SMALL], exclude=ones)),
        ("member", lambda: kd.Ensemble([])),
        ("members", lambda: kd.Ensemble([EXPECTED])),
        ("weights", lambda: kd.Ensemble([SMALL, SMALL], weights=[0, 0])),
        ("weights", lambda: kd.Ensemble([SMALL, SMALL], weights=[1])),
    )
