"""Words alone, and with year and crosses: the regression is the textbook's, new texts profit."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from recsys_lib.text.students import (
    HashedText,
    HashedTextEncoder,
    TextFacts,
    fit_hashed_text,
    hash_text,
    near,
)

GENRES = ["Action", "Comedy", "Crime", "Drama"]


def read(text: str) -> TextFacts:
    """Take "Heat (1995) Action Crime" apart."""
    found = re.search(r"\((\d{4})\)", text)
    if not found:
        return TextFacts(text)
    facts = {word: word for word in text[found.end() :].split()} | {found[1]: found[1][:3]}
    return TextFacts(text[: found.start()], facts, int(found[1]))


FILMS = HashedText(l2=1.0, read=read, centres=range(1900, 2036, 4), word_weight=3.0)


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


def _error(student: HashedTextEncoder, texts: list[str], truth: np.ndarray) -> float:
    found = student.encode(texts) @ student.axes.T
    return float(np.mean((found - truth) ** 2) / truth.var(axis=0).mean())


def test_new_titles_get_what_the_teacher_thinks_of_such_films() -> None:
    """It acts: nearer to the teacher than words alone; with shuffled targets it learns nothing."""
    texts, wanted = _films(0, 600)
    unseen, truth = _films(1, 200)
    facts = fit_hashed_text(texts, wanted, FILMS)
    words = fit_hashed_text(texts, wanted, HashedText(l2=1.0))
    shuffled = fit_hashed_text(texts, np.random.default_rng(2).permutation(wanted), FILMS)
    assert 3 * _error(facts, unseen, truth) < _error(words, unseen, truth) < 0.9
    assert _error(shuffled, unseen, truth) > 0.9


def test_a_cross_is_more_than_its_parts() -> None:
    """Exclusive or of two genres: no sum of rows for words gives it, a row for the pair does."""
    texts = [f"t{n} (2000) A{n % 2} Middle B{n // 2 % 2}" for n in range(400)]
    either = np.array([[float(n % 2 != n // 2 % 2)] for n in range(400)])
    unseen = [text.replace("t", "u") for text in texts[:4]]
    crossed = fit_hashed_text(texts, either, FILMS)
    assert _error(crossed, unseen, either[:4]) < 0.05
    assert _error(fit_hashed_text(texts, either, HashedText(l2=1.0)), unseen, either[:4]) > 0.8


def test_the_tables_are_the_ridge_regression() -> None:
    """Against least squares of NumPy, with the penalty as further rows."""
    texts, wanted = _films(0, 120)
    config = replace(FILMS, num_buckets=256, l2=0.5, word_weight=0.3)
    student = fit_hashed_text(texts, wanted, config)
    words = np.zeros((120, 256))
    for row, text in enumerate(texts):
        found = hash_text(text, 256, read)
        np.add.at(words[row], found, len(found) ** -0.5)
    years = near([read(text).number for text in texts], FILMS.centres)
    x = np.hstack([years, np.sqrt(0.3) * words])
    penalised = np.vstack([x, np.sqrt(0.5) * np.eye(x.shape[1])])
    centred = np.vstack([wanted - wanted.mean(axis=0), np.zeros((x.shape[1], wanted.shape[1]))])
    solution = np.linalg.lstsq(penalised, centred, rcond=None)[0]
    expected = x @ solution + wanted.mean(axis=0)
    np.testing.assert_allclose(student.encode(texts) @ student.axes.T, expected, atol=0.03)


def test_the_axes_are_the_best_of_their_number() -> None:
    """Against the truncated SVD of what the full regression predicts."""
    texts, wanted = _films(0, 200)
    config = replace(FILMS, num_buckets=2**12, l2=0.1)
    full = fit_hashed_text(texts, wanted, config)
    few = fit_hashed_text(texts, wanted, replace(config, embedding_dim=3))
    assert few.encode(texts).shape == (200, 3)
    np.testing.assert_allclose(few.axes.T @ few.axes, np.eye(3), atol=1e-5)
    fitted = full.encode(texts) @ full.axes.T
    left, values, right = np.linalg.svd(fitted, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.abs(few.encode(texts) @ few.axes.T - best).max() < 0.05


def _world(seed: int, count: int) -> tuple[list[str], np.ndarray]:
    """Texts, and a teacher that adds up a vector for each word."""
    words = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    chosen = np.random.default_rng(seed).integers(0, 60, (count, 6))
    return [" ".join(f"word{n}" for n in row) for row in chosen], words[chosen].mean(axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - b.mean(axis=0), b - b.mean(axis=0)
    return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


def test_it_comes_near_the_teacher_with_more_texts() -> None:
    unseen, wanted = _world(9, 200)
    near = []
    for count in (20, 100, 1000):
        student = fit_hashed_text(*_world(1, count), HashedText(4096, l2=0.1))
        near.append(_cosine(student.encode(unseen), wanted))
    assert near[0] < near[1] < near[2] and near[2] > 0.8


def test_fewer_bits_fewer_bytes_and_near() -> None:
    texts, vectors = _world(1, 300)
    whole, half = (fit_hashed_text(texts, vectors, HashedText(4096, bits=b)) for b in (8, 4))
    assert whole.nbytes == pytest.approx(4096 * (8 + 2), abs=300)
    assert half.nbytes == pytest.approx(4096 * (4 + 2), abs=300)
    assert _cosine(half.encode(texts), whole.encode(texts)) > 0.98


def test_hashes_are_those_of_zlib() -> None:
    """Not Python's own, which differ in each process."""
    found = hash_text("Ab 1995", 997)
    assert found[0] == zlib.crc32(b"ab") % 997
    assert found[3] == zlib.crc32(b"199", 1) % 997
    assert hash_text("Über Ärger", 997) == hash_text("über ÄRGER", 997)
    assert hash_text(" - ", 997) == []


def test_buckets_by_hand() -> None:
    """Words, beginnings, neighbours in the title, crosses; "two" is twice there."""
    found = hash_text("Two of Two (1995) Crime Drama drama", 2**30, read)
    words, neighbours, facts = 3 + 2 + 1, 2, 3  # facts: two genres and the decade
    assert len(found) == 2 * words + neighbours + 3 * facts + 3
    assert len(set(found)) == len(found) - 2 - 3
    plain = hash_text("Two of Two", 2**30)
    assert hash_text("Two of Two", 2**30, read) == plain
    assert set(plain) < set(found)


def test_numbers_that_are_near_are_alike() -> None:
    first, next_one, far, none = near([1994, 1995, 1954, None], FILMS.centres)
    assert first @ next_one > 0.9 * (first @ first)
    assert first @ far < 1e-6
    assert not none.any()


def test_unknown_years_and_facts_fall_back() -> None:
    texts, wanted = _films(0, 60)
    student = fit_hashed_text(texts, wanted, FILMS)
    for text in ("x", "x (1066) Western", "x (2999)", "?!", "(1995)", "Ça ira (1989) Drama"):
        assert np.isfinite(student.encode_one(text)).all()
    np.testing.assert_allclose(student.encode_one("?!"), wanted.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bits": 9}, "bits"),
        ({"word_weight": 0}, "word_weight"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"centres": (1900,)}, "centres"),
    ],
)
def test_settings_are_checked(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HashedText(**config)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="targets"):
        fit_hashed_text(["a", "b"], np.ones((1, 3)))
    with pytest.raises(ValueError, match="embedding_dim is 4"):
        fit_hashed_text(["a", "b"], np.ones((2, 3)), HashedText(embedding_dim=4))
    with pytest.raises(TypeError, match="texts"):
        fit_hashed_text("a", np.ones((1, 3)))
    with pytest.raises(ValueError, match="texts is empty"):
        fit_hashed_text(["a"], np.ones((1, 3))).encode([])
