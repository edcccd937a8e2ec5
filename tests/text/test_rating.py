"""The closed-form rating model over texts, and weighted words, against other routes to them."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.text.rating import fit_text_rating, ridge, tfidf_vectors


def _log(rng: np.random.Generator) -> Interactions:
    return Interactions(
        np.r_[rng.integers(0, 6, 80), 5], np.r_[rng.integers(0, 12, 80), 11], num_items=12
    )


def test_ridge_is_least_squares_with_penalty_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
    kernel, bias = ridge(x, y, l2=0.7)
    rows = np.vstack([np.hstack([x, np.ones((30, 1))]), np.sqrt(0.7) * np.eye(5)])
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(np.vstack([kernel, bias]), expected, atol=1e-5)


def test_low_rank_is_the_best_of_its_rank() -> None:
    rng = np.random.default_rng(1)
    log, x = _log(rng), rng.normal(size=(12, 5)).astype(np.float32)
    kernel, bias = ridge(x, log.to_csr().T.toarray(), 1.0)
    fitted = x @ kernel + bias  # (items, users)
    u, s, v = np.linalg.svd(fitted, full_matrices=False)
    for d in (1, 3, 5):
        best = (u[:, :d] * s[:d]) @ v[:d]
        model = fit_text_rating(x, log, embedding_dim=d, l2=1.0)
        np.testing.assert_allclose(model.score_items(x).T, best, atol=1e-5)


def test_it_learns_who_likes_which_texts() -> None:
    rng = np.random.default_rng(2)
    taste, texts = rng.normal(size=(40, 3)), rng.normal(size=(200, 3))
    users, items = np.nonzero(taste @ texts.T > 1)
    new = rng.normal(size=(100, 3))
    log = Interactions(users, items, num_users=40, num_items=200)
    model = fit_text_rating(texts, log, embedding_dim=3, l2=1.0)
    scores, true = model.score_items(new), taste @ new.T
    agreement = [np.corrcoef(a, b)[0, 1] for a, b in zip(scores, true, strict=True)]
    assert np.median(agreement) > 0.8


def test_tfidf() -> None:
    vectors = tfidf_vectors(["space war war", "space love", "love peace"])
    common, single = np.log(3 / 2), np.log(3)
    assert vectors.shape == (3, 2)  # war and peace have one text each
    expected = [[common / np.hypot(common, 2 * single), 0], [0.5**0.5] * 2]
    np.testing.assert_allclose(vectors[:2], expected, rtol=1e-5)


def test_wrong_arguments() -> None:
    log = _log(np.random.default_rng(0))
    with pytest.raises(ValueError, match="text_vectors"):
        fit_text_rating(np.zeros((3, 4)), log)
    with pytest.raises(ValueError, match="embedding_dim is 5"):
        fit_text_rating(np.ones((12, 4)), log, embedding_dim=5)
    with pytest.raises(ValueError, match="l2 is 0"):
        ridge(np.ones((2, 1)), np.ones((2, 1)), 0)
    with pytest.raises(ValueError, match="vectors holds"):
        ridge([[np.nan]], [[1.0]], 1)
    with pytest.raises(ValueError, match="text_vectors"):
        fit_text_rating(np.eye(12), log, embedding_dim=2).score_items(np.zeros((1, 3)))
    with pytest.raises(TypeError, match="texts"):
        tfidf_vectors("one")
