"""Facts and words together: the regression is the textbook's, and new titles profit."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression.fact_text import (
    FactText,
    fact_features,
    fit_fact_text,
    read_facts,
)
from recsys_lib.compression.hashed_text import HashedText, fit_hashed_text, hash_text

GENRES = ["Action", "Comedy", "Crime", "Drama"]


def _films(seed: int, count: int) -> tuple[list[str], np.ndarray]:
    """Titles that say nothing, and a teacher that looks at year and genres alone."""
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


def test_new_titles_get_what_the_teacher_thinks_of_such_films() -> None:
    """It acts: nearer to the teacher than words alone; with shuffled targets it learns nothing."""
    texts, wanted = _films(0, 600)
    unseen, truth = _films(1, 200)

    def error(student: object) -> float:
        return float(np.mean((student.encode(unseen) - truth) ** 2) / truth.var(axis=0).mean())  # type: ignore[attr-defined]

    facts, words = fit_fact_text(texts, wanted), fit_hashed_text(texts, wanted, HashedText(l2=1.0))
    shuffled = fit_fact_text(texts, np.random.default_rng(2).permutation(wanted))
    assert 5 * error(facts) < error(words) < 0.9
    assert error(shuffled) > 0.9


def test_the_tables_are_the_ridge_regression() -> None:
    """Against least squares of NumPy, with the penalty as further rows."""
    texts, wanted = _films(0, 120)
    config = FactText(HashedText(256, l2=0.5), word_weight=0.3)
    student = fit_fact_text(texts, wanted, config)
    words = np.zeros((120, 256))
    for row, text in enumerate(texts):
        found = hash_text(text, 256)
        np.add.at(words[row], found, len(found) ** -0.5)
    x = np.hstack([fact_features(texts, student.genres), np.sqrt(0.3) * words])
    penalised = np.vstack([x, np.sqrt(0.5) * np.eye(x.shape[1])])
    centred = np.vstack([wanted - wanted.mean(axis=0), np.zeros((x.shape[1], wanted.shape[1]))])
    solution = np.linalg.lstsq(penalised, centred, rcond=None)[0]
    expected = x @ solution + wanted.mean(axis=0)
    np.testing.assert_allclose(student.encode(texts), expected, atol=0.03)


def test_features_by_hand() -> None:
    found = fact_features(["Heat (1996) Crime Drama", "Untitled"], ["Crime", "Drama", "War"])
    assert found.shape == (2, 34 + 3 + 42)
    np.testing.assert_allclose(found[0, 24], 1.0)  # 1996 is a centre
    np.testing.assert_allclose(found[0, 25], np.exp(-1), rtol=1e-6)  # and 2000 is 4 years away
    np.testing.assert_array_equal(found[0, 34:37], [1, 1, 0])
    np.testing.assert_allclose(found[0, 37 + 9], 0.5**0.5 * np.exp(-((6 / 8) ** 2)), rtol=1e-6)
    assert not found[1].any()


def test_facts_of_a_text() -> None:
    assert read_facts("2001 (1968) Sci-Fi") == (1968, ["Sci-Fi"])
    assert read_facts("Series (2006–2007) Comedy") == (2006, ["Comedy"])
    assert read_facts("No year Drama") == (0, [])


def test_genres_come_from_the_texts() -> None:
    texts, wanted = _films(0, 60)
    assert list(fit_fact_text(texts, wanted).genres) == GENRES
    assert fit_fact_text(texts, wanted, FactText(min_count=61)).genres == ()


def test_unknown_years_and_genres_fall_back() -> None:
    texts, wanted = _films(0, 60)
    student = fit_fact_text(texts, wanted)
    for text in ("x", "x (1066) Western", "x (2999)", "?!"):
        assert np.isfinite(student.encode_one(text)).all()


def test_fewer_bits_fewer_bytes() -> None:
    texts, wanted = _films(0, 60)
    sizes = [
        fit_fact_text(texts, wanted, FactText(HashedText(1024, bits=bits))).nbytes
        for bits in (4, 8)
    ]
    rows, dim = 1024 + 34 + 15 * 4, wanted.shape[1]
    assert sizes == [pytest.approx(rows * (dim * bits / 8 + 2), abs=700) for bits in (4, 8)]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="vectors has 1 rows: expected 2, one a text"):
        fit_fact_text(["a", "b"], np.ones((1, 3)))
    with pytest.raises(TypeError, match="expected a list of str"):
        fit_fact_text("a", np.ones((1, 3)))
    with pytest.raises(TypeError, match="words is int: expected HashedText"):
        FactText(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="word_weight is 0"):
        FactText(word_weight=0)
    with pytest.raises(ValueError, match="min_count is 0"):
        FactText(min_count=0)
