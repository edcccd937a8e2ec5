"""Year, words and crosses together: the regression is the textbook's, and new titles profit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys_lib.text.fact_text import (
    FactText,
    fit_fact_text,
    hash_facts,
    near_years,
    read_facts,
)
from recsys_lib.text.hashed_text import HashedText, fit_hashed_text, hash_text

GENRES = ["Action", "Comedy", "Crime", "Drama"]


def _films(seed: int, count: int) -> tuple[list[str], np.ndarray]:
    """Titles that say nothing, and a teacher that looks at year, genres and both together."""
    rng = np.random.default_rng(seed)
    years = rng.integers(1940, 2020, count)
    has = rng.random((count, 4)) < 0.5
    names = [" ".join(f"w{n}" for n in row) for row in rng.integers(0, 10**6, (count, 2))]
    texts = [
        " ".join([name, f"({year})", *np.array(GENRES)[own]])
        for name, year, own in zip(names, years, has, strict=True)
    ]
    late = (years[:, None] - 1980) / 40
    return texts, np.hstack([np.sin(2 * late), has * late, has @ [[1.0], [-1], [2], [0]]])


def _error(student: object, texts: list[str], truth: np.ndarray) -> float:
    found = student.encode(texts)  # type: ignore[attr-defined]
    found = found @ student.axes.T if hasattr(student, "axes") else found
    return float(np.mean((found - truth) ** 2) / truth.var(axis=0).mean())


def test_new_titles_get_what_the_teacher_thinks_of_such_films() -> None:
    """It acts: nearer to the teacher than words alone; with shuffled targets it learns nothing."""
    texts, wanted = _films(0, 600)
    unseen, truth = _films(1, 200)
    facts, words = fit_fact_text(texts, wanted), fit_hashed_text(texts, wanted, HashedText(l2=1.0))
    shuffled = fit_fact_text(texts, np.random.default_rng(2).permutation(wanted))
    assert 3 * _error(facts, unseen, truth) < _error(words, unseen, truth) < 0.9
    assert _error(shuffled, unseen, truth) > 0.9


def test_a_cross_is_more_than_its_parts() -> None:
    """Exclusive or of two genres: no sum of rows for words gives it, a row for the pair does."""
    texts = [f"t{n} (2000) A{n % 2} Middle B{n // 2 % 2}" for n in range(400)]
    either = np.array([[float(n % 2 != n // 2 % 2)] for n in range(400)])
    unseen = [text.replace("t", "u") for text in texts[:4]]
    crossed = fit_fact_text(texts, either)
    assert _error(crossed, unseen, either[:4]) < 0.05
    assert _error(fit_hashed_text(texts, either, HashedText(l2=1.0)), unseen, either[:4]) > 0.8


def test_the_tables_are_the_ridge_regression() -> None:
    """Against least squares of NumPy, with the penalty as further rows."""
    texts, wanted = _films(0, 120)
    config = FactText(HashedText(256, l2=0.5), word_weight=0.3)
    student = fit_fact_text(texts, wanted, config)
    words = np.zeros((120, 256))
    for row, text in enumerate(texts):
        found = hash_facts(text, 256)
        np.add.at(words[row], found, len(found) ** -0.5)
    years = near_years(np.array([read_facts(text)[1] for text in texts]))
    x = np.hstack([years, np.sqrt(0.3) * words])
    penalised = np.vstack([x, np.sqrt(0.5) * np.eye(x.shape[1])])
    centred = np.vstack([wanted - wanted.mean(axis=0), np.zeros((x.shape[1], wanted.shape[1]))])
    solution = np.linalg.lstsq(penalised, centred, rcond=None)[0]
    expected = x @ solution + wanted.mean(axis=0)
    np.testing.assert_allclose(student.encode(texts) @ student.axes.T, expected, atol=0.03)


def test_buckets_by_hand() -> None:
    """Words, beginnings, neighbours in the title, crosses; "two" is twice there."""
    found = hash_facts("Two of Two (1995) Crime Drama", 2**30)
    words, neighbours, facts = 3 + 2 + 1, 2, 3  # facts: two genres and the decade
    assert len(found) == 2 * words + neighbours + 3 * facts + 3
    assert len(set(found)) == len(found) - 2 - 3
    plain = hash_text("Two of Two", 2**30)
    assert hash_facts("Two of Two", 2**30) == plain
    assert set(plain) < set(found)


def test_the_axes_are_the_best_of_their_number() -> None:
    """Against the truncated SVD of what the full regression predicts."""
    texts, wanted = _films(0, 200)
    config = FactText(HashedText(2**12, l2=0.1))
    full = fit_fact_text(texts, wanted, config)
    few = fit_fact_text(texts, wanted, replace(config, embedding_dim=3))
    assert few.encode(texts).shape == (200, 3)
    np.testing.assert_allclose(few.axes.T @ few.axes, np.eye(3), atol=1e-5)
    fitted = full.encode(texts) @ full.axes.T
    left, values, right = np.linalg.svd(fitted, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.abs(few.encode(texts) @ few.axes.T - best).max() < 0.05


def test_ratings_and_teacher_mix_linearly() -> None:
    """Up to rounding, a student of mixed targets is the mix of the two students."""
    texts, soft = _films(0, 100)
    hard = (soft > 0).astype(float)
    one, two, mixed = (
        (lambda s: s.encode(texts) @ s.axes.T)(fit_fact_text(texts, y))
        for y in (soft, hard, 0.65 * soft + 0.35 * hard)
    )
    np.testing.assert_allclose(mixed, 0.65 * one + 0.35 * two, atol=0.02)


def test_facts_of_a_text() -> None:
    assert read_facts("2001 (1968) Sci-Fi") == ("2001 ", 1968, ["Sci-Fi"])
    assert read_facts("Series (2006–2007) Comedy") == ("Series ", 2006, ["Comedy"])
    assert read_facts("No year Drama") == ("No year Drama", 0, [])


def test_years_that_are_near_are_alike() -> None:
    first, next_one, far, none = near_years(np.array([1994, 1995, 1954, 0]))
    assert first @ next_one > 0.9 * (first @ first)
    assert first @ far < 1e-6
    assert not none.any()


def test_unknown_years_and_genres_fall_back() -> None:
    texts, wanted = _films(0, 60)
    student = fit_fact_text(texts, wanted)
    for text in ("x", "x (1066) Western", "x (2999)", "?!", "(1995)", "Ça ira (1989) Drama"):
        assert np.isfinite(student.encode_one(text)).all()
    mean = student.encode_one("?!") @ student.axes.T
    np.testing.assert_allclose(mean, wanted.mean(axis=0), atol=1e-6)


def test_fewer_bits_fewer_bytes() -> None:
    texts, wanted = _films(0, 60)
    sizes = [
        fit_fact_text(texts, wanted, FactText(HashedText(1024, bits=bits), embedding_dim=4)).nbytes
        for bits in (4, 8)
    ]
    assert sizes == [pytest.approx((1024 + 34) * (4 * bits / 8 + 2), abs=400) for bits in (4, 8)]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="targets has 1 rows: expected 2, one a text"):
        fit_fact_text(["a", "b"], np.ones((1, 3)))
    with pytest.raises(ValueError, match="embedding_dim is 4: expected at most 3, the number of"):
        fit_fact_text(["a", "b"], np.ones((2, 3)), FactText(embedding_dim=4))
    with pytest.raises(TypeError, match="expected a list of str"):
        fit_fact_text("a", np.ones((1, 3)))
    with pytest.raises(TypeError, match="words is int: expected HashedText"):
        FactText(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="word_weight is 0"):
        FactText(word_weight=0)
    with pytest.raises(ValueError, match="embedding_dim is 0"):
        FactText(embedding_dim=0)
