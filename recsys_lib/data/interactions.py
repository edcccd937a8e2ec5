"""The one data type of the library: who met which item, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_range

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Interactions between users and items, one per row, checked on creation.

    Ids are dense: users are ``0 .. num_users - 1`` and items ``0 .. num_items - 1``. Use
    :meth:`from_frame` for data with any other ids. Arrays are copied and made read-only.

    Args:
        user_ids: (n,) integers in ``[0, num_users)``.
        item_ids: (n,) integers in ``[0, num_items)``.
        ratings: (n,) finite numbers (stars, play counts, quantities), or None for plain events.
        timestamps: (n,) integer seconds since 1970-01-01 UTC, or None.
        num_users: number of users; default ``max(user_ids) + 1``.
        num_items: number of items in the catalogue; default ``max(item_ids) + 1``.
        user_vocabulary: (num_users,) original ids; position = dense id.
        item_vocabulary: (num_items,) original ids; position = dense id.
        item_names: one short name per item.
        item_texts: one longer text per item (title and genres, description, tags).
        name: name of the data set, for messages and captions.
        is_synthetic: True when the rows come from the generator and not from people.

    Raises:
        TypeError: ids are not integers.
        ValueError: no rows, lengths differ, an id is out of range, a rating is not finite.

    Example:
        >>> data = Interactions(user_ids=[0, 0, 1], item_ids=[2, 0, 1], ratings=[5, 3, 4])
        >>> data
        Interactions(3 rows, 2 users, 3 items, ratings)
        >>> data.to_csr().toarray().tolist()
        [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """

    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    ratings: NDArray[np.float32] | None = None
    timestamps: NDArray[np.int64] | None = None
    num_users: int = 0
    num_items: int = 0
    user_vocabulary: NDArray[Any] | None = None
    item_vocabulary: NDArray[Any] | None = None
    item_names: tuple[str, ...] | None = None
    item_texts: tuple[str, ...] | None = None
    name: str = field(default="interactions", kw_only=True)
    is_synthetic: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        user_ids, item_ids = _ids("user_ids", self.user_ids), _ids("item_ids", self.item_ids)
        if len(user_ids) == 0:
            raise ValueError("user_ids is empty: expected at least one interaction")
        columns: dict[str, Any] = {"user_ids": user_ids, "item_ids": item_ids}
        if self.ratings is not None:
            columns["ratings"] = _ratings(self.ratings)
        if self.timestamps is not None:
            columns["timestamps"] = _ids("timestamps", self.timestamps)
        for column, values in columns.items():
            if len(values) != len(user_ids):
                raise ValueError(
                    f"{column} has {len(values)} rows, user_ids has {len(user_ids)}: "
                    "expected equal lengths"
                )
            values.flags.writeable = False
            object.__setattr__(self, column, values)
        for count, ids in (("num_users", user_ids), ("num_items", item_ids)):
            object.__setattr__(self, count, _count(count, getattr(self, count), ids))
        for column, count in (
            ("user_vocabulary", "num_users"),
            ("item_vocabulary", "num_items"),
            ("item_names", "num_items"),
            ("item_texts", "num_items"),
        ):
            values = getattr(self, column)
            if values is None:
                continue
            if len(values) != getattr(self, count):
                raise ValueError(
                    f"{column} has {len(values)} entries, {count} is {getattr(self, count)}: "
                    "expected one entry per id"
                )
            if column.endswith("vocabulary"):
                values = np.array(values)
                values.flags.writeable = False
            else:
                values = tuple(str(value) for value in values)
            object.__setattr__(self, column, values)

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def num_interactions(self) -> int:
        """Number of rows."""
        return len(self.user_ids)

    @property
    def density(self) -> float:
        """Fraction of all user-item pairs that occur, in (0, 1]."""
        pairs = np.unique(self.user_ids * self.num_items + self.item_ids)
        return len(pairs) / (self.num_users * self.num_items)

    def __repr__(self) -> str:
        columns = [c for c in ("ratings", "timestamps") if getattr(self, c) is not None]
        columns += [c for c in ("item_names", "item_texts") if getattr(self, c) is not None]
        label = "" if self.name == "interactions" else f"{self.name!r}, "
        extra = f", {', '.join(columns)}" if columns else ""
        return (
            f"Interactions({label}{len(self):,} rows, {self.num_users:,} users, "
            f"{self.num_items:,} items{extra})"
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        user: str,
        item: str,
        rating: str | None = None,
        time: str | None = None,
        item_name: str | None = None,
        item_text: str | None = None,
        name: str = "interactions",
    ) -> Interactions:
        """Read a data frame with any ids; keep the original ones as vocabularies.

        Dense ids follow the sorted order of the original ones. Every row is kept, repeats too.

        Args:
            frame: one interaction per row.
            user: column of user ids, of any hashable, sortable type.
            item: column of item ids.
            rating: column of numbers, or None.
            time: column of datetimes or of integer seconds, or None.
            item_name: column with the item's name; the first one seen is kept.
            item_text: column with a longer text of the item; the first one seen is kept.
            name: name of the data set.

        Raises:
            KeyError: a named column is missing.
            ValueError: no rows, a missing id, or a rating or time that cannot be read.

        Example:
            >>> import pandas as pd
            >>> frame = pd.DataFrame({"customer": ["b", "a", "b"], "sku": [90, 90, 17]})
            >>> mine = Interactions.from_frame(frame, user="customer", item="sku")
            >>> mine.user_ids.tolist(), mine.user_vocabulary.tolist()
            ([1, 0, 1], ['a', 'b'])
        """
        from recsys_lib.data.frames import interactions_from_frame

        return interactions_from_frame(
            frame,
            user=user,
            item=item,
            rating=rating,
            time=time,
            item_name=item_name,
            item_text=item_text,
            name=name,
        )

    def to_frame(self) -> pd.DataFrame:
        """Give the rows as a data frame with the original ids where they are known.

        Example:
            >>> Interactions(user_ids=[0, 1], item_ids=[1, 0], ratings=[4, 2]).to_frame().shape
            (2, 3)
        """
        from recsys_lib.data.frames import interactions_to_frame

        return interactions_to_frame(self)

    def to_csr(
        self, values: Literal["binary", "ratings", "count"] = "binary"
    ) -> scipy.sparse.csr_matrix:
        """Give the (num_users, num_items) sparse matrix of float32.

        Args:
            values: what a cell holds: 1 ("binary"), the rating of the last row of the pair
                ("ratings"), or the number of rows ("count").

        Raises:
            ValueError: ratings are asked for and there are none, or ``values`` is unknown.
        """
        import scipy.sparse

        if values not in ("binary", "ratings", "count"):
            raise ValueError(f"values is {values!r}: expected 'binary', 'ratings' or 'count'")
        if values == "ratings" and self.ratings is None:
            raise ValueError("values is 'ratings', but these interactions have no ratings")
        shape = (self.num_users, self.num_items)
        rows = self if values == "count" else self.take(_last_of_each_pair(self))
        data = rows.ratings if values == "ratings" else np.ones(len(rows), np.float32)
        # coo -> csr adds repeated pairs up, which is the count.
        return scipy.sparse.coo_matrix((data, (rows.user_ids, rows.item_ids)), shape).tocsr()

    def take(self, rows: ArrayLike) -> Interactions:
        """Keep some rows, with the same users, items and vocabularies.

        Args:
            rows: row numbers, or a boolean mask of (n,).

        Raises:
            IndexError: a row number is out of range or the mask has the wrong length.
            ValueError: nothing is left.

        Example:
            >>> data = Interactions(user_ids=[0, 1, 1], item_ids=[0, 0, 1])
            >>> data.take([2])
            Interactions(1 rows, 2 users, 2 items)
        """
        index = np.asarray(rows)
        if index.size == 0 or (index.dtype == bool and not index.any()):
            raise ValueError("rows is empty: expected at least one row to keep")
        return replace(
            self,
            user_ids=self.user_ids[index],
            item_ids=self.item_ids[index],
            ratings=None if self.ratings is None else self.ratings[index],
            timestamps=None if self.timestamps is None else self.timestamps[index],
        )

    def items_by_user(self) -> list[NDArray[np.int64]]:
        """List each user's item ids, in row order; an empty array for a user without rows.

        Example:
            >>> [list(map(int, ids)) for ids in Interactions([1, 0, 1], [2, 0, 1]).items_by_user()]
            [[0], [2, 1]]
        """
        order = np.argsort(self.user_ids, kind="stable")
        ends = np.cumsum(np.bincount(self.user_ids, minlength=self.num_users))
        return np.split(self.item_ids[order], ends[:-1])

    def split_leave_one_out(self, seed: int = 0) -> tuple[Interactions, Interactions]:
        """Hold out each user's last item; see :func:`recsys_lib.data.splits.leave_one_out`."""
        from recsys_lib.data.splits import leave_one_out

        return leave_one_out(self, seed=seed)

    def split_random(
        self, test_fraction: float = 0.2, seed: int = 0
    ) -> tuple[Interactions, Interactions]:
        """Hold out random rows; see :func:`recsys_lib.data.splits.random_split`."""
        from recsys_lib.data.splits import random_split

        return random_split(self, test_fraction=test_fraction, seed=seed)

    def split_by_time(self, test_fraction: float = 0.2) -> tuple[Interactions, Interactions]:
        """Hold out the newest rows; see :func:`recsys_lib.data.splits.by_time`."""
        from recsys_lib.data.splits import by_time

        return by_time(self, test_fraction=test_fraction)

    def split_stratified(
        self, test_fraction: float = 0.25, seed: int = 0
    ) -> tuple[Interactions, Interactions]:
        """Hold out a share of each user's rows; see :func:`recsys_lib.data.splits.stratified`."""
        from recsys_lib.data.splits import stratified

        return stratified(self, test_fraction=test_fraction, seed=seed)

    def split_folds(
        self, num_folds: int = 5, seed: int = 0
    ) -> Iterator[tuple[Interactions, Interactions]]:
        """Cross-validate; see :func:`recsys_lib.data.splits.folds`."""
        from recsys_lib.data.splits import folds

        return folds(self, num_folds=num_folds, seed=seed)


def _ids(name: str, values: ArrayLike | Sequence[int]) -> NDArray[np.int64]:
    array = np.array(values)
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: expected one dimension, (n,)")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} is of type {array.dtype}: expected integers "
            "(Interactions.from_frame maps any other ids to integers)"
        )
    return array.astype(np.int64)


def _ratings(values: ArrayLike) -> NDArray[np.float32]:
    array = np.array(values)
    if array.ndim != 1:
        raise ValueError(f"ratings has shape {array.shape}: expected one dimension, (n,)")
    if array.dtype.kind not in "iufb":
        raise TypeError(f"ratings is of type {array.dtype}: expected numbers")
    array = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"ratings[{bad[0]}] is {array[bad[0]]}: expected finite numbers")
    return array


def _count(name: str, given: int, ids: NDArray[np.int64]) -> int:
    singular = {"num_users": "user_ids", "num_items": "item_ids"}[name]
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise TypeError(f"{name} is {given!r}: expected an integer")
    count = int(given) or int(ids.max()) + 1
    check_range(singular, ids, count)
    return count


def _last_of_each_pair(data: Interactions) -> NDArray[np.int64]:
    """Row numbers, in order, of the last row of each (user, item) pair."""
    pairs = data.user_ids * data.num_items + data.item_ids
    _, first_of_reversed = np.unique(pairs[::-1], return_index=True)
    return np.sort(len(pairs) - 1 - first_of_reversed)
