"""Training objectives: pure, elementwise, unreduced, one number per row, smaller is better.

Each function takes tensors or arrays of the Keras backend and returns a tensor. Shapes must agree
exactly: (n,) against (n, 1) would broadcast to (n, n) and train without a word, so it raises.
Take the mean yourself: ``keras.ops.mean(squared_error(y_true, y_pred))``.
"""

from __future__ import annotations

from typing import Any


def squared_error(y_true: Any, y_pred: Any) -> Any:
    """Return the squared difference, for ratings: ``(y_true - y_pred)^2``.

    Args:
        y_true: observed ratings, any shape, usually (n,).
        y_pred: predicted ratings, the same shape.

    Returns:
        Losses of the same shape, each 0 or more, in squared units of the rating.

    Raises:
        ValueError: the shapes differ.

    Source:
        Koren, Bell & Volinsky, *Matrix Factorization Techniques for Recommender Systems*, 2009,
        equation 2 without the regulariser.

    Example:
        >>> print(squared_error([4.0, 1.0], [3.0, 1.5]).numpy())
        [1.   0.25]
    """
    y_true, y_pred = _same_shape(y_true=y_true, y_pred=y_pred)
    return (y_true - y_pred) ** 2


def sigmoid_cross_entropy(y_true: Any, logits: Any) -> Any:
    """Return the cross entropy of a Bernoulli label, computed on logits so that it cannot overflow.

    ``-y log(s) - (1 - y) log(1 - s)`` with ``s = 1 / (1 + exp(-logit))``, in the form
    ``max(x, 0) - x y + log(1 + exp(-|x|))``. Labels may be fractions (soft labels).

    Args:
        y_true: labels in [0, 1], any shape, usually (n,).
        logits: real numbers before the sigmoid, the same shape.

    Returns:
        Losses of the same shape in nats, each 0 or more.

    Raises:
        ValueError: the shapes differ.

    Source:
        He et al., *Neural Collaborative Filtering*, WWW 2017, equation 7.

    Example:
        >>> print(sigmoid_cross_entropy([1.0, 0.0], [0.0, 0.0]).numpy())  # log 2
        [0.6931472 0.6931472]
    """
    from keras import ops

    y_true, logits = _same_shape(y_true=y_true, logits=logits)
    return ops.softplus(logits) - logits * y_true


def bpr(positive_logits: Any, negative_logits: Any) -> Any:
    """Return the loss of Bayesian personalised ranking: positive items score above negative ones.

    ``-log sigmoid(positive - negative)``.

    Args:
        positive_logits: scores of items the user met, any shape, usually (n,).
        negative_logits: scores of sampled items of the same users, the same shape.

    Returns:
        Losses of the same shape in nats, each 0 or more.

    Raises:
        ValueError: the shapes differ.

    Source:
        Rendle et al., *BPR: Bayesian Personalized Ranking from Implicit Feedback*, UAI 2009,
        section 4.1 (BPR-Opt).

    Example:
        >>> print(bpr([2.0, 0.0], [0.0, 0.0]).numpy().round(4))
        [0.1269 0.6931]
    """
    from keras import ops

    better, worse = _same_shape(positive_logits=positive_logits, negative_logits=negative_logits)
    return ops.softplus(worse - better)


def sampled_softmax(positive_logits: Any, negative_logits: Any) -> Any:
    """Return the cross entropy of the positive item among itself and ``m`` sampled ones.

    ``-x_p + log(exp(x_p) + sum_j exp(x_j))`` for items that are drawn uniformly. Where they are
    not, subtract the log of the probability of its draw from each logit before.

    Args:
        positive_logits: (n,) scores of items the users met.
        negative_logits: (n, m) scores of sampled items, m at least 1.

    Returns:
        (n,) losses in nats, each 0 or more.

    Raises:
        ValueError: shapes do not fit.

    Source:
        Bengio & Senécal, *Adaptive Importance Sampling to Accelerate Training of a Neural
        Probabilistic Language Model*, 2008; the correction for recommenders in Yi et al.,
        *Sampling-Bias-Corrected Neural Modeling*, RecSys 2019, equation 3.

    Example:
        >>> print(sampled_softmax([0.0], [[0.0, 0.0, 0.0]]).numpy().round(4))  # log 4
        [1.3863]
    """
    from keras import ops

    positive, negative = (ops.convert_to_tensor(x) for x in (positive_logits, negative_logits))
    shapes = tuple(positive.shape), tuple(negative.shape)
    if len(shapes[1]) != 2 or not _agree(shapes[0], shapes[1][:1]) or shapes[1][1] == 0:
        expected = "expected (n,) and (n, m), m at least 1"
        raise ValueError(f"positive_logits, negative_logits have shapes {shapes}: {expected}")
    logits = ops.concatenate([positive[:, None], negative], axis=1)  # (n, 1 + m)
    return ops.logsumexp(logits, axis=1) - positive


def _same_shape(**tensors: Any) -> tuple[Any, Any]:
    """Turn two named values into tensors of one shape and type, or say which shapes came."""
    from keras import ops

    a, b = map(ops.convert_to_tensor, tensors.values())
    shapes = tuple(a.shape), tuple(b.shape)
    if not _agree(*shapes):
        raise ValueError(f"{', '.join(tensors)} have shapes {shapes}: expected the same shape")
    return ops.cast(a, b.dtype) if "float" in str(b.dtype) else ops.cast(a, "float32"), b


def _agree(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    """True when the shapes are equal; None, unknown inside a graph, fits anything."""
    same = (None in (i, j) or i == j for i, j in zip(a, b, strict=False))
    return len(a) == len(b) and all(same)
