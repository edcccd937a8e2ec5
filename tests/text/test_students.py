"""Students that read words, and closed-form ratings over texts, against other routes to them."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.text.rating import fit_text_rating, ridge, tfidf_vectors
from recsys_lib.text.students import HashedText, TextFacts, fit_hashed_text, hash_text, near

RNG = np.random.default_rng(0)
PAIRS = np.vstack([RNG.integers(0, (6, 12), (80, 2)), [5, 11]])
LOG = Interactions(*PAIRS.T, num_items=12)
GENRES = np.array(["Action", "Comedy", "Crime", "Drama"])


def read(text):
    """Take "Heat (1995) Action Crime" apart."""
    found = re.search(r"\((\d{4})\)", text)
    if not found:
        return TextFacts(text)
    facts = {word: word for word in text[found.end() :].split()} | {found[1]: found[1][:3]}
    return TextFacts(text[: found.start()], facts, int(found[1]))


FILMS = HashedText(l2=1.0, read=read, centres=range(1900, 2036, 4), word_weight=3.0)


def films(seed, count):
    """Titles that say nothing, and a teacher that looks at year, genres and both together."""
    rng = np.random.default_rng(seed)
    years, has = rng.integers(1940, 2020, count), rng.random((count, 4)) < 0.5
    rows = zip(rng.integers(0, 10**6, (count, 2)), years, has, strict=True)
    texts = [" ".join([f"w{a} w{b} ({year})", *GENRES[own]]) for (a, b), year, own in rows]
    late = (years[:, None] - 1980) / 40
    return texts, np.hstack([np.sin(2 * late), has * late, has @ [[1.0], [-1], [2], [0]]])


def error(student, texts, truth):
    found = student.encode(texts) @ student.axes.T
    return np.mean((found - truth) ** 2) / truth.var(axis=0).mean()


def test_new_titles_get_what_the_teacher_thinks_of_such_films_and_of_crosses():
    """It acts: nearer to the teacher than words alone; with shuffled targets it learns nothing."""
    (texts, wanted), (unseen, truth) = films(0, 600), films(1, 200)
    facts = fit_hashed_text(texts, wanted, FILMS)
    words = fit_hashed_text(texts, wanted, HashedText(l2=1.0))
    shuffled = fit_hashed_text(texts, np.random.default_rng(2).permutation(wanted), FILMS)
    assert 3 * error(facts, unseen, truth) < error(words, unseen, truth) < 0.9
    assert error(shuffled, unseen, truth) > 0.9
    # Exclusive or of two genres: no sum of rows for words gives it, a row for the pair does.
    texts = [f"t{n} (2000) A{n % 2} Middle B{n // 2 % 2}" for n in range(400)]
    either = np.array([[float(n % 2 != n // 2 % 2)] for n in range(400)])
    unseen = [text.replace("t", "u") for text in texts[:4]]
    crossed, words = (fit_hashed_text(texts, either, c) for c in (FILMS, HashedText(l2=1.0)))
    assert error(crossed, unseen, either[:4]) < 0.05
    assert error(words, unseen, either[:4]) > 0.8


def test_the_tables_are_the_ridge_regression():
    """Against least squares of NumPy, with the penalty as further rows."""
    texts, wanted = films(0, 120)
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
    # A few axes are the best of their number: the truncated SVD of what the full one predicts.
    config = replace(FILMS, num_buckets=2**12, l2=0.1)
    full = fit_hashed_text(texts, wanted, config)
    few = fit_hashed_text(texts, wanted, replace(config, embedding_dim=3))
    np.testing.assert_allclose(few.axes.T @ few.axes, np.eye(3), atol=1e-5)
    left, values, right = np.linalg.svd(full.encode(texts) @ full.axes.T, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.abs(few.encode(texts) @ few.axes.T - best).max() < 0.05


def test_it_comes_near_the_teacher_with_more_texts_and_fewer_bits_are_near():
    unseen, students = films(9, 200), {}
    for count, bits in ((20, 8), (100, 8), (500, 8), (500, 4)):
        config = replace(FILMS, num_buckets=4096, bits=bits)
        students[count, bits] = fit_hashed_text(*films(1, count), config)
    far, near, nearest, half = (error(student, *unseen) for student in students.values())
    assert far > near > nearest < 0.2 and half < nearest + 0.05
    saved = (4096 + len(FILMS.centres)) * 3  # six halves of a byte in each row
    assert students[500, 8].nbytes - students[500, 4].nbytes == saved


def test_buckets_by_hand():
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


def test_near_numbers_are_alike_and_unknown_ones_fall_back():
    first, next_one, far, none = near([1994, 1995, 1954, None], FILMS.centres)
    assert first @ next_one > 0.9 * (first @ first) and first @ far < 1e-6 and not none.any()
    texts, wanted = films(0, 60)
    plain = replace(FILMS, num_buckets=np.int64(2**10), l2=np.float32(1), bits=np.int8(4))
    assert [type(value) for value in (plain.num_buckets, plain.l2, plain.bits)] == [int, float, int]
    student = fit_hashed_text(texts, wanted, plain)
    for text in ("x", "x (1066) Western", "x (2999)", "?!", "(1995)", "Ça ira (1989) Drama"):
        assert np.isfinite(student.encode_one(text)).all()
    np.testing.assert_allclose(student.encode_one("?!"), wanted.mean(axis=0), atol=1e-6)


def test_text_ratings_are_the_ridge_regression_and_the_best_of_their_rank():
    x, y = RNG.normal(size=(30, 4)), RNG.normal(size=(30, 3))
    rows = np.vstack([np.hstack([x, np.ones((30, 1))]), np.sqrt(0.7) * np.eye(5)])
    expected = np.linalg.lstsq(rows, np.vstack([y, np.zeros((5, 3))]), rcond=None)[0]
    np.testing.assert_allclose(np.vstack(ridge(x, y, l2=0.7)), expected, atol=1e-5)
    x = RNG.normal(size=(12, 5)).astype(np.float32)
    kernel, bias = ridge(x, LOG.to_csr().T.toarray(), 1.0)
    u, s, v = np.linalg.svd(x @ kernel + bias, full_matrices=False)  # (items, users)
    for d in (1, 3, 5):
        model = fit_text_rating(x, LOG, embedding_dim=d, l2=1.0)
        best = (u[:, :d] * s[:d]) @ v[:d]
        np.testing.assert_allclose(model.score_items(x).T, best, atol=1e-5)


def test_tfidf():
    vectors = tfidf_vectors(["space war war", "space love", "love peace"])
    common, single = np.log(3 / 2), np.log(3)
    assert vectors.shape == (3, 2)  # war and peace have one text each
    expected = [[common / np.hypot(common, 2 * single), 0], [0.5**0.5] * 2]
    np.testing.assert_allclose(vectors[:2], expected, rtol=1e-5)


def test_refuses():
    for error, word, call in (
        (ValueError, "centres", lambda: HashedText(centres=(1900,))),
        (ValueError, "targets", lambda: fit_hashed_text(["a", "b"], np.ones((1, 3)))),
        (ValueError, "embedding_dim is 4",
         lambda: fit_hashed_text(["a"], np.ones((1, 3)), HashedText(embedding_dim=4))),
        (TypeError, "texts", lambda: fit_hashed_text("a", np.ones((1, 3)))),
        (ValueError, "text_vectors", lambda: fit_text_rating(np.zeros((3, 4)), LOG)),
        (ValueError, "dim is 5", lambda: fit_text_rating(np.ones((12, 4)), LOG, embedding_dim=5)),
        (ValueError, "l2 is 0", lambda: ridge(np.ones((2, 1)), np.ones((2, 1)), 0)),
        (ValueError, "vectors holds", lambda: ridge([[np.nan]], [[1.0]], 1)),
        (ValueError, "text_vectors has shape",
         lambda: fit_text_rating(np.eye(12), LOG, embedding_dim=2).score_items(np.zeros((1, 3)))),
    ):  # fmt: skip
        with pytest.raises(error, match=word):
            call()
