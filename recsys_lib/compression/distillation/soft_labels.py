"""Objectives that learn from a teacher's scores: pure and unreduced, smaller is better.

Each takes what the teacher says first, what the student says second, and passes gradients to the
student alone. ``temperature`` divides the scores of both, and the loss is multiplied by its square:
the gradient then keeps its size, so that a weight in :func:`mix` means the same at every
temperature. Take the mean yourself, as with :mod:`recsys_lib.objectives`.
"""

from __future__ import annotations

from typing import Any

from recsys_lib import objectives
from recsys_lib.checks import check_number


def soft_sigmoid_cross_entropy(
    teacher_logits: Any, student_logits: Any, *, temperature: float = 1.0
) -> Any:
    """Cross entropy of one pair's label, where the teacher's probability is the label.

    ``T² [-p log(s) - (1 - p) log(1 - s)]`` with ``p = sigmoid(teacher / T)`` and
    ``s = sigmoid(student / T)``. It is smallest where student and teacher agree, and then the
    teacher's entropy, not 0. The gradient by a student's logit is ``T (s - p)``.

    Args:
        teacher_logits: real numbers before the sigmoid, any shape, usually (n,).
        student_logits: the same shape.
        temperature: T, above 0; above 1 the label says more about how sure the teacher is.

    Returns:
        Losses of the same shape in nats, times T².

    Raises:
        TypeError: temperature is not a number.
        ValueError: the shapes differ, or temperature is not above 0.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2,
        for two classes; Tang & Wang, *Ranking Distillation*, KDD 2018, for rankers.

    Example:
        >>> print(soft_sigmoid_cross_entropy([0.0, 2.0], [0.0, 2.0]).numpy().round(4))
        [0.6931 0.3653]
    """
    from keras import ops

    temperature = check_temperature(temperature)
    teacher, student = _teacher_and_student(
        teacher_logits=teacher_logits, student_logits=student_logits
    )
    labels = ops.sigmoid(teacher / temperature)
    return temperature**2 * objectives.sigmoid_cross_entropy(labels, student / temperature)


def soft_softmax_cross_entropy(
    teacher_logits: Any, student_logits: Any, *, temperature: float = 1.0
) -> Any:
    """Cross entropy between the teacher's and the student's choice among candidates.

    ``-T² sum_j p_j log(s_j)`` with ``p = softmax(teacher / T)`` and ``s = softmax(student / T)``
    over the last axis. It differs from :func:`softmax_kl_divergence` by T² times the teacher's
    entropy, on which the student has no influence: both have the same gradient,
    ``T (s_j - p_j)``.

    Args:
        teacher_logits: (n, m) scores of m candidates of each of n users, m at least 2.
        student_logits: the same shape.
        temperature: T, above 0; above 1 the worse candidates count for more.

    Returns:
        (n,) losses in nats, times T², each 0 or more.

    Raises:
        TypeError: temperature is not a number.
        ValueError: not two matrices of the same shape, fewer than two candidates (the softmax of
            one number is always 1 and teaches nothing), or temperature is not above 0.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2.

    Example:
        >>> print(soft_softmax_cross_entropy([[1.0, 1.0]], [[0.0, 0.0]]).numpy().round(4))
        [0.6931]
    """
    from keras import ops

    temperature = check_temperature(temperature)
    teacher, student = _candidates(teacher_logits=teacher_logits, student_logits=student_logits)
    chosen = ops.softmax(teacher / temperature, axis=-1)  # (n, m)
    log_student = ops.log_softmax(student / temperature, axis=-1)
    return -(temperature**2) * ops.sum(chosen * log_student, axis=-1)


def softmax_kl_divergence(
    teacher_logits: Any, student_logits: Any, *, temperature: float = 1.0
) -> Any:
    """Divergence of the student's choice among candidates from the teacher's; 0 when they agree.

    ``T² sum_j p_j (log p_j - log s_j)`` with ``p = softmax(teacher / T)`` and
    ``s = softmax(student / T)`` over the last axis. As T grows it becomes half the variance, over
    the candidates, of teacher minus student: a regression on scores that forgives a constant.

    Args:
        teacher_logits: (n, m) scores of m candidates of each of n users, m at least 2.
        student_logits: the same shape.
        temperature: T, above 0.

    Returns:
        (n,) losses in nats, times T², each 0 or more up to rounding.

    Raises:
        TypeError: temperature is not a number.
        ValueError: as :func:`soft_softmax_cross_entropy`.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2
        and, for the limit, section 2.1.

    Example:
        Two candidates at temperature 2: p = (.7311, .2689), s = (.5, .5), so that
        4 (.7311 log 1.4621 + .2689 log .5379) = .4438.

        >>> loss = softmax_kl_divergence([[2.0, 0.0]], [[0.0, 0.0]], temperature=2.0)
        >>> print(loss.numpy().round(4))
        [0.4438]
    """
    from keras import ops

    temperature = check_temperature(temperature)
    teacher, student = _candidates(teacher_logits=teacher_logits, student_logits=student_logits)
    log_teacher = ops.log_softmax(teacher / temperature, axis=-1)  # (n, m)
    log_student = ops.log_softmax(student / temperature, axis=-1)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return temperature**2 * divergence


def score_regression(teacher_scores: Any, student_scores: Any, *, centered: bool = False) -> Any:
    """Squared difference of the scores: the student shall give the teacher's numbers.

    Args:
        teacher_scores: real numbers, any shape.
        student_scores: the same shape.
        centered: take each row's mean away from both first, so that only differences between the
            candidates of a user count; needs (n, m) with m at least 2.

    Returns:
        Losses of the same shape, each 0 or more, in squared units of the score.

    Raises:
        ValueError: the shapes differ, or centered without at least two candidates.

    Source:
        Ba & Caruana, *Do Deep Nets Really Need to be Deep?*, NIPS 2014, equation 1.

    Example:
        >>> print(score_regression([[3.0, 1.0]], [[2.0, 1.0]]).numpy())
        [[1. 0.]]
        >>> print(score_regression([[3.0, 1.0]], [[2.0, 1.0]], centered=True).numpy())
        [[0.25 0.25]]
    """
    from keras import ops

    scores = {"teacher_scores": teacher_scores, "student_scores": student_scores}
    if not centered:
        return objectives.squared_error(*_teacher_and_student(**scores))
    teacher, student = _candidates(**scores)
    difference = teacher - student
    return (difference - ops.mean(difference, axis=-1, keepdims=True)) ** 2


def mix(hard_losses: Any, soft_losses: Any, soft_weight: float) -> Any:
    """Weigh what the data say against what the teacher says.

    ``(1 - w) * hard + w * soft``. With w = 0 the result is ``hard_losses`` to the bit, whatever
    the other holds, and with w = 1 ``soft_losses``.

    Args:
        hard_losses: losses from labels, any shape.
        soft_losses: losses from the teacher, the same shape.
        soft_weight: w, in [0, 1].

    Returns:
        Losses of the same shape.

    Raises:
        TypeError: soft_weight is not a number.
        ValueError: the shapes differ, or soft_weight is outside [0, 1].

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2.

    Example:
        >>> print(mix([1.0, 2.0], [3.0, 2.0], 0.25).numpy())
        [1.5 2. ]
    """
    weight = check_number("soft_weight", soft_weight, 0)
    if weight > 1:
        raise ValueError(f"soft_weight is {soft_weight}: expected a number in [0, 1]")
    hard, soft = objectives._same_shape(hard_losses=hard_losses, soft_losses=soft_losses)
    if weight in (0, 1):
        return soft if weight else hard
    return (1 - weight) * hard + weight * soft


def check_temperature(temperature: float) -> float:
    """Give a temperature above 0.

    Example:
        >>> check_temperature(0)
        Traceback (most recent call last):
        ValueError: temperature is 0: expected a finite number above 0
    """
    return check_number("temperature", temperature, 0, include_low=False)


def _teacher_and_student(**scores: Any) -> tuple[Any, Any]:
    """Give two named tensors of one shape, the teacher's without a gradient."""
    from keras import ops

    teacher, student = objectives._same_shape(**scores)
    return ops.stop_gradient(teacher), student


def _candidates(**scores: Any) -> tuple[Any, Any]:
    """Give two named tensors (n, m), m at least 2, the teacher's without a gradient."""
    teacher, student = _teacher_and_student(**scores)
    shape, names = tuple(student.shape), " and ".join(scores)
    if len(shape) != 2:
        raise ValueError(f"{names} have shape {shape}: expected (n, m), with m candidates")
    if shape[1] is not None and shape[1] < 2:
        raise ValueError(
            f"{names} have shape {shape}: expected at least two candidates, since a softmax over "
            "one number is always 1 and teaches nothing"
        )
    return teacher, student
