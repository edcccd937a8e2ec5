"""Fewer embedding dimensions: turn the axes so that what is cut is what matters least."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_number, check_weights
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.rating_models import (
    Weights,
    as_compressed,
    read_config,
    rebuild,
)
from recsys_lib.compression.weights import named_weights
from recsys_lib.models import RatingModelConfig
from recsys_lib.models.factors import Factors


class PrincipalAxes(NamedTuple):
    """Two tables in new axes, and how much each axis matters."""

    user_vectors: NDArray[np.float32]
    item_vectors: NDArray[np.float32]
    singular_values: NDArray[np.float32]


@dataclass(frozen=True)
class DimensionReduction:
    """How many embedding dimensions stay, and in which axes.

    Args:
        embedding_dim: dimensions that stay; not more than the model has.
        axes: "principal" rotates first, see :func:`rotate_to_principal_axes`; "given" keeps those
            of the model's own dimensions that matter most, by the product of the two columns'
            lengths.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.
    """

    embedding_dim: int
    axes: str = "principal"

    def __post_init__(self) -> None:
        check_number("embedding_dim", self.embedding_dim, 1, integer=True)
        check_choice("axes", self.axes, ("principal", "given"))


def rotate_to_principal_axes(user_vectors: ArrayLike, item_vectors: ArrayLike) -> PrincipalAxes:
    """Write two tables in other axes, in which all inner products are the same.

    For any invertible R, ``<R' a_u, R^-1 a_i> = <a_u, a_i>``. Here R is chosen such that the axes
    are those of the singular value decomposition of the matrix of all scores, ``A B' = P S Q'``:
    the new tables are ``P sqrt(S)`` and ``Q sqrt(S)``. Cutting all but the first k columns then
    leaves the best matrix of rank k there is. The score matrix is never formed: with the
    decompositions ``A = Qa Ra`` and ``B = Qb Rb`` only ``Ra Rb'`` (d, d) has to be decomposed.

    Args:
        user_vectors: A, (num_users, d).
        item_vectors: B, (num_items, d).

    Returns:
        Tables of the same shapes, whose columns are orthogonal and of equal length in both, and
        the (d,) singular values S in descending order. Columns beyond the rank are zero. The sign
        of a column is arbitrary, and common to both tables.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: not two matrices of equal width, or NaN or infinity in them.

    Source:
        Eckart & Young, *The approximation of one matrix by another of lower rank*, Psychometrika
        1936.

    Example:
        >>> axes = rotate_to_principal_axes(np.float32([[3, 0], [0, 4]]), np.float32([[1, 0]]))
        >>> axes.singular_values.tolist()
        [3.0, 0.0]
        >>> np.round(axes.user_vectors @ axes.item_vectors.T, 4).tolist()
        [[3.0], [0.0]]
    """
    users = check_weights("user_vectors", user_vectors, ndim=2)
    items = check_weights("item_vectors", item_vectors, ndim=2)
    if users.shape[1] != items.shape[1]:
        raise ValueError(
            f"user_vectors has shape {users.shape}, item_vectors {items.shape}: expected the same "
            "number of dimensions"
        )
    q_users, r_users = np.linalg.qr(users.astype(np.float64))
    q_items, r_items = np.linalg.qr(items.astype(np.float64))
    left, values, right = np.linalg.svd(r_users @ r_items.T)
    root = np.sqrt(values)
    rank, width = len(values), users.shape[1]
    new = [q_users @ (left[:, :rank] * root), q_items @ (right[:rank].T * root)]
    wide = [np.pad(table, ((0, 0), (0, width - rank))).astype(np.float32) for table in new]
    return PrincipalAxes(wide[0], wide[1], np.pad(values, (0, width - rank)).astype(np.float32))


def reduce_dimensions(model: Any, config: DimensionReduction) -> CompressedModel:
    """Shorten the embeddings of a model.

    - IALS, ALS, dot_product, matrix_factorization: the tables of users and items are rotated
      together, and cut. Biases stay.
    - mlp_ranker, neumf, two_tower: a table is looked at together with the part of the first dense
      kernel that reads it, since their product is all that later layers see. Rows and kernel are
      rotated together, and cut; the mean row goes into the bias, so that only deviations from it
      are cut.
    - The second pair of tables of neumf is an inner product weighted by the last layer: these
      weights go into the tables, and become 1.

    Args:
        model: as above, of Keras 3 or tf_keras, or a fitted KerasRecommender; it stays as it is.
        config: how many dimensions and which.

    Returns:
        ``.model`` is of the same kind with shorter embeddings. An IALS can still ``fold_in``: it
        solves in the new axes, where the penalty on the length of a vector means something a
        little different, so that the result is not a shortened old vector.

    Raises:
        TypeError: not such a model.
        ValueError: more dimensions than the model has.

    Example:
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 50, 70, 16))
        >>> smaller = reduce_dimensions(model, DimensionReduction(4)).model
        >>> [weights.shape for weights in smaller.get_weights()][:3]
        [(50, 4), (70, 4), (8, 64)]
    """
    shape: Any = model if isinstance(model, Factors) else read_config(model)
    weights = dict(named_weights(model))
    if config.embedding_dim > shape.embedding_dim:
        raise ValueError(
            f"embedding_dim is {config.embedding_dim}: expected at most the {shape.embedding_dim} "
            "of the model"
        )
    smaller: Any
    if isinstance(model, Factors):
        smaller = copy.copy(model)
        smaller.embedding_dim = config.embedding_dim
        smaller.user_vectors, smaller.item_vectors = _cut(
            weights["user_vectors"], weights["item_vectors"], config
        )
    else:
        _shorten(weights, shape, config)
        smaller = rebuild(model, replace(shape, embedding_dim=config.embedding_dim), weights)
    return as_compressed("dimension reduction", config, model, smaller)


def _cut(
    left: NDArray[np.float32], right: NDArray[np.float32], config: DimensionReduction
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Give k columns of two tables whose product matters, in the axes asked for."""
    if config.axes == "principal":
        left, right, matters = rotate_to_principal_axes(left, right)
    else:
        matters = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
    kept = np.sort(np.argsort(-matters, kind="stable")[: config.embedding_dim])
    return left[:, kept].copy(), right[:, kept].copy()


def _shorten(weights: Weights, shape: RatingModelConfig, config: DimensionReduction) -> None:
    """Replace tables, and kernels that read them, by shorter ones."""
    width = shape.embedding_dim
    if not shape.hidden_units:
        users, items = "user_embedding/embeddings", "item_embedding/embeddings"
        weights[users], weights[items] = _cut(weights[users], weights[items], config)
    elif shape.kind == "two_tower":
        for side in ("user", "item"):
            name = f"{side}_dense_0/kernel"
            weights[name] = _read_by(weights, side, weights[name], f"{side}_dense_0", config)
    else:
        kernel = weights["dense_0/kernel"]
        parts = (("user", kernel[:width]), ("item", kernel[width:]))
        weights["dense_0/kernel"] = np.vstack(
            [_read_by(weights, side, part, "dense_0", config) for side, part in parts]
        )
    if shape.kind == "neumf":
        users, items = "user_gmf_embedding/embeddings", "item_gmf_embedding/embeddings"
        products, others = np.split(weights["score/kernel"], [width])
        weights[users], weights[items] = _cut(
            weights[users] * products[:, 0], weights[items], config
        )
        ones = np.ones((config.embedding_dim, 1), np.float32)
        weights["score/kernel"] = np.vstack([ones, others])


def _read_by(
    weights: Weights, side: str, kernel: NDArray[np.float32], layer: str, config: DimensionReduction
) -> NDArray[np.float32]:
    """Shorten one side's table in ``weights`` and give the rows of the kernel that read it."""
    name = f"{side}_embedding/embeddings"
    mean = weights[name].mean(axis=0)
    weights[f"{layer}/bias"] = weights[f"{layer}/bias"] + mean @ kernel
    weights[name], short = _cut(weights[name] - mean, kernel.T, config)
    return short.T
