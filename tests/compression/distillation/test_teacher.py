"""Teachers of every kind give the same scores; bad ones are refused before any training."""

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
    assert scores.all_scores() is got  # computed once
    if isinstance(teacher, Ensemble):  # one scale per user, the same order
        got = got * EXPECTED.std(axis=1, keepdims=True) + EXPECTED.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got, EXPECTED, atol=1e-5)


@pytest.mark.parametrize("kind", ["dot_product", "neumf"])
def test_a_keras_model_and_its_recommender_teach_the_same(kind):
    config = RatingModelConfig(kind, 30, 20, embedding_dim=4)
    recommender = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    for teacher in (recommender, recommender.keras_model):
        scores = TeacherScores(teacher, 30, 20).all_scores()
        np.testing.assert_allclose(scores, recommender.score_all_items(np.arange(30)), atol=1e-5)


def test_lists_leave_out_what_was_met_and_are_kept():
    scores = TeacherScores(MODEL, 30, 20)
    lists = scores.best_items(3, DATA)
    met = DATA.to_csr("binary").toarray() > 0
    assert not np.take_along_axis(met, lists.astype(np.int64), axis=1).any()
    assert scores.best_items(3, DATA) is lists
    np.testing.assert_allclose(scores.scores_of(lists), np.take_along_axis(EXPECTED, lists, axis=1))


def test_an_ensemble_is_the_mean_of_standardised_scores():
    members = [Popularity().fit(DATA), EASE(l2=5.0).fit(DATA)]
    users = np.array([3, 9])
    parts = [m.score_all_items(users).astype(np.float64) for m in members]
    for exclude in (None, DATA):
        counted = np.ones((2, 20), bool) if exclude is None else DATA.to_csr()[users].toarray() == 0
        scaled = [
            [(row - row[own].mean()) / row[own].std() for row, own in zip(p, counted, strict=True)]
            for p in parts
        ]
        both = Ensemble(members, weights=[1, 3], exclude=exclude)
        expected = 0.25 * np.array(scaled[0]) + 0.75 * np.array(scaled[1])
        np.testing.assert_allclose(both.score_all_items(users), expected, atol=1e-4)
        pairs = both.score([9, 3, 9], [0, 5, 19])
        np.testing.assert_allclose(pairs, expected[[1, 0, 1], [0, 5, 19]], atol=1e-4)


def never(user_ids, item_ids):
    raise AssertionError("called")


NAN = np.where(np.arange(600).reshape(30, 20) == 77, np.nan, EXPECTED)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (MemoryError, "2,400 bytes",  # before anything is computed
         lambda: TeacherScores(never, 30, 20, max_cache_bytes=2_399).all_scores()),
        (ValueError, "teacher.* NaN", lambda: TeacherScores(NAN, 30, 20).all_scores()),
        (ValueError, "teacher.* NaN", lambda: TeacherScores(NAN, 30, 20).best_items(2)),
        (ValueError, r"teacher.*\(20, 30\)", lambda: TeacherScores(EXPECTED.T, 30, 20)),
        (ValueError, "teacher counts", lambda: TeacherScores(MODEL, 30, 21)),
        (ValueError, r"teacher.*\(600, 1\)",
         lambda: TeacherScores(lambda u, i: EXPECTED[u, i][:, None], 30, 20).all_scores()),
        (TypeError, "teacher is of type str", lambda: TeacherScores("iALS", 30, 20)),
        (ValueError, "fewer than 20", lambda: TeacherScores(MODEL, 30, 20).best_items(20, DATA)),
        (TypeError, "teacher is of type", lambda: TeacherScores(EXPECTED, 30, 20).vectors()),
        (ValueError, "exclude", lambda: Ensemble([MODEL], exclude=Interactions([0], [0]))),
        (ValueError, "members", lambda: Ensemble([])),
        (TypeError, "members", lambda: Ensemble([EXPECTED])),
        (ValueError, "weights", lambda: Ensemble([MODEL, MODEL], weights=[0, 0])),
        (ValueError, "weights", lambda: Ensemble([MODEL, MODEL], weights=[1])),
    ],
)  # fmt: skip
def test_refuses(error, words, call):
    with pytest.raises(error, match=words):
        call()
