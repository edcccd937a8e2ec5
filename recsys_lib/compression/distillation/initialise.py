"""Start a student from its teacher: the best tables of its size, and the layers that it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.distillation.platt import fit_logits
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
from recsys_lib.models.factors import Factors, paired_products

_TABLES = ("user_embedding/embeddings", "item_embedding/embeddings")


def start_from_teacher(
    teacher: Any, student: RatingModelConfig, interactions: Interactions | None = None
) -> Any:
    """Build a student whose first scores are as near to the teacher's as its size allows.

    - **Tables.** A student of kind dot_product or matrix_factorization, and a teacher whose score
      is an inner product ``<a_u, a_i>`` (IALS, ALS, dot_product, matrix_factorization, two_tower):
      the student's tables are ``P sqrt(S)`` and ``Q sqrt(S)`` of the truncated singular value
      decomposition ``P S Q'`` of all scores at once. No other tables of d columns give scores with
      a smaller squared error. Biases of the teacher are kept by a matrix_factorization, which also
      takes over its ``global_bias``, and become part of the decomposition for a dot_product. With
      d of the teacher's rank or more, no score changes; columns beyond the rank keep the random
      start on the user's side and are 0 on the item's, so that they can learn.
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
    if not isinstance(student, RatingModelConfig):
        raise TypeError(f"student is of type {type(student).__name__}: expected RatingModelConfig")
    if interactions is not None and not isinstance(interactions, Interactions):
        raise TypeError(
            f"interactions is of type {type(interactions).__name__}: expected Interactions or None"
        )
    if student.kind in ("dot_product", "matrix_factorization"):
        return _from_tables(teacher, student, interactions)
    return _from_layers(teacher, student, interactions)


def _from_tables(
    teacher: Any, student: RatingModelConfig, interactions: Interactions | None
) -> Any:
    users, items, biases, constant = _vectors(teacher, student.kind)
    _check_counts((len(users), len(items)), student)
    fresh = build_rating_model(student)
    axes = rotate_to_principal_axes(users, items)
    width = min(student.embedding_dim, int(np.sum(axes.singular_values > 0)))
    tables = [axes.user_vectors[:, :width], axes.item_vectors[:, :width]]
    scale, offset = 1.0, 0.0
    if interactions is not None:
        own = sample_pairs(fresh, interactions)
        scores = paired_products(tables[0], tables[1], own[0].astype(int), own[1].astype(int))
        if biases:
            scores = scores + biases[0][own[0]] + biases[1][own[1]] + constant
        scale, offset = fit_logits(scores, own[2])
    weights = named_weights(fresh)
    for name, table in zip(_TABLES, tables, strict=True):
        weights[name][:, :width] = table * np.sqrt(scale)
    weights[_TABLES[1]][:, width:] = 0.0
    if student.kind == "matrix_factorization":
        student = replace(student, global_bias=float(scale * constant + offset))
        for side, bias in zip(("user", "item"), biases, strict=False):
            weights[f"{side}_bias/embeddings"] = (scale * bias)[:, None].astype(np.float32)
    return with_weights(build_rating_model(student), weights)


def _vectors(
    teacher: Any, kind: str
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[NDArray[np.float32]], float]:
    """Give two tables, biases that are to be kept beside them, and the constant."""
    if isinstance(teacher, Factors):
        weights = named_weights(teacher)
        return weights["user_vectors"], weights["item_vectors"], [], 0.0
    inner = keras_model(teacher)
    if kind == inner.name == "matrix_factorization":
        weights = named_weights(inner)
        biases = [weights[f"{side}_bias/embeddings"][:, 0] for side in ("user", "item")]
        constant = float(inner.get_layer("global_bias").offset)
        return weights[_TABLES[0]], weights[_TABLES[1]], biases, constant
    vectors = inner_product_vectors(inner)
    if vectors is None:
        raise ValueError(
            f"teacher is a {inner.name}, which is no inner product, and student a {kind}: expected "
            "a teacher such as IALS, dot_product, matrix_factorization or two_tower"
        )
    return *vectors, [], 0.0


def _from_layers(
    teacher: Any, student: RatingModelConfig, interactions: Interactions | None
) -> Any:
    model = None if isinstance(teacher, Factors) else keras_model(teacher)
    shape = None if model is None else read_config(model)
    if shape is None or shape.kind != student.kind:
        found = type(teacher).__name__ if shape is None else shape.kind
        raise ValueError(f"teacher is a {found} and student a {student.kind}: expected equal kinds")
    _check_counts((shape.num_users, shape.num_items), student)
    if shape.activation != student.activation:
        raise ValueError(
            f"student has activation {student.activation}, teacher {shape.activation}: expected "
            "the same"
        )
    if student.embedding_dim > shape.embedding_dim:
        raise ValueError(
            f"student has embedding_dim {student.embedding_dim}: expected at most the "
            f"{shape.embedding_dim} of its teacher"
        )
    old, new = shape.hidden_units or (), student.hidden_units or ()
    kept = kept_layers(len(old), len(new))
    too_wide = [n for n, position in enumerate(kept) if new[n] > old[position]]
    if too_wide or (student.kind == "two_tower" and new[-1] != old[-1]):
        expected = [old[position] for position in kept]
        last = ", and the last equal" if student.kind == "two_tower" else ""
        raise ValueError(
            f"student has hidden_units {new}: expected at most {expected}, those of its teacher's "
            f"layers {list(kept)}{last}"
        )
    model = with_weights(model, {})
    if student.embedding_dim < shape.embedding_dim:
        model = prune(model, DimensionReduction(student.embedding_dim)).model
    for position in sorted(set(range(len(old))) - set(kept), reverse=True):
        model = prune(model, LayerRemoval(position), interactions).model
    method = "magnitude" if interactions is None else "taylor"
    importance = neuron_importance(model, method, interactions)
    surplus = {}
    for name, rated in importance.items():
        width = new[int(name.rsplit("_", 1)[1])]
        if width < len(rated):
            surplus[name] = np.sort(np.argsort(rated, kind="stable")[: len(rated) - width])
    if surplus:
        model = remove_neurons(model, surplus).model
    return with_weights(build_rating_model(student), named_weights(model))


def kept_layers(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Choose which hidden layers a student keeps: the first, the last, and evenly between.

    Example:
        >>> kept_layers(6, 3), kept_layers(3, 1)
        ((0, 2, 5), (2,))
    """
    if student_layers > teacher_layers:
        raise ValueError(
            f"student has {student_layers} hidden layers: expected at most the {teacher_layers} "
            "of its teacher"
        )
    if student_layers == 1:
        return (teacher_layers - 1,)
    places = np.linspace(0, teacher_layers - 1, student_layers)
    return tuple(int(place) for place in np.round(places))


def _check_counts(found: tuple[int, int], student: RatingModelConfig) -> None:
    if found != (student.num_users, student.num_items):
        raise ValueError(
            f"student is for {student.num_users} users and {student.num_items} items, teacher for "
            f"{found[0]} and {found[1]}: expected the same"
        )
