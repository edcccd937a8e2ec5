"""Smaller embedding tables: fewer columns in axes that were turned first, and fewer rows."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_choice,
    check_ids,
    check_number,
    check_shape,
    check_weights,
    store_numbers,
)
from recsys_lib.compression import CompressedModel, EncodedTensor, named_weights
from recsys_lib.compression.pruning.prune import Pruning
from recsys_lib.compression.pruning.rating_models import (
    Weights,
    as_compressed,
    check_data,
    read_config,
    rebuild,
)
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig
from recsys_lib.models.factors import Factors

_SIDES = ("user", "item")
Array = NDArray[np.float32]


class PrincipalAxes(NamedTuple):
    """Two tables in new axes, and how much each axis matters."""

    user_vectors: Array
    item_vectors: Array
    singular_values: Array


@dataclass(frozen=True)
class DimensionReduction(Pruning):
    """Shorten the embeddings of a model.

    - A factor model, dot_product, matrix_factorization: the tables of users and items are rotated
      together, and cut. Biases and the global mean stay.
    - mlp_ranker, neumf, two_tower: a table is looked at together with the part of the first dense
      kernel that reads it, since their product is all that later layers see. Rows and kernel are
      rotated together, and cut; the mean row goes into the bias, so that only deviations from it
      are cut.
    - The second pair of tables of neumf is an inner product weighted by the last layer: these
      weights go into the tables, and become 1.

    In principal axes the tables of a factor model are *nested*, as Matryoshka embeddings are: the
    first n numbers of every row are a model by themselves, for each n. Others train for that; here
    no training can do better for the squared error of the scores, since each prefix is the best
    of its rank (Eckart & Young). Training may still do better for a ranking.

    An IALS can still ``fold_in``: it solves in the new axes. "principal" stretches them as well, so
    that the penalty on the length of a vector means something different there: on Last.fm a history
    folded in after it ranks 6 % lower even when nothing is cut. For files of items only take
    "rotation", which leaves all lengths as they are.

    Args:
        embedding_dim: dimensions that stay; not more than the model has.
        axes: "principal" rotates first, see :func:`rotate_to_principal_axes`; "rotation" likewise,
            see :func:`rotate_to_user_axes`; "given" does not. The last two keep those dimensions
            that matter most, by the product of the two columns' lengths.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.

    Source:
        Nesting: Kusupati et al., *Matryoshka Representation Learning*, NeurIPS 2022.

    Example:
        >>> from recsys_lib.compression.pruning import prune
        >>> from recsys_lib.models import build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 50, 70, 16))
        >>> smaller = prune(model, DimensionReduction(4)).model
        >>> [weights.shape for weights in smaller.get_weights()][:3]
        [(50, 4), (70, 4), (8, 64)]
    """

    embedding_dim: int
    axes: str = "principal"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "embedding_dim", integer=True)
        check_choice("axes", self.axes, ("principal", "rotation", "given"))

    def apply(self, model: Any, data: Interactions | None = None) -> CompressedModel:
        """Return the model with shorter embeddings."""
        shape: Any = model if isinstance(model, Factors) else read_config(model)
        weights = dict(named_weights(model))
        check_number("embedding_dim", self.embedding_dim, 1, shape.embedding_dim, integer=True)
        if isinstance(model, Factors):
            if model.user_vectors is None:
                raise ValueError("model holds items only: expected user vectors to turn with them")
            users, items = self._cut(weights["user_vectors"], weights["item_vectors"])
            new = {"user_vectors": users, "item_vectors": items}
            smaller: Any = _changed(model, new, embedding_dim=self.embedding_dim)
        else:
            self._shorten(weights, shape)
            smaller = rebuild(model, replace(shape, embedding_dim=self.embedding_dim), weights)
        return as_compressed("dimension reduction", self, model, smaller)

    def _cut(self, left: Array, right: Array) -> tuple[Array, Array]:
        """Return k columns of two tables whose product matters, in the axes asked for."""
        if self.axes == "principal":
            left, right, matters = rotate_to_principal_axes(left, right)
        else:
            if self.axes == "rotation":
                left, right = rotate_to_user_axes(left, right)
            matters = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
        kept = np.sort(np.argsort(-matters, kind="stable")[: self.embedding_dim])
        return left[:, kept].copy(), right[:, kept].copy()

    def _shorten(self, weights: Weights, shape: RatingModelConfig) -> None:
        """Replace tables, and kernels that read them, by shorter ones."""
        width = shape.embedding_dim
        if not shape.hidden_units:
            users, items = "user_embedding/embeddings", "item_embedding/embeddings"
            weights[users], weights[items] = self._cut(weights[users], weights[items])
        elif shape.kind == "two_tower":
            for side in _SIDES:
                name = f"{side}_dense_0"
                kernel = weights[f"{name}/kernel"]
                weights[f"{name}/kernel"] = self._read_by(weights, side, kernel, name)
        else:
            parts = zip(_SIDES, np.split(weights["dense_0/kernel"], [width]), strict=True)
            short = [self._read_by(weights, side, part, "dense_0") for side, part in parts]
            weights["dense_0/kernel"] = np.vstack(short)
        if shape.kind == "neumf":
            users, items = "user_gmf_embedding/embeddings", "item_gmf_embedding/embeddings"
            products, others = np.split(weights["score/kernel"], [width])
            weighted = weights[users] * products[:, 0]
            weights[users], weights[items] = self._cut(weighted, weights[items])
            ones = np.ones((self.embedding_dim, 1), np.float32)
            weights["score/kernel"] = np.vstack([ones, others])

    def _read_by(self, weights: Weights, side: str, kernel: Array, layer: str) -> Array:
        """Shorten one side's table in ``weights``; return the rows of the kernel that read it."""
        name = f"{side}_embedding/embeddings"
        mean = weights[name].mean(axis=0)
        weights[f"{layer}/bias"] = weights[f"{layer}/bias"] + mean @ kernel
        weights[name], short = self._cut(weights[name] - mean, kernel.T)
        return short.T


def rotate_to_principal_axes(user_vectors: ArrayLike, item_vectors: ArrayLike) -> PrincipalAxes:
    """Return two tables in other axes, in which all inner products are the same.

    For any invertible C, ``<C' a_u, C^-1 h_i> = <a_u, h_i>``. Here C is chosen such that the axes
    are those of the singular value decomposition of the matrix of all scores, ``A H' = Q1 D Q2'``:
    the new tables are ``Q1 sqrt(D)`` and ``Q2 sqrt(D)``. Cutting all but the first k columns then
    leaves the best matrix of rank k there is. The score matrix is never formed: after a QR
    decomposition of A and of H, only the product of the two triangles (d, d) has to be decomposed.

    Args:
        user_vectors: A, (num_users, d).
        item_vectors: H, (num_items, d).

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
    check_shape("item_vectors", items, (len(items), users.shape[1]))
    q_users, r_users = np.linalg.qr(users.astype(np.float64))
    q_items, r_items = np.linalg.qr(items.astype(np.float64))
    left, values, right = np.linalg.svd(r_users @ r_items.T)
    root = np.sqrt(values)
    rank, width = len(values), users.shape[1]
    new = [q_users @ (left[:, :rank] * root), q_items @ (right[:rank].T * root)]
    wide = [np.pad(table, ((0, 0), (0, width - rank))).astype(np.float32) for table in new]
    return PrincipalAxes(wide[0], wide[1], np.pad(values, (0, width - rank)).astype(np.float32))


def rotate_to_user_axes(users: Array, items: Array) -> tuple[Array, Array]:
    """Return two tables in other axes, in which all inner products and all lengths are the same.

    The axes are the eigenvectors of ``A'A``: the columns of the users are uncorrelated, and those
    that hold most come first. :func:`rotate_to_principal_axes` packs the scores tighter, but it
    stretches axes; where users are folded in, a penalty on their length counts on it that nobody
    did.

    Args:
        users: A, (num_users, d).
        items: H, (num_items, d).

    Returns:
        Tables of the same shapes. The sign of a column is arbitrary, and common to both.

    Example:
        >>> users, items = rotate_to_user_axes(np.float32([[1, 0], [0, 2]]), np.float32([[3, 4]]))
        >>> abs(users).tolist(), abs(items).tolist()
        ([[0.0, 1.0], [2.0, 0.0]], [[4.0, 3.0]])
    """
    wide = users.astype(np.float64)
    axes = np.linalg.eigh(wide.T @ wide)[1][:, ::-1]
    return (wide @ axes).astype(np.float32), (items @ axes).astype(np.float32)


@dataclass(frozen=True)
class RowRemoval(Pruning):
    """Let rare users or items share one row of their table.

    The shared row is the mean of the removed ones, weighted by their interactions: a rare item is
    scored as rare items are on average, and a rare user gets the list of an average rare user.
    Biases are shared in the same way. Items that share a row tie. Where everybody has enough
    interactions nothing changes; where nobody has, one row is left.

    Args:
        min_interactions: a row stays when its user or item has at least so many.
        sides: "both", "user" or "item".

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.

    Example:
        >>> from recsys_lib.compression.pruning import prune
        >>> from recsys_lib.models import IALS
        >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 3])
        >>> fewer = prune(IALS(4).fit(data), RowRemoval(2, "item"), data)
        >>> fewer.model.item_vectors.shape, fewer.score([0], [3]).shape
        ((3, 4), (1,))
    """

    min_interactions: int
    sides: str = "both"

    def __post_init__(self) -> None:
        store_numbers(self, 1, "min_interactions", integer=True)
        check_choice("sides", self.sides, ("both", *_SIDES))

    def apply(self, model: Any, data: Interactions | None) -> FewerRows:
        """Return the model with fewer rows, and the maps from ids to them; these are stored too."""
        weights = dict(named_weights(model))
        shape: Any = model if isinstance(model, Factors) else read_config(model)
        counts = dict(zip(_SIDES, (shape.num_users, shape.num_items), strict=True))
        data = check_data(data, *counts.values())
        ids = {"user": data.user_ids, "item": data.item_ids}
        seen = {side: np.bincount(ids[side], minlength=counts[side]) for side in _SIDES}
        maps = {
            side: RowMap((seen[side] >= self.min_interactions) | (self.sides not in ("both", side)))
            for side in _SIDES
        }
        for name, values in weights.items():
            side = name.split("_")[0]
            if side in _SIDES and "dense" not in name:  # tables, and biases if they are there
                weights[name] = _share(values, maps[side], seen[side])
        new = {f"num_{side}s": maps[side].num_rows for side in _SIDES}
        if isinstance(model, Factors):
            smaller: Any = _changed(model, weights, **new)
        else:
            smaller = rebuild(model, replace(shape, **new), weights)
        stored = {f"{side}_rows": maps[side] for side in _SIDES}
        result = as_compressed("row removal", self, model, smaller, stored)
        return FewerRows(result.tensors, smaller, result.report, maps["user"], maps["item"])


class RowMap(EncodedTensor):
    """Which row of a smaller table an id looks at; stored as one bit for each id.

    Ids that kept their row have the first rows, in order; all others share the row after these.

    Args:
        kept: (n,) True for ids with a row of their own.

    Example:
        >>> row_map = RowMap(np.array([True, False, True, False]))
        >>> row_map.rows.tolist(), row_map.num_rows
        ([0, 2, 1, 2], 3)
    """

    kind = "row_map"

    def __init__(self, kept: NDArray[np.bool_]) -> None:
        super().__init__({"shape": list(kept.shape)}, {"kept": np.packbits(kept)})
        self.kept = kept
        own = int(kept.sum())
        self.num_rows = own + (own < len(kept))
        self.rows = np.where(kept, np.cumsum(kept) - 1, own)

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Return the table from its header and bits."""
        (count,) = header["shape"]
        if arrays["kept"].size * 8 < count:
            raise ValueError(f"kept has {arrays['kept'].size} bytes: expected bits for {count} ids")
        return cls(np.unpackbits(arrays["kept"], count=count).astype(bool))

    def decode(self) -> Array:
        """Return 1 for ids with a row of their own, 0 for others."""
        return self.kept.astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class FewerRows(CompressedModel):
    """A model with smaller tables, and the maps from ids to their rows.

    ``model`` counts rows, not ids; ``score`` and ``score_all_items`` take ids, as before.

    Args:
        user_map: of users; ``.rows`` (num_users,) says which row each of them has.
        item_map: of items.
    """

    user_map: RowMap
    item_map: RowMap

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Array:
        """Score pairs of ids (n,), (n,) to (n,)."""
        users = check_ids("user_ids", user_ids, len(self.user_map.rows))
        items = check_ids("item_ids", item_ids, len(self.item_map.rows))
        return super().score(self.user_map.rows[users], self.item_map.rows[items])

    def score_all_items(self, user_ids: ArrayLike) -> Array:
        """Score all item ids for users (b,): (b, num_items)."""
        users = check_ids("user_ids", user_ids, len(self.user_map.rows))
        return super().score_all_items(self.user_map.rows[users])[:, self.item_map.rows]


def _changed(model: Factors, tables: Weights, **sizes: int) -> Factors:
    """Return a copy of a factor model with other tables, of other sizes."""
    result = copy.copy(model)
    for name, value in (tables | sizes).items():
        setattr(result, name, value)
    return result


def _share(table: Array, row_map: RowMap, seen: NDArray[np.int64]) -> Array:
    """Return the rows that stay, and below them the mean of the others."""
    kept = row_map.kept
    if kept.all():
        return table.copy()
    weight = np.maximum(seen[~kept], 1e-9)  # rows that nobody has used do not count beside others
    shared = np.average(table[~kept], axis=0, weights=weight)
    return np.concatenate([table[kept], shared[None]]).astype(np.float32)
