"""What every recommender promises, tried on all closed-form ones; and the k best scores."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity, base, top_k

NUM_USERS, NUM_ITEMS = 9, 7
RANDOM = np.random.default_rng(3)
PAIRS = np.nonzero(RANDOM.random((NUM_USERS, NUM_ITEMS)) < 0.4)
RATINGS = RANDOM.integers(1, 6, len(PAIRS[0]))
DATA = Interactions(*PAIRS, RATINGS, num_users=NUM_USERS, num_items=NUM_ITEMS)
MODELS = [model.fit(DATA) for model in (Popularity(), EASE(l2=2.0), IALS(3), ALS(3))]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


@every_model
def test_pairs_all_items_and_batches_agree(model):
    everything = model.score_all_items(np.arange(NUM_USERS))
    users, items = np.random.default_rng(0).permutation(list(np.ndindex(everything.shape))).T
    whole = model.recommend(users, k=3, exclude=DATA), model.score(users, items)
    assert everything.shape == (NUM_USERS, NUM_ITEMS)
    assert whole[1].dtype == everything.dtype == np.float32
    with mock.patch.object(base, "_SCORES_PER_BATCH", 2 * NUM_ITEMS):
        parts = model.recommend(users, k=3, exclude=DATA), model.score(users, items)
    np.testing.assert_array_equal(whole[0], parts[0])
    for scores in (whole[1], parts[1]):
        np.testing.assert_allclose(scores, everything[users, items], rtol=1e-5, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MODELS),
    st.lists(st.integers(0, NUM_USERS - 1), max_size=5),
    st.integers(1, NUM_ITEMS + 2),
    st.data(),
)
def test_recommend_is_sorted_allowed_and_padded(model, users, k, draw):
    one_list = st.lists(st.integers(0, NUM_ITEMS - 1), max_size=NUM_ITEMS)
    exclude = draw.draw(st.lists(one_list, min_size=len(users), max_size=len(users)))
    answer = model.recommend(users, k, exclude=exclude)
    assert answer.shape == (len(users), k) and answer.dtype == np.int64
    for user, banned, items in zip(users, exclude, answer, strict=True):
        num_left = min(k, NUM_ITEMS - len(set(banned)))
        assert (items[num_left:] == -1).all()
        items = items[:num_left]
        assert len(set(items.tolist())) == num_left
        assert not set(items.tolist()) & set(banned)
        scores = model.score_all_items([user])[0]
        allowed = np.setdiff1d(np.arange(NUM_ITEMS), banned)
        best = np.sort(scores[allowed])[::-1][:num_left]
        np.testing.assert_allclose(scores[items], best, rtol=1e-5, atol=1e-6)


@every_model
def test_exclude_interactions_leaves_out_what_each_user_met(model):
    users, met = [3, 0, 3], DATA.items_by_user()
    for user, items in zip(users, model.recommend(users, NUM_ITEMS, exclude=DATA), strict=True):
        assert set(items.tolist()) - {-1} == set(range(NUM_ITEMS)) - set(met[user].tolist())


@pytest.mark.parametrize("model", MODELS[:3])
def test_folding_in_a_users_history_never_gives_it_back(model):
    answer = model.recommend(histories=[[1, 1, 4], [0]], k=NUM_ITEMS, exclude=[[2], []])
    assert set(answer[0].tolist()) == {0, 3, 5, 6, -1}
    assert set(answer[1].tolist()) == {1, 2, 3, 4, 5, 6, -1}
    first, second = (model.score_histories([history]) for history in ([1, 1, 4], [4, 1]))
    np.testing.assert_array_equal(first, second)


WRONG_PAIRS = [(users, [0], "user_ids") for users in ([99], [-1], [[0]], 0, [0.0], [True], ["a"])]
WRONG_PAIRS += [([0], [7], "item_ids"), ([0], [0, 1], "item_ids")]


@every_model
@pytest.mark.parametrize("users, items, name", WRONG_PAIRS, ids=repr)
def test_score_refuses(model, users, items, name):
    with pytest.raises((TypeError, ValueError), match=name):
        model.score(users, items)


REFUSED = [
    *((a, "exactly one") for a in ({}, {"user_ids": [0], "histories": [[0]]})),
    *(({"user_ids": [9]}, "user_ids"), ({"histories": [1, 2]}, r"histories\[0\]")),
    *(({"user_ids": [0], "k": k}, "k is") for k in (0, "3")),
    *(({"user_ids": [0], "exclude": wrong}, "exclude") for wrong in ([[1], [2]], [[8]], 3)),
    ({"user_ids": [0], "exclude": Interactions([0], [0])}, "exclude counts 1"),
    *(({"histories": [[1], wrong]}, r"histories\[1\]") for wrong in ([], [7])),
    ({"histories": [[0]], "exclude": DATA}, "exclude is Interactions"),
]


@pytest.mark.parametrize("arguments, word", REFUSED)
def test_recommend_refuses(arguments, word):
    with pytest.raises((TypeError, ValueError), match=word):
        MODELS[1].recommend(**arguments)
    with pytest.raises(TypeError, match="histories: the model cannot fold in"):
        MODELS[3].recommend(histories=[[1]])


@pytest.mark.parametrize("model", [Popularity(), EASE(), IALS(), ALS()])
def test_an_unfitted_model_says_so(model, tmp_path):
    arguments = {"score": ([0], [0]), "score_all_items": ([0],), "score_histories": ([[0]],)}
    for name, values in (arguments | {"recommend": ([0],), "save": (tmp_path / "model",)}).items():
        with pytest.raises(RuntimeError, match="is not fitted"):
            getattr(model, name)(*values)
    with pytest.raises(TypeError, match="interactions is of type list"):
        model.fit([[0, 1]])
    assert list(tmp_path.iterdir()) == []


def test_nan_scores_are_refused_and_scores_stay():
    model = Popularity().fit(DATA)
    before = model.item_counts.copy()
    model.recommend([0, 1], exclude=DATA)
    np.testing.assert_array_equal(model.item_counts, before)
    model.item_counts *= np.nan
    with pytest.raises(ValueError, match="NaN"):
        model.recommend([0])


# Few different values, so that ties happen.
SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]),
)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(1, 15))
def test_top_k_equals_a_full_stable_sort(scores, k):
    expected = np.full((len(scores), k), -1)
    for row, values in enumerate(scores.tolist()):
        ranked = sorted(range(len(values)), key=lambda column: (-values[column], column))
        ranked = [column for column in ranked if values[column] > -np.inf][:k]
        expected[row, : len(ranked)] = ranked
    np.testing.assert_array_equal(top_k(scores, k), expected)


def test_top_k_takes_empty_scores_and_refuses_nan_and_leaves_what_it_got():
    scores = np.array([[1.0, 3.0, 2.0]])
    top_k(scores, 2)
    assert scores.tolist() == [[1.0, 3.0, 2.0]]
    assert top_k(np.zeros((0, 4)), 2).shape == (0, 2)
    assert top_k(np.zeros((2, 0)), 2).tolist() == [[-1, -1], [-1, -1]]
    wrong = [([[1.0]], k, "k is") for k in (0, 1.5, True)]
    for scores, k, word in [*wrong, ([[1.0, np.nan]], 1, "1 NaN"), ([1.0], 1, "two dimensions")]:
        with pytest.raises((TypeError, ValueError), match=word):
            top_k(scores, k)
