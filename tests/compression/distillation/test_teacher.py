"""Teachers of every kind give the same scores; bad ones are refused before any training."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression.distillation import Ensemble, TeacherScores
from recsys_lib.data import Interactions
from recsys_lib.models import EASE, IALS, Popularity, RatingModelConfig
from recsys_lib.training import KerasRecommender

RNG = np.random.default_rng(0)
DATA = Interactions(RNG.integers(0, 30, 200), RNG.integers(0, 20, 200), num_users=30, num_items=20)
MODEL = IALS(embedding_dim=4).fit(DATA)
EXPECTED = MODEL.user_vectors @ MODEL.item_vectors.T


class OnlyScore:
    def score(self, user_ids, item_ids):
        return EXPECTED[user_ids, item_ids]


@pytest.mark.parametrize(
    "teacher",
    [MODEL, EXPECTED, OnlyScore(), lambda u, i: EXPECTED[u, i], Ensemble([MODEL])],
    ids=["recommender", "array", "score", "function", "ensemble"],
)
def test_any_scorer_teaches(teacher):
    scores = TeacherScores(teacher, 30, 20)
    lists = np.argsort(-EXPECTED, axis=1)[:, :5]
    np.testing.assert_array_equal(scores.best_items(5), lists)
    got = scores.all_scores()
    if isinstance(teacher, Ensemble):  # one scale per user, the same order
        got = got * EXPECTED.std(axis=1, keepdims=True) + EXPECTED.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got, EXPECTED, atol=1e-5)


@pytest.mark.parametrize("kind", ["dot_product", "neumf"])
def test_a_keras_model_and_its_recommender_teach_the_same(kind):
    config = RatingModelConfig(kind, 30, 20, embedding_dim=4)
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    plain = TeacherScores(recommender.keras_model, 30, 20).all_scores()
    np.testing.assert_allclose(plain, TeacherScores(recommender, 30, 20).all_scores(), atol=1e-5)
    np.testing.assert_allclose(plain, recommender.score_all_items(np.arange(30)), atol=1e-5)


def test_lists_leave_out_what_was_met_and_are_kept():
    scores = TeacherScores(MODEL, 30, 20)
    lists = scores.best_items(3, DATA)
    met = DATA.to_csr("binary").toarray() > 0
    assert not np.take_along_axis(met, lists.astype(np.int64), axis=1).any()
    assert scores.best_items(3, DATA) is lists
    np.testing.assert_allclose(scores.scores_of(lists), np.take_along_axis(EXPECTED, lists, axis=1))


def test_the_bound_of_memory_holds_before_anything_is_computed():
    def never(user_ids, item_ids):
        raise AssertionError("called")

    with pytest.raises(MemoryError, match="2,400 bytes: expected at most 2,399"):
        TeacherScores(never, 30, 20, max_cache_bytes=2_399).all_scores()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = EXPECTED.copy()
    scores[7, 3] = bad
    for ask in (lambda t: t.all_scores(), lambda t: t.best_items(2)):
        with pytest.raises(ValueError, match=r"teacher.* NaN"):
            ask(TeacherScores(scores, 30, 20))


def test_other_shapes_and_other_things_are_refused():
    with pytest.raises(ValueError, match=r"\(20, 30\): expected \(30, 20\)"):
        TeacherScores(EXPECTED.T, 30, 20)
    with pytest.raises(ValueError, match=r"teacher counts 30 users and 20 items"):
        TeacherScores(MODEL, 30, 21)
    with pytest.raises(ValueError, match=r"teacher.*\(600, 1\)"):
        TeacherScores(lambda u, i: EXPECTED[u, i][:, None], 30, 20).all_scores()
    with pytest.raises(TypeError, match="teacher is of type str"):
        TeacherScores("iALS", 30, 20)
    with pytest.raises(ValueError, match="fewer than 20 items"):
        TeacherScores(MODEL, 30, 20).best_items(20, DATA)
    with pytest.raises(TypeError, match="vector per user and item"):
        TeacherScores(EXPECTED, 30, 20).vectors()


def test_an_ensemble_is_the_mean_of_standardised_scores():
    members = [Popularity().fit(DATA), EASE(l2=5.0).fit(DATA)]
    users = np.array([3, 9])
    parts = [m.score_all_items(users).astype(np.float64) for m in members]
    parts = [(p - p.mean(1, keepdims=True)) / p.std(1, keepdims=True) for p in parts]
    both = Ensemble(members, weights=[1, 3])
    np.testing.assert_allclose(
        both.score_all_items(users), 0.25 * parts[0] + 0.75 * parts[1], atol=1e-4
    )
    pairs = np.array([9, 3, 9]), np.array([0, 5, 19])
    rows = both.score_all_items(pairs[0])
    np.testing.assert_allclose(both.score(*pairs), rows[np.arange(3), pairs[1]], atol=1e-6)
    unseen = DATA.to_csr().toarray()[3] == 0
    rows = [m.score_all_items([3])[0] for m in members]
    rows = [(row - row[unseen].mean()) / row[unseen].std() for row in rows]
    of_unseen = Ensemble(members, weights=[1, 3], exclude=DATA).score_all_items([3])[0]
    np.testing.assert_allclose(of_unseen, 0.25 * rows[0] + 0.75 * rows[1], atol=1e-4)


@pytest.mark.parametrize(
    ("members", "more", "error", "message"),
    [
        ([MODEL], {"exclude": Interactions([0], [0])}, ValueError, "exclude"),
        ([], {}, ValueError, "members"),
        ([EXPECTED], {}, TypeError, "members"),
        ([MODEL, MODEL], {"weights": [0, 0]}, ValueError, "weights"),
        ([MODEL, MODEL], {"weights": [1]}, ValueError, "weights"),
    ],
)
def test_an_ensemble_refuses(members, more, error, message):
    with pytest.raises(error, match=message):
        Ensemble(members, **more)
