"""Words alone, and with year and crosses: the regression is the textbook's, new texts profit."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from recsys_lib.text.students import HashedText, TextFacts, fit_hashed_text, hash_text, near

GENRES = np.array(["Action", "Comedy", "Crime", "Drama"])


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
    years, has = rng.integers(1940, 2020, count), rng.random((count, 4)) < 0.5
    rows = zip(rng.integers(0, 10**6, (count, 2)), years, has, strict=True)
    texts = [" ".join([f"w{a} w{b} ({year})", *GENRES[own]]) for (a, b), year, own in rows]
    late = (years[:, None] - 1980) / 40
    return texts, np.hstack([np.sin(2 * late), has * late, has @ [[1.0], [-1], [2], [0]]])


def _error(student, texts: list[str], truth: np.ndarray) -> float:
    found = student.encode(texts) @ student.axes.T
    return float(np.mean((found - truth) ** 2) / truth.var(axis=0).mean())


def test_new_titles_get_what_the_teacher_thinks_of_such_films() -> None:
    """It acts: nearer to the teacher than words alone; with shuffled targets it learns nothing."""
    (texts, wanted), (unseen, truth) = _films(0, 600), _films(1, 200)
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
    crossed, words = (fit_hashed_text(texts, either, c) for c in (FILMS, HashedText(l2=1.0)))
    assert _error(crossed, unseen, either[:4]) < 0.05
    assert _error(words, unseen, either[:4]) > 0.8


def test_the_tables_are_the_ridge_regression() -> None:
    """Against least squares of NumPy, with the penalty as further rows."""
    texts, wanted = _films(0, 120)
    student = fit_hashed_text(texts, wanted, replace(FILMS, num_buckets=256, l2=0.5))
    words = np.zeros((120, 256))
    for row, text in enumerate(texts):
        found = hash_text(text, 256, read)
        np.add.at(words[row], found, len(found) ** -0.5)
    years = near([read(text).number for text in texts], FILMS.centres)
    x, mean = np.hstack([years, np.sqrt(3.0) * words]), wanted.mean(axis=0)
    penalised = np.vstack([x, np.sqrt(0.5) * np.eye(x.shape[1])])
    centred = np.vstack([wanted - mean, np.zeros((x.shape[1], wanted.shape[1]))])
    expected = x @ np.linalg.lstsq(penalised, centred, rcond=None)[0] + mean
    np.testing.assert_allclose(student.encode(texts) @ student.axes.T, expected, atol=0.03)


def test_the_axes_are_the_best_of_their_number() -> None:
    """Against the truncated SVD of what the full regression predicts."""
    texts, wanted = _films(0, 200)
    config = replace(FILMS, num_buckets=2**12, l2=0.1)
    full = fit_hashed_text(texts, wanted, config)
    few = fit_hashed_text(texts, wanted, replace(config, embedding_dim=3))
    np.testing.assert_allclose(few.axes.T @ few.axes, np.eye(3), atol=1e-5)
    left, values, right = np.linalg.svd(full.encode(texts) @ full.axes.T, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.abs(few.encode(texts) @ few.axes.T - best).max() < 0.05


def _world(seed: int, count: int) -> tuple[list[str], np.ndarray]:
    """Texts, and a teacher that adds up a vector for each word."""
    words = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    chosen = np.random.default_rng(seed).integers(0, 60, (count, 6))
    return [" ".join(f"word{n}" for n in row) for row in chosen], words[chosen].mean(axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a - a.mean(0), b - b.mean(0)))
    return float(np.mean((a * b).sum(axis=1)))


def test_it_comes_near_the_teacher_with_more_texts_and_fewer_bits_are_near() -> None:
    unseen, wanted = _world(9, 200)
    students = {
        (count, bits): fit_hashed_text(*_world(1, count), HashedText(4096, bits=bits))
        for count, bits in ((20, 8), (100, 8), (500, 8), (500, 4))
    }
    near, nearer, nearest, half = (_cosine(s.encode(unseen), wanted) for s in students.values())
    assert near < nearer < nearest and nearest > 0.8 and half > 0.95 * nearest
    for bits in (8, 4):
        assert students[500, bits].nbytes == pytest.approx(4096 * (bits + 2), abs=300)


def test_buckets_by_hand() -> None:
    """Of zlib, as Python's own differ in each process; "two" is twice there."""
    found = hash_text("Ab 1995", 997)
    assert found[0] == zlib.crc32(b"ab") % 997 and found[3] == zlib.crc32(b"199", 1) % 997
    assert hash_text("Über Ärger", 997) == hash_text("über ÄRGER", 997)
    assert hash_text(" - ", 997) == []
    found = hash_text("Two of Two (1995) Crime Drama drama", 2**30, read)
    words, neighbours, facts = 3 + 2 + 1, 2, 3  # facts: two genres and the decade
    assert len(found) == 2 * words + neighbours + 3 * facts + 3
    assert len(set(found)) == len(found) - 2 - 3
    plain = hash_text("Two of Two", 2**30)
    assert hash_text("Two of Two", 2**30, read) == plain and set(plain) < set(found)


def test_near_numbers_are_alike_and_unknown_ones_fall_back() -> None:
    first, next_one, far, none = near([1994, 1995, 1954, None], FILMS.centres)
    assert first @ next_one > 0.9 * (first @ first) and first @ far < 1e-6 and not none.any()
    texts, wanted = _films(0, 60)
    student = fit_hashed_text(texts, wanted, FILMS)
    for text in ("x", "x (1066) Western", "x (2999)", "?!", "(1995)", "Ça ira (1989) Drama"):
        assert np.isfinite(student.encode_one(text)).all()
    np.testing.assert_allclose(student.encode_one("?!"), wanted.mean(axis=0), atol=1e-6)


def test_numpy_numbers_are_kept_as_plain_ones() -> None:
    kept = HashedText(np.int64(9), np.float32(1), np.int8(4), embedding_dim=np.int64(3))
    found = kept.num_buckets, kept.l2, kept.bits, kept.word_weight, kept.embedding_dim
    assert [type(value) for value in found] == [int, float, int, float, int]


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "bits", lambda: HashedText(bits=9)),
        (ValueError, "word_weight", lambda: HashedText(word_weight=0)),
        (ValueError, "embedding_dim", lambda: HashedText(embedding_dim=0)),
        (ValueError, "centres", lambda: HashedText(centres=(1900,))),
        (ValueError, "targets", lambda: fit_hashed_text(["a", "b"], np.ones((1, 3)))),
        (ValueError, "embedding_dim is 4",
         lambda: fit_hashed_text(["a"], np.ones((1, 3)), HashedText(embedding_dim=4))),
        (TypeError, "texts", lambda: fit_hashed_text("a", np.ones((1, 3)))),
        (ValueError, "texts is empty", lambda: fit_hashed_text([], np.ones((0, 3)))),
    ],
)  # fmt: skip
def test_refuses(error, words, call) -> None:
    with pytest.raises(error, match=words):
        call()
