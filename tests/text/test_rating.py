"""The closed-form rating model over texts, and weighted words, against other routes to them."""

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.text.rating import fit_text_rating, ridge, tfidf_vectors

RNG = np.random.default_rng(0)
LOG = Interactions(
    np.r_[RNG.integers(0, 6, 80), 5], np.r_[RNG.integers(0, 12, 80), 11], num_items=12
)


def test_ridge_is_least_squares_with_penalty_rows() -> None:
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 3))
    rows = np.vstack([np.hstack([x, np.ones((30, 1))]), np.sqrt(0.7) * np.eye(5)])
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(np.vstack(ridge(x, y, l2=0.7)), expected, atol=1e-5)


def test_low_rank_is_the_best_of_its_rank() -> None:
    x = RNG.normal(size=(12, 5)).astype(np.float32)
    kernel, bias = ridge(x, LOG.to_csr().T.toarray(), 1.0)
    u, s, v = np.linalg.svd(x @ kernel + bias, full_matrices=False)  # (items, users)
    for d in (1, 3, 5):
        model = fit_text_rating(x, LOG, embedding_dim=d, l2=1.0)
        best = (u[:, :d] * s[:d]) @ v[:d]
        np.testing.assert_allclose(model.score_items(x).T, best, atol=1e-5)


def test_it_learns_who_likes_which_texts() -> None:
    taste, texts, new = (RNG.normal(size=(n, 3)) for n in (40, 200, 100))
    log = Interactions(*np.nonzero(taste @ texts.T > 1), num_users=40, num_items=200)
    scores = fit_text_rating(texts, log, embedding_dim=3, l2=1.0).score_items(new)
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(scores, taste @ new.T, strict=True)]
    assert np.median(agreement) > 0.8


def test_tfidf() -> None:
    vectors = tfidf_vectors(["space war war", "space love", "love peace"])
    common, single = np.log(3 / 2), np.log(3)
    assert vectors.shape == (3, 2)  # war and peace have one text each
    expected = [[common / np.hypot(common, 2 * single), 0], [0.5**0.5] * 2]
    np.testing.assert_allclose(vectors[:2], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "text_vectors", lambda: fit_text_rating(np.zeros((3, 4)), LOG)),
        (ValueError, "dim is 5", lambda: fit_text_rating(np.ones((12, 4)), LOG, embedding_dim=5)),
        (ValueError, "l2 is 0", lambda: ridge(np.ones((2, 1)), np.ones((2, 1)), 0)),
        (ValueError, "vectors holds", lambda: ridge([[np.nan]], [[1.0]], 1)),
        (ValueError, "text_vectors has shape",
         lambda: fit_text_rating(np.eye(12), LOG, embedding_dim=2).score_items(np.zeros((1, 3)))),
        (TypeError, "texts", lambda: tfidf_vectors("one")),
    ],
)  # fmt: skip
def test_refuses(error, words, call) -> None:
    with pytest.raises(error, match=words):
        call()
