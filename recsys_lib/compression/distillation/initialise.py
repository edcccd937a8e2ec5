"""Start a student from its teacher: the best tables of its size, and the layers that it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_counts, check_type
from recsys_lib.compression.pruning import (
    DimensionReduction,
    LayerRemoval,
    neuron_importance,
    prune,
    remove_neurons,
    rotate_to_principal_axes,
    sample_pairs,
)
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.weights import keras_model, named_weights, with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model, inner_product_vectors
from recsys_lib.models.factors import Factors
from recsys_lib.training import KerasScorer

_TABLES = ("user_embedding/embeddings", "item_embedding/embeddings")
_BIASES = ("user_bias/embeddings", "item_bias/embeddings")


def start_from_teacher(
    teacher: Any, student: RatingModelConfig, interactions: Interactions | None = None
) -> Any:
    """Build a student whose first scores are as near to the teacher's as its size allows.

    - **Tables.** A student of kind dot_product or matrix_factorization, and a teacher whose score
      is an inner product ``<a_u, h_i>`` (IALS, ALS, dot_product, matrix_factorization, two_tower):
      the student's tables are ``Q1 sqrt(D)`` and ``Q2 sqrt(D)`` of the truncated singular value
      decomposition ``Q1 D Q2'`` of all scores at once. No other tables of d columns do it with
      a smaller squared error. Biases and constant of the teacher (ALS, matrix_factorization) go
      into those of a matrix_factorization; for a dot_product they are two more dimensions of the
      teacher, and part of the decomposition. With d of the teacher's rank or more, no score
      changes; columns beyond the rank keep the random start on the user's side and are 0 on the
      item's, so that they can learn.
    - **Layers.** A student of the same kind as its teacher, mlp_ranker, neumf or two_tower: tables
      are turned together with the kernels that read them, and cut; hidden layers are kept at even
      distances and the others bridged; of each kept layer the most important neurons stay.

    An IALS teacher says about 1 for what was chosen and 0 for the rest, but a student that is then
    trained on logits should start with logits. With ``interactions``, the student's scores s become
    ``scale * s + offset``, with the two numbers that predict best who chose what: a logistic
    regression on one variable (Platt). The order of items stays. The offset goes into the
    ``global_bias`` of a matrix_factorization; a dot_product has no place for it, and needs none
    under a ranking objective ("bpr", "sampled_softmax").

    Args:
        teacher: as above; a fitted model. It stays as it is.
        student: what to build, for as many users and items as the teacher has.
        interactions: to fit scale and offset on, and to measure the importance of neurons and fit
            bridges on; None leaves scores on the teacher's scale, and goes by the size of weights.

    Returns:
        A new Keras model of the student's configuration.

    Raises:
        TypeError: student is no RatingModelConfig, or interactions are none.
        ValueError: kinds that do not fit each other, other numbers of users or items, a student
            wider or deeper than its teacher in its layers, or a teacher whose scores do not tell
            chosen items from others.

    Source:
        Eckart & Young, *The approximation of one matrix by another of lower rank*, Psychometrika
        1936 (tables); Sanh et al., *DistilBERT*, 2019, section 2 (kept layers); Platt,
        *Probabilistic Outputs for Support Vector Machines*, 1999 (scale and offset).

    Example:
        >>> teacher = build_rating_model(RatingModelConfig("dot_product", 50, 70, 16))
        >>> student = start_from_teacher(teacher, RatingModelConfig("dot_product", 50, 70, 4))
        >>> [weights.shape for weights in student.get_weights()]
        [(50, 4), (70, 4)]
    """
    check_type("student", student, (RatingModelConfig,))
    check_type("interactions", interactions, (Interactions, type(None)))
    if student.kind in ("dot_product", "matrix_factorization"):
        return _from_tables(teacher, student, interactions)
    if isinstance(teacher, Factors):
        raise ValueError(f"student is a {student.kind}: expected a kind with tables, dot_product")
    return _from_layers(teacher, student, interactions)


def _from_tables(teacher: Any, student: RatingModelConfig, data: Interactions | None) -> Any:
    source = _tables(teacher, student.kind)
    users, items = source.user_vectors, source.item_vectors
    assert users is not None
    check_counts("student", student, (len(users), len(items)))
    axes = rotate_to_principal_axes(users, items)
    width = min(student.embedding_dim, int(np.sum(axes.singular_values > 0)))
    weights = named_weights(build_rating_model(student))
    weights[_TABLES[1]][:, width:] = 0.0

    def build(scale: float, offset: float) -> Any:
        for name, table in zip(_TABLES, axes, strict=False):
            weights[name][:, :width] = table[:, :width] * np.sqrt(scale)
        if student.kind == "dot_product":
            return with_weights(build_rating_model(student), weights)
        for name, bias in zip(_BIASES, (source.user_biases, source.item_biases), strict=True):
            if bias is not None:
                weights[name] = (scale * bias)[:, None].astype(np.float32)
        shifted = replace(student, global_bias=float(scale * source.global_mean + offset))
        return with_weights(build_rating_model(shifted), weights)

    model = build(1.0, 0.0)
    if data is None:
        return model
    user_ids, item_ids, labels = sample_pairs(model, data)
    return build(*fit_logits(KerasScorer(model).score(user_ids, item_ids), labels))


def _tables(teacher: Any, kind: str) -> Factors:
    """The teacher as tables, with mean and biases beside them if such a student keeps them."""
    inner: Any = teacher if isinstance(teacher, Factors) else keras_model(teacher)
    if kind == "matrix_factorization":
        if isinstance(inner, Factors) and inner.user_vectors is not None:
            return inner
        if getattr(inner, "name", None) == kind:
            weights = named_weights(inner)
            users, items = (weights[name] for name in _TABLES)
            beside: dict[str, Any] = {f"{n[:4]}_biases": weights[n][:, 0] for n in _BIASES}
            mean = inner.get_layer("global_bias").offset
            return Factors(items, users, global_mean=mean, **beside)
    vectors = inner_product_vectors(inner)
    if vectors is None:
        raise ValueError(f"teacher is a {inner.name}: expected an inner product for a {kind}")
    return Factors(vectors[1], vectors[0])


def fit_logits(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Find scale and offset such that ``sigmoid(scale * score + offset)`` predicts labels best.

    Args:
        scores: (n,) finite numbers.
        labels: (n,) of 0 and 1, both there.

    Returns:
        Scale, above 0, and offset.

    Raises:
        ValueError: scores that are no higher for label 1 than for label 0.

    Source:
        Platt, *Probabilistic Outputs for Support Vector Machines*, 1999, section 2.1, without its
        smoothing of the labels.

    Example:
        >>> scale, offset = fit_logits([0.0, 0.0, 0.0, 0.0, 1.0, 1.0], [1, 0, 0, 0, 1, 0])
        >>> round(scale, 3), round(offset, 3)  # log 3 apart, from -log 3 up
        (1.099, -1.099)
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    x, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    center, spread = x.mean(), x.std() or 1.0
    z = (x - center) / spread

    def loss(beta: NDArray[np.float64]) -> tuple[float, list[float]]:
        logits = beta[0] * z + beta[1]
        error = (expit(logits) - y) / len(y)
        return np.mean(np.logaddexp(0, logits) - y * logits), [error @ z, error.sum()]

    slope, offset = minimize(loss, [0.0, logit(y.mean())], jac=True, options={"gtol": 1e-9}).x
    if slope <= 1e-9:
        raise ValueError("teacher's scores are no higher for chosen items: expected higher ones")
    return float(slope / spread), float(offset - slope * center / spread)


def _from_layers(teacher: Any, student: RatingModelConfig, data: Interactions | None) -> Any:
    model = with_weights(keras_model(teacher), {})
    shape = read_config(model)
    check_counts("student", student, (shape.num_users, shape.num_items))
    old, new = shape.hidden_units or (), student.hidden_units or ()
    kept = kept_layers(len(old), len(new)) if len(new) <= len(old) else ()
    fits = {
        "kind": student.kind == shape.kind,
        "activation": student.activation == shape.activation,
        "embedding_dim": student.embedding_dim <= shape.embedding_dim,
        # the ends of two towers are multiplied with each other
        "hidden_units": len(new) <= len(old)
        and all(new[n] <= old[position] for n, position in enumerate(kept))
        and (student.kind != "two_tower" or new[-1:] == old[-1:]),
    }
    for name in (name for name, fit in fits.items() if not fit):
        found, most = getattr(student, name), getattr(shape, name)
        raise ValueError(f"student has {name} {found}: expected one that {most} can become")
    if student.embedding_dim < shape.embedding_dim:
        model = prune(model, DimensionReduction(student.embedding_dim)).model
    for position in sorted(set(range(len(old))) - set(kept), reverse=True):
        model = prune(model, LayerRemoval(position), data).model
    importance = neuron_importance(model, "magnitude" if data is None else "taylor", data)
    surplus = {
        name: np.argsort(rated, kind="stable")[: len(rated) - new[int(name.rsplit("_", 1)[1])]]
        for name, rated in importance.items()
    }
    model = remove_neurons(model, surplus).model
    return with_weights(build_rating_model(student), named_weights(model))


def kept_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Choose which hidden layers a student keeps: the first, the last, and evenly between.

    Example:
        >>> kept_layers(6, 3), kept_layers(3, 1)
        ((0, 2, 5), (2,))
    """
    places = np.linspace(teacher_layers - 1, 0, student_layers)  # the last first: one is the last
    return tuple(int(place) for place in np.round(places[::-1]))
