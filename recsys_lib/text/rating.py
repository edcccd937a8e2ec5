"""Rating models for items that nobody has rated: users meet a linear image of an item's text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recsys_lib.checks import Floats, check_number, check_shape, check_type, check_weights
from recsys_lib.data import Interactions
from recsys_lib.text.encoder import check_texts


@dataclass(frozen=True, eq=False)
class TextRatingModel:
    """Two towers: a vector for each user, ``x K + b`` for an item whose text has the vector x.

    Args:
        user_vectors: (num_users, d).
        kernel: (m, d), m the length of a text's vector.
        bias: (d,).
    """

    user_vectors: Floats
    kernel: Floats
    bias: Floats

    def item_vectors(self, text_vectors: ArrayLike) -> Floats:
        """Return (n, d) item vectors for (n, m) vectors of texts.

        Raises:
            ValueError: another shape, or NaN or infinity.
        """
        vectors = check_vectors("text_vectors", text_vectors)
        check_shape("text_vectors", vectors, (len(vectors), len(self.kernel)))
        return vectors @ self.kernel + self.bias

    def score_items(self, text_vectors: ArrayLike) -> Floats:
        """Return (num_users, n) scores of n items, known by the vectors of their texts."""
        return self.user_vectors @ self.item_vectors(text_vectors).T


def fit_text_rating(
    text_vectors: Any, interactions: Interactions, *, embedding_dim: int = 64, l2: float = 10.0
) -> TextRatingModel:
    """Fit users and projection in closed form: ridge regression, then its best low-rank form.

    With X the texts' vectors and a column of ones, and R (items, users) of 1 where they met and 0
    elsewhere, ``W = (X'X + l2 I)^-1 X'R`` minimises ``|X W - R|^2 + l2 |W|^2``. The first d right
    singular vectors of X W are the users.

    Args:
        text_vectors: (num_items, m) of the training items.
        interactions: with those items.
        embedding_dim: d, at most the number of users and m.
        l2: penalty, above 0.

    Returns:
        The model; its users are those of the interactions.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, shape or range.

    Source:
        Gantner et al., *Learning Attribute-to-Feature Mappings for Cold-Start Recommendations*,
        ICDM 2010 (a linear map from attributes); reduced-rank regression: Izenman, 1975.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> log = Interactions([0, 1, 2, 2], [0, 1, 2, 3], num_users=3)
        >>> model = fit_text_rating(rng.normal(size=(4, 5)), log, embedding_dim=2)
        >>> model.score_items(rng.normal(size=(7, 5))).shape
        (3, 7)
    """
    check_type("interactions", interactions, (Interactions,))
    vectors = check_vectors("text_vectors", text_vectors, interactions.num_items)
    most = min(interactions.num_users, vectors.shape[1])
    dim = check_number("embedding_dim", embedding_dim, 1, most, integer=True)
    ratings = interactions.to_csr().T.toarray()  # (items, users)
    kernel, bias = ridge(vectors, ratings, l2)
    # Right singular vectors of the predictions, by the eigenvectors of a (users, users) matrix.
    fitted = (vectors @ kernel + bias).astype(np.float64)
    _, axes = np.linalg.eigh(fitted.T @ fitted)
    users = axes[:, ::-1][:, :dim].astype(np.float32)
    return TextRatingModel(users, kernel @ users, bias @ users)


def ridge(vectors: ArrayLike, targets: ArrayLike, l2: float) -> tuple[Floats, Floats]:
    """Return kernel (m, c) and bias (c,) of the ridge regression of targets on vectors.

    The bias is penalised like the rest.

    Args:
        vectors: (n, m).
        targets: (n, c).
        l2: penalty, above 0.

    Raises:
        TypeError, ValueError: shapes that do not fit, NaN, or l2 not above 0.

    Example:
        >>> kernel, bias = ridge([[0.0], [1.0], [2.0]], [[1.0], [3.0], [5.0]], l2=1e-9)
        >>> kernel.round(3).tolist(), bias.round(3).tolist()
        ([[2.0]], [1.0])
    """
    x = check_vectors("vectors", vectors)
    y = check_vectors("targets", targets, len(x))
    wide = np.hstack([x, np.ones((len(x), 1), np.float32)]).astype(np.float64)
    penalty = check_number("l2", l2, 0, include_low=False) * np.eye(wide.shape[1])
    gram = wide.T @ wide + penalty
    solution = np.linalg.solve(gram, wide.T @ y).astype(np.float32)
    return solution[:-1], solution[-1]


def check_vectors(name: str, values: ArrayLike, count: int | None = None) -> Floats:
    """Return (n, m) finite numbers as float32, n = ``count``; ValueError for anything else."""
    vectors = check_weights(name, np.asarray(values, np.float32), ndim=2)
    check_shape(name, vectors, (len(vectors) if count is None else count, vectors.shape[1]))
    return vectors


def tfidf_vectors(texts: Sequence[str]) -> Floats:
    """Return (n, num_words) vectors: counts of words, times their rarity, over the length.

    ``count * log(n / number of texts that have the word)``, divided by the length of the whole
    vector. Columns of words that one text alone has are then left out: they tell a linear model
    nothing about other texts, but their share of the length says how unlike others a text is.

    Raises:
        TypeError: not a list of texts.

    Source:
        Spärck Jones, *A Statistical Interpretation of Term Specificity*, 1972.

    Example:
        >>> tfidf_vectors(["space war", "space love", "love"]).shape
        (3, 2)
    """
    words = [Counter(re.findall(r"\w+", text.lower())) for text in check_texts(texts)]
    frequency = Counter(word for counts in words for word in counts)
    column = {word: n for n, word in enumerate(w for w, f in frequency.items() if f > 1)}
    vectors = np.zeros((len(texts), max(len(column), 1)), np.float32)
    for row, counts in enumerate(words):
        weights = {w: c * np.log(len(texts) / frequency[w]) for w, c in counts.items()}
        length = np.sqrt(sum(weight**2 for weight in weights.values()))
        for word, weight in weights.items():
            if word in column:
                vectors[row, column[word]] = weight / max(length, 1e-9)
    return vectors
