"""The one data type of the library: who met which item, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix

from recsys_lib.checks import as_array, check_choice, check_number, check_range, exact_numbers
from recsys_lib.data import frames, splits
from recsys_lib.data.ids import map_rows


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """Interactions between users and items, one per row, checked on creation.

    Ids are dense: users are ``0 .. num_users - 1`` and items ``0 .. num_items - 1``. Use
    :meth:`from_frame` for data with any other ids. Arrays are copied and made read-only.

    Args:
        user_ids: (n,) integers in ``[0, num_users)``.
        item_ids: (n,) integers in ``[0, num_items)``.
        ratings: (n,) finite numbers (stars, play counts, quantities), or None for plain events.
        timestamps: (n,) finite numbers, or None. Whole ones are kept as int64, others as float64.
        num_users: number of users; default ``max(user_ids) + 1``.
        num_items: number of items in the catalogue; default ``max(item_ids) + 1``.
        user_vocabulary: (num_users,) original ids; position = dense id.
        item_vocabulary: (num_items,) original ids; position = dense id.
        item_names: one short name per item.
        item_texts: one longer text per item (title and genres, description, tags).
        time_unit: of the timestamps since 1970-01-01 UTC: "s", "ms", "us" or "ns"; "unknown" for
            numbers of which only the order counts. None reads it off their size: they tell it if
            they all lie between 1995 and 2096.
        name: name of the data set, for messages and captions.
        is_synthetic: True when the rows come from the generator and not from people.

    Raises:
        TypeError: ids are not integers, or ratings or timestamps are no numbers.
        ValueError: no rows, lengths differ, an id is out of range, a number is not finite, or
            timestamps are of two units.

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
    timestamps: NDArray[np.int64] | NDArray[np.float64] | None = None
    num_users: int = 0
    num_items: int = 0
    user_vocabulary: NDArray[Any] | None = None
    item_vocabulary: NDArray[Any] | None = None
    item_names: tuple[str, ...] | None = None
    item_texts: tuple[str, ...] | None = None
    time_unit: str | None = field(default=None, kw_only=True)
    name: str = field(default="interactions", kw_only=True)
    is_synthetic: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {
            "user_ids": _column("user_ids", self.user_ids, "iu"),
            "item_ids": _column("item_ids", self.item_ids, "iu"),
        }
        num_rows = len(columns["user_ids"])
        if num_rows == 0:
            raise ValueError("user_ids is empty: expected at least one interaction")
        if self.ratings is not None:
            with np.errstate(over="ignore"):
                columns["ratings"] = _column("ratings", self.ratings, "iuf").astype(np.float32)
            if not np.isfinite(columns["ratings"]).all():
                bad = int(np.flatnonzero(~np.isfinite(columns["ratings"]))[0])
                what = columns["ratings"][bad]
                raise ValueError(f"ratings[{bad}] is {what}: expected finite numbers")
        if self.timestamps is not None:
            columns["timestamps"] = times = _column("timestamps", self.timestamps, "iuf")
            unit = self.time_unit or frames.unit_of("timestamps", times)
            self._set("time_unit", check_choice("time_unit", unit, (*frames.UNITS, "unknown")))
        for name, values in columns.items():
            if len(values) != num_rows:
                raise ValueError(f"{name} has {len(values)} rows: expected {num_rows}, as user_ids")
            self._set(name, values)
        for count, ids in (("num_users", "user_ids"), ("num_items", "item_ids")):
            given = check_number(count, getattr(self, count), 0, integer=True)
            self._set(count, given or int(columns[ids].max()) + 1)
            check_range(ids, columns[ids], getattr(self, count))
        for name, count in (
            ("user_vocabulary", "num_users"),
            ("item_vocabulary", "num_items"),
            ("item_names", "num_items"),
            ("item_texts", "num_items"),
        ):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != getattr(self, count):
                expected = f"one entry per id, {count} is {getattr(self, count)}"
                raise ValueError(f"{name} has {len(values)} entries: expected {expected}")
            is_vocabulary = name.endswith("vocabulary")
            self._set(name, np.array(values) if is_vocabulary else tuple(map(str, values)))

    def _set(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.user_ids)

    @property
    def density(self) -> float:
        """Return the fraction of all user-item pairs that occur, in (0, 1]."""
        return len(_last_of_each_pair(self)) / (self.num_users * self.num_items)

    def original_ids(self, side: str) -> NDArray[Any]:
        """Return the vocabulary of users or of items; without one, the dense ids themselves."""
        known = getattr(self, f"{side}_vocabulary")
        return np.arange(getattr(self, f"num_{side}s")) if known is None else known

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
        frame: Any,
        *,
        user: str,
        item: str,
        rating: str | None = None,
        time: str | None = None,
        time_unit: str | None = None,
        time_format: str | None = None,
        item_name: str | None = None,
        item_text: str | None = None,
        vocabulary: Interactions | None = None,
        unknown: Literal["error", "drop", "new"] = "error",
        name: str = "interactions",
    ) -> Interactions:
        """Read a data frame with any ids; keep the original ones as vocabularies.

        Dense ids follow the sorted order of the original ones, or are those of ``vocabulary``.
        Every row is kept, repeats too, unless ``unknown="drop"`` says otherwise.

        Args:
            frame: one interaction per row: of pandas, polars or Arrow, or columns by name.
            user: column of user ids, of any hashable, sortable type.
            item: column of item ids.
            rating: column of numbers, or None.
            time: column of dates or numbers, or None. Dates are kept to their last digit: as
                integers of the coarsest unit, from seconds to nanoseconds, that holds them all.
                Numbers stay as they are.
            time_unit: "s", "ms", "us" or "ns": what numbers count since 1970, or dates shall be
                kept in; "unknown" for numbers of which only the order counts. None: by their size,
                see :class:`Interactions`.
            time_format: of dates in text, as of ``strptime``: "%d/%m/%Y". None: ISO 8601, or a form
                that is clear: of "02/03/2024" it is not, unless the day of another row is past 12.
            item_name: column with the item's name; the first one seen is kept.
            item_text: column with a longer text of the item; the first one seen is kept.
            vocabulary: interactions whose users and items these are. Two frames that are read one
                by one number their ids differently: read a test frame with the vocabulary of the
                training part.
            unknown: what to do with ids that are not in the vocabulary: "error"; "drop" leaves
                their rows out, with a warning that counts them; "new" numbers them after the
                others (read the first frame again with the larger vocabulary, for a split).
            name: name of the data set.

        Raises:
            KeyError: a named column is missing.
            TypeError: no frame, or ids of several types or of another type than the vocabulary.
            ValueError: no rows, a missing or unknown id, a name that several columns have, or a
                rating or time that cannot be read exactly.

        Example:
            >>> import pandas as pd
            >>> frame = pd.DataFrame({"customer": ["b", "a", "b"], "sku": [90, 90, 17]})
            >>> mine = Interactions.from_frame(frame, user="customer", item="sku")
            >>> mine.user_ids.tolist(), mine.user_vocabulary.tolist()
            ([1, 0, 1], ['a', 'b'])
            >>> later = {"customer": ["b"], "sku": [17]}
            >>> Interactions.from_frame(later, user="customer", item="sku", vocabulary=mine)
            Interactions(1 rows, 2 users, 2 items)
        """
        check_choice("unknown", unknown, ("error", "drop", "new"))
        ids = {"user": user, "item": item}
        others = {"rating": rating, "time": time, "item_name": item_name, "item_text": item_text}
        frame = frames.read_frame(frame, ids | others)
        before = vocabulary
        known = {} if before is None else {side: before.original_ids(side) for side in ids}
        frame, mapped = map_rows(frame, ids, known, unknown)
        (user_ids, users), (item_ids, items) = mapped["user"], mapped["item"]
        times = None
        if time is not None:
            coarsest = getattr(before, "time_unit", None)
            times, time_unit = frames.times(frame, time, time_unit, time_format, coarsest)

        def text_of(column: str | None, name: str) -> tuple[str, ...] | None:
            return frames.texts(frame, column, item_ids, len(items), getattr(before, name, None))

        return cls(
            user_ids=user_ids,
            item_ids=item_ids,
            ratings=None if rating is None else frames.ratings(frame, rating),
            timestamps=times,
            num_users=len(users),
            num_items=len(items),
            user_vocabulary=users,
            item_vocabulary=items,
            item_names=text_of(item_name, "item_names"),
            item_texts=text_of(item_text, "item_texts"),
            time_unit=time_unit,
            name=name,
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame with the original ids where they are known.

        Times are dates if their unit is known, else the numbers that they are.

        Example:
            >>> Interactions(user_ids=[0, 1], item_ids=[1, 0], ratings=[4, 2]).to_frame().shape
            (2, 3)
        """
        columns: dict[str, Any] = {
            "user": self.original_ids("user")[self.user_ids],
            "item": self.original_ids("item")[self.item_ids],
        }
        if self.ratings is not None:
            columns["rating"] = self.ratings
        if self.timestamps is not None and self.time_unit == "unknown":
            columns["time"] = self.timestamps
        elif self.timestamps is not None:
            columns["time"] = pd.to_datetime(self.timestamps, unit=self.time_unit)
        return pd.DataFrame(columns)

    def to_csr(self, values: Literal["binary", "ratings", "count"] = "binary") -> csr_matrix:
        """Return the (num_users, num_items) sparse matrix of float32.

        Args:
            values: what a cell holds: 1 ("binary"), the rating of the last row of the pair
                ("ratings"), or the number of rows ("count").

        Raises:
            ValueError: ratings are asked for and there are none, or ``values`` is unknown.
        """
        check_choice("values", values, ("binary", "ratings", "count"))
        cells = self.ratings if values == "ratings" else np.ones(len(self), np.float32)
        if cells is None:
            raise ValueError("values is 'ratings', but these interactions have no ratings")
        rows: Any = _last_of_each_pair(self) if values == "ratings" else slice(None)
        pairs = self.user_ids[rows], self.item_ids[rows]
        # coo -> csr adds repeated pairs up, which is the count.
        matrix = coo_matrix((cells[rows], pairs), (self.num_users, self.num_items)).tocsr()
        if values == "binary":
            matrix.data[:] = 1
        return matrix

    def take(self, rows: ArrayLike) -> Interactions:
        """Return some of the rows, with the same users, items and vocabularies.

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
        index = as_array("rows", rows)
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
        """Return each user's item ids, in row order; an empty array for a user without rows.

        Example:
            >>> [list(map(int, ids)) for ids in Interactions([1, 0, 1], [2, 0, 1]).items_by_user()]
            [[0], [2, 1]]
        """
        order = np.argsort(self.user_ids, kind="stable")
        ends = np.cumsum(np.bincount(self.user_ids, minlength=self.num_users))
        return np.split(self.item_ids[order], ends[:-1])

    split_leave_one_out = splits.leave_one_out
    split_random = splits.random_split
    split_by_time = splits.by_time
    split_stratified = splits.stratified
    split_folds = splits.folds


def _column(name: str, values: ArrayLike, kinds: str) -> NDArray[Any]:
    array = as_array(name, values).copy()
    if array.ndim != 1:
        raise ValueError(f"{name} has shape {array.shape}: expected one dimension, (n,)")
    if array.size and array.dtype.kind not in kinds:
        expected = "integers (Interactions.from_frame makes them)" if kinds == "iu" else "numbers"
        raise TypeError(f"{name} is of type {array.dtype}: expected {expected}")
    return array if name == "ratings" else exact_numbers(name, array)


def _last_of_each_pair(data: Interactions) -> NDArray[np.int64]:
    """Row numbers, in order, of the last row of each (user, item) pair."""
    users, items, width = data.user_ids, data.item_ids, data.num_items
    if data.num_users * width >= 2**63:  # the product below would wrap: number what occurs
        users, items = (np.unique(ids, return_inverse=True)[1] for ids in (users, items))
        width = len(data)
    pairs = users * width + items
    _, first_of_reversed = np.unique(pairs[::-1], return_index=True)
    return np.sort(len(pairs) - 1 - first_of_reversed)
