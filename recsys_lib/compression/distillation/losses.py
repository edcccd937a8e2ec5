"""Losses that learn from a teacher: pure and unreduced, smaller is better.

Those on scores take what the teacher says first, what the student says second, and pass gradients
to the student alone. ``temperature`` divides the scores of both, and the loss is multiplied by its
square: the gradient then keeps its size, so that a weight beside another loss means the same at
every temperature. Take the mean yourself, as with :mod:`recsys_lib.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsys_lib import objectives
from recsys_lib.checks import check_number

SOFT_LOSSES = ("listwise", "binary", "regression")


def softmax_kl_divergence(
    teacher_logits: Any, student_logits: Any, *, temperature: float = 1.0
) -> Any:
    """Return the divergence of the student's choice among candidates from the teacher's.

    ``T² sum_j p_j (log p_j - log s_j)`` with ``p = softmax(teacher / T)`` and
    ``s = softmax(student / T)`` over the last axis; 0 when they agree. The gradient by a student's
    logit is ``T (s_j - p_j)``. As T grows the loss becomes half the variance, over the candidates,
    of teacher minus student: a regression on scores that forgives a constant.

    Args:
        teacher_logits: (n, m) scores of m candidates of each of n users, m at least 2.
        student_logits: the same shape.
        temperature: T, above 0; above 1 the worse candidates count for more.

    Returns:
        (n,) losses in nats, times T², each 0 or more up to rounding.

    Raises:
        TypeError: temperature is not a number.
        ValueError: not two matrices of the same shape, fewer than two candidates (the softmax of
            one number is always 1 and teaches nothing), or temperature is not above 0.

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

    temperature = check_number("temperature", temperature, 0, include_low=False)
    teacher, student = _teacher_and_student(teacher_logits, student_logits)
    shape = tuple(student.shape)
    if len(shape) != 2 or (shape[1] is not None and shape[1] < 2):
        raise ValueError(f"logits have shape {shape}: expected (n, m), at least two candidates")
    log_teacher = ops.log_softmax(teacher / temperature, axis=-1)  # (n, m)
    log_student = ops.log_softmax(student / temperature, axis=-1)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return temperature**2 * divergence


def soft_sigmoid_cross_entropy(teacher: Any, student: Any, *, temperature: float = 1.0) -> Any:
    """Return the cross entropy of one pair's label, where the teacher's probability is the label.

    ``T² [-p log(s) - (1 - p) log(1 - s)]`` with ``p = sigmoid(teacher / T)`` and
    ``s = sigmoid(student / T)``. It is smallest where student and teacher agree, and then the
    teacher's entropy, not 0. The gradient by a student's logit is ``T (s - p)``.

    Args:
        teacher: real numbers before the sigmoid, any shape, usually (n,).
        student: the same shape.
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

    temperature = check_number("temperature", temperature, 0, include_low=False)
    teacher, student = _teacher_and_student(teacher, student)
    labels = ops.sigmoid(teacher / temperature)
    return temperature**2 * objectives.sigmoid_cross_entropy(labels, student / temperature)


def soft_loss(name: str, temperature: float) -> Callable[[Any, Any], Any]:
    """Return the loss of one of these names as a function of teacher's and student's scores.

    Args:
        name: "listwise" (:func:`softmax_kl_divergence`), "binary"
            (:func:`soft_sigmoid_cross_entropy`) or "regression", the squared difference, which has
            no temperature.
        temperature: above 0.

    Example:
        >>> print(soft_loss("regression", 1.0)([[3.0, 1.0]], [[2.0, 1.0]]).numpy())
        [[1. 0.]]
    """
    if name == "regression":
        return lambda *logits: objectives.squared_error(*_teacher_and_student(*logits))
    loss = softmax_kl_divergence if name == "listwise" else soft_sigmoid_cross_entropy
    return lambda teacher, student: loss(teacher, student, temperature=temperature)


def relaxed_ranking_loss(interesting: Any, uninteresting: Any) -> Any:
    """Return the negative log-likelihood of the order of some items above an unordered rest.

    ``- sum over k of [ s_k - log( sum over j >= k of exp(s_j) + sum over l of exp(z_l) ) ]``,
    computed with the largest score subtracted, so that it cannot overflow.

    Args:
        interesting: (n, K) the student's scores s of interesting items, in the teacher's order,
            best first.
        uninteresting: (n, L) its scores z of uninteresting items, L at least 1.

    Returns:
        (n,) losses in nats, each 0 or more.

    Raises:
        ValueError: shapes do not fit.

    Source:
        Kang et al., *DE-RRD*, CIKM 2020, equation 8.

    Example:
        >>> print(relaxed_ranking_loss([[0.0, 0.0]], [[0.0]]).numpy().round(4))  # log 3 + log 2
        [1.7918]
    """
    from keras import ops

    s, z = ops.convert_to_tensor(interesting), ops.convert_to_tensor(uninteresting)
    fit = len(s.shape) == len(z.shape) == 2 and 0 not in (s.shape[1], z.shape[1])
    if not fit or not objectives._agree(s.shape[:1], z.shape[:1]):
        raise ValueError(f"interesting {s.shape}, uninteresting {z.shape}: expected (n, K), (n, L)")
    highest = ops.maximum(ops.max(s, axis=1, keepdims=True), ops.max(z, axis=1, keepdims=True))
    highest = ops.stop_gradient(highest)  # (n, 1)
    s, z = s - highest, z - highest
    from_here = ops.flip(ops.cumsum(ops.exp(ops.flip(s, axis=1)), axis=1), axis=1)  # (n, K)
    below = ops.log(from_here + ops.sum(ops.exp(z), axis=1, keepdims=True) + 1e-30)
    return ops.sum(below - s, axis=1)


def _teacher_and_student(teacher_logits: Any, student_logits: Any) -> tuple[Any, Any]:
    """Two tensors of one shape, the teacher's without a gradient."""
    from keras import ops

    named = {"teacher_logits": teacher_logits, "student_logits": student_logits}
    teacher, student = objectives._same_shape(**named)
    return ops.stop_gradient(teacher), student
