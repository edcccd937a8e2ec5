"""The student acts: its vectors move to the teacher's, also for texts it has not seen."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from recsys_lib.text.hashed_text import HashedText, fit_hashed_text, hash_text


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


def test_the_table_is_the_ridge_regression() -> None:
    texts, vectors = _world(1, 40)
    config = HashedText(512, l2=0.5)
    student = fit_hashed_text(texts, vectors, config)
    x = np.zeros((40, 512))
    for row, text in enumerate(texts):
        found = hash_text(text, 512)
        np.add.at(x[row], found, len(found) ** -0.5)
    centred = vectors - vectors.mean(axis=0)
    table = np.linalg.solve(x.T @ x + 0.5 * np.eye(512), x.T @ centred)  # the other way round
    np.testing.assert_allclose(student.encode(texts), x @ table + vectors.mean(axis=0), atol=0.01)


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


def test_a_text_without_words_gets_the_mean() -> None:
    texts, vectors = _world(1, 30)
    student = fit_hashed_text(texts, vectors)
    np.testing.assert_allclose(student.encode_one("?!"), vectors.mean(axis=0), atol=1e-6)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="vectors has 1 rows: expected 2, one a text"):
        fit_hashed_text(["a", "b"], np.ones((1, 3)))
    with pytest.raises(TypeError, match="expected a list of str"):
        fit_hashed_text("a", np.ones((1, 3)))
    with pytest.raises(ValueError, match="bits is 9"):
        HashedText(bits=9)
    with pytest.raises(ValueError, match="texts is empty"):
        fit_hashed_text(["a"], np.ones((1, 3))).encode([])
