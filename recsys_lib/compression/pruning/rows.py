"""Rows of embedding tables for users and items that are hardly ever seen."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_ids, check_number
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.rating_models import as_compressed, read_config, rebuild
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions
from recsys_lib.models.checks import check_interactions
from recsys_lib.models.factors import Factors

_SIDES = ("user", "item")


@dataclass(frozen=True)
class RowRemoval:
    """Who loses a row of the tables.

    Args:
        min_interactions: a row stays when its user or item has at least so many.
        sides: "both", "user" or "item".

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.
    """

    min_interactions: int
    sides: str = "both"

    def __post_init__(self) -> None:
        check_number("min_interactions", self.min_interactions, 1, integer=True)
        check_choice("sides", self.sides, ("both", *_SIDES))


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
        self._kept = np.array(kept, bool)
        self.shape = self._kept.shape
        own = int(self._kept.sum())
        self.num_rows = own + (own < len(self._kept))
        self.rows = np.where(self._kept, np.cumsum(self._kept) - 1, own)

    def header(self) -> dict[str, Any]:
        """Give the shape."""
        return {"shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the bits."""
        return {"kept": np.packbits(self._kept)}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and bits together again."""
        (count,) = header["shape"]
        if arrays["kept"].size * 8 < count:
            raise ValueError(f"kept has {arrays['kept'].size} bytes: expected bits for {count} ids")
        return cls(np.unpackbits(arrays["kept"], count=count).astype(bool))

    def decode(self) -> NDArray[np.float32]:
        """Give 1 for ids with a row of their own, 0 for others."""
        return self._kept.astype(np.float32)


@dataclass(frozen=True, eq=False)
class FewerRows(CompressedModel):
    """A model with smaller tables, and the maps from ids to their rows.

    ``model`` counts rows, not ids; ``score`` and ``score_all_items`` take ids, as before.

    Args:
        user_map: of users.
        item_map: of items.
    """

    user_map: RowMap
    item_map: RowMap

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs of ids (n,), (n,) to (n,)."""
        users = self.user_map.rows[check_ids("user_ids", user_ids, self.user_map.shape[0])]
        return super().score(
            users, self.item_map.rows[check_ids("item_ids", item_ids, self.item_map.shape[0])]
        )

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all item ids for users (b,): (b, num_items)."""
        users = self.user_map.rows[check_ids("user_ids", user_ids, self.user_map.shape[0])]
        return super().score_all_items(users)[:, self.item_map.rows]


def remove_rows(model: Any, config: RowRemoval, interactions: Interactions) -> FewerRows:
    """Let rare users or items share one row of their table.

    The shared row is the mean of the removed ones, weighted by their interactions: a rare item is
    scored as rare items are on average, and a rare user gets the list of an average rare user.
    Items that share a row tie. Where everybody has enough interactions nothing changes; where
    nobody has, one row is left.

    Args:
        model: a factor model (IALS, ALS), a model of ``build_rating_model`` (Keras 3 or tf_keras),
            or a fitted KerasRecommender; it stays as it is.
        config: who loses a row.
        interactions: that the model was trained on, to count.

    Returns:
        ``.model`` is of the same kind with fewer users and items, ``.user_map.rows`` and
        ``.item_map.rows`` lead from ids to its rows. The maps are part of the bytes.

    Raises:
        TypeError: not such a model, or not Interactions.
        ValueError: interactions of other counts than the model.

    Example:
        >>> from recsys_lib.models import IALS
        >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 3])
        >>> fewer = remove_rows(IALS(4).fit(data), RowRemoval(2, "item"), data)
        >>> fewer.model.item_vectors.shape, fewer.score([0], [3]).shape
        ((3, 4), (1,))
    """
    weights = dict(named_weights(model))
    check_interactions(interactions)
    counts = _counts(model)
    given = {"user": interactions.num_users, "item": interactions.num_items}
    if given != counts:
        raise ValueError(
            f"interactions counts {given['user']} users and {given['item']} items, the model "
            f"{counts['user']} and {counts['item']}: expected the same"
        )
    ids = {"user": interactions.user_ids, "item": interactions.item_ids}
    seen = {side: np.bincount(ids[side], minlength=counts[side]) for side in _SIDES}
    maps = {
        side: RowMap((seen[side] >= config.min_interactions) | (config.sides not in ("both", side)))
        for side in _SIDES
    }
    if isinstance(model, Factors):
        weights = {name: getattr(model, name) for name in model._expected_shapes()}
    for name, values in weights.items():
        side = name.split("_")[0]
        if side in _SIDES and len(values) == counts[side] and "dense" not in name:
            weights[name] = _share(values, maps[side], seen[side])
    num_users, num_items = (maps[side].num_rows for side in _SIDES)
    if isinstance(model, Factors):
        smaller: Any = copy.copy(model)
        for name, values in weights.items():
            setattr(smaller, name, values)
        smaller.num_users, smaller.num_items = num_users, num_items
    else:
        shape = replace(read_config(model), num_users=num_users, num_items=num_items)
        smaller = rebuild(model, shape, weights)
    stored = {f"{side}_rows": maps[side] for side in _SIDES}
    result = as_compressed("row removal", config, model, smaller, stored)
    return FewerRows(result.tensors, smaller, result.report, maps["user"], maps["item"])


def _counts(model: Any) -> dict[str, int]:
    shape = model if isinstance(model, Factors) else read_config(model)
    return {"user": int(shape.num_users or 0), "item": int(shape.num_items or 0)}


def _share(
    table: NDArray[np.float32], row_map: RowMap, seen: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Give the rows that stay, and below them the mean of the others."""
    kept = row_map.decode() > 0
    if kept.all():
        return table.copy()
    weight = np.maximum(seen[~kept], 1e-9)  # rows that nobody has used do not count beside others
    shared = np.average(table[~kept], axis=0, weights=weight)
    return np.concatenate([table[kept], shared[None]]).astype(np.float32)
