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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dot_product", "neumf"])
def test_a_keras_model_and_its_recommender_teach_the_same(kind):
    config = RatingModelConfig(kind, 30, 20, embedding_dim=4)
    model = KerasRecommender(config, epochs=1, progress=False).fit(DATA)
    one, other = (TeacherScores(m, 30, 20).all_scores() for m in (model, model.keras_model))
    np.testing.assert_allclose(one, model.score_all_items(np.arange(30)), atol=1e-5)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_lists_leave_out_what_was_met_and_are_kept():
    scores = TeacherScores(MODEL, 30, 20)
    lists = scores.best_items(3, DATA)
    met = DATA.to_csr("binary").toarray() > 0
    assert not np.take_along_axis(met, lists.astype(np.int64), axis=1).any()
    assert scores.best_items(3, DATA) is lists
    np.testing.assert_allclose(scores.scores_of(lists), np.take_along_axis(EXPECTED, lists, axis=1))


@pytest.mark.parametrize("exclude", [None, DATA])
def test_an_ensemble_is_the_mean_of_standardised_scores(exclude):
    members, users = [Popularity().fit(DATA), EASE(l2=5.0).fit(DATA)], np.array([3, 9])
    seen = DATA.to_csr()[users].toarray() > 0
    expected = np.zeros((2, 20))
    for weight, member in zip((0.25, 0.75), members, strict=True):
        scores = member.score_all_items(users).astype(np.float64)
        own = np.ma.array(scores, mask=seen & (exclude is not None))
        expected += weight * (scores - own.mean(1, keepdims=True)) / own.std(1, keepdims=True)
    both = Ensemble(members, weights=[1, 3], exclude=exclude)
    np.testing.assert_allclose(both.score_all_items(users), expected, atol=1e-4)
    pairs = both.score([9, 3, 9], [0, 5, 19])
    np.testing.assert_allclose(pairs, expected[[1, 0, 1], [0, 5, 19]], atol=1e-4)


def test_refuses():
    nan = np.where(np.arange(600).reshape(30, 20) == 77, np.nan, EXPECTED)
    column, ones = (lambda u, i: EXPECTED[u, i][:, None]), Interactions([0], [0])
    never = TeacherScores(lambda u, i: pytest.fail("called"), 30, 20)
    never.max_cache_bytes = 2_399
    for error, word, call in (
        (MemoryError, "2,400 bytes", never.all_scores),  # before anything is computed
        (ValueError, "teacher.* NaN", lambda: TeacherScores(nan, 30, 20).all_scores()),
        (ValueError, "teacher.* NaN", lambda: TeacherScores(nan, 30, 20).best_items(2)),
        (ValueError, r"teacher.*\(20, 30\)", lambda: TeacherScores(EXPECTED.T, 30, 20)),
        (ValueError, "teacher counts", lambda: TeacherScores(MODEL, 30, 21)),
        (ValueError, r"\(600, 1\)", lambda: TeacherScores(column, 30, 20).all_scores()),
        (TypeError, "teacher is of type str", lambda: TeacherScores("iALS", 30, 20)),
        (ValueError, "fewer than 20", lambda: TeacherScores(MODEL, 30, 20).best_items(20, DATA)),
        (TypeError, "teacher is of type", lambda: TeacherScores(EXPECTED, 30, 20).vectors()),
        (ValueError, "exclude", lambda: Ensemble([MODEL], exclude=ones)),
        (ValueError, "member", lambda: Ensemble([])),
        (TypeError, "members", lambda: Ensemble([EXPECTED])),
        (ValueError, "weights", lambda: Ensemble([MODEL, MODEL], weights=[0, 0])),
        (ValueError, "weights", lambda: Ensemble([MODEL, MODEL], weights=[1])),
    ):
        with pytest.raises(error, match=word):
            call()
