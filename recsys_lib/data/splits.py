"""Ways to hold out: rows by time, at random, per user or in folds; whole items; negatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_counts, check_ids, check_number

if TYPE_CHECKING:
    from recsys_lib.data.interactions import Interactions

    Halves = tuple[Interactions, Interactions]  # train and test


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A data set with its test part, and what its protocol adds.

    Args:
        train: what a model may see.
        test: what it is judged by.
        negatives: (len(test), m) item ids to rank row ``n`` of ``test`` against, or None.
        validation: held-out rows to choose settings by, or None.
        name: name of the data set.
        repeats: True where people come back for the same items: then items of the training part
            are ranked as well, and count as found.

    Attributes:
        num_users, num_items: numbers of users and items of all parts.
        is_synthetic: True when the rows come from the generator and not from people.

    Raises:
        ValueError: the parts differ in counts, vocabularies or units of time, or negatives do not
            fit the test rows.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> train, test = Interactions([0, 0, 1], [0, 1, 2]).split_leave_one_out()
        >>> Split(train, test, negatives=[[2]]).negatives.shape
        (1, 1)
    """

    train: Interactions
    test: Interactions
    negatives: NDArray[np.int64] | None = None
    validation: Interactions | None = None
    name: str = "split"
    repeats: bool = False

    def __post_init__(self) -> None:
        check_parts(train=self.train, test=self.test, validation=self.validation)
        if self.negatives is not None:
            shape = np.shape(self.negatives)
            if len(shape) != 2 or shape[0] != len(self.test):
                expected = f"({len(self.test)}, m), one row per test row"
                raise ValueError(f"negatives has shape {shape}: expected {expected}")
            ids = check_ids("negatives", np.ravel(self.negatives), self.num_items).reshape(shape)
            ids.flags.writeable = False
            object.__setattr__(self, "negatives", ids)

    def __repr__(self) -> str:
        validation = "" if self.validation is None else f", {len(self.validation):,} for validation"
        negatives = "" if self.negatives is None else f", {self.negatives.shape[1]} negatives each"
        return (
            f"Split({self.name!r}, {len(self.train):,} rows for training{validation}, "
            f"{len(self.test):,} for testing{negatives}, {self.num_users:,} users, "
            f"{self.num_items:,} items)"
        )

    def all_rows(self) -> Interactions:
        """Return the rows of all parts in one: training, validation, test."""
        parts = [part for part in (self.train, self.validation, self.test) if part is not None]

        def column(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if any(v is None for v in values) else np.concatenate(values)

        names = ("user_ids", "item_ids", "ratings", "timestamps")
        return replace(self.train, **{name: column(name) for name in names})

    is_synthetic = property(lambda self: self.train.is_synthetic)
    num_users = property(lambda self: self.train.num_users)
    num_items = property(lambda self: self.train.num_items)


def check_parts(**parts: Interactions | None) -> None:
    """Raise ValueError unless the parts have the same users, items and unit of time."""
    known = [(name, part) for name, part in parts.items() if part is not None]
    for (first, one), (name, other) in combinations(known, 2):
        check_counts(name, other, (one.num_users, one.num_items))
        for ids in ("user_vocabulary", "item_vocabulary"):
            own, its = getattr(one, ids), getattr(other, ids)
            if own is not None and its is not None and not np.array_equal(own, its):
                same = f"the same: from_frame(..., vocabulary={first})"
                raise ValueError(f"{ids} of {name} is not that of {first}: expected {same}")
        units = one.time_unit, other.time_unit
        if len(set(units) - {None, "unknown"}) > 1:
            raise ValueError(f"time_unit of {first} is {units[0]!r}, of {name} {units[1]!r}")


def leave_one_out(data: Interactions, seed: int = 0) -> Halves:
    """Hold out the last item of every user who has at least two different ones.

    "Last" is by timestamp, ties by row order. Without timestamps the held-out item is drawn at
    random with ``seed``. Where the held-out (user, item) pair occurs more than once, its last row
    is tested and the others are dropped, so that the answer is never in the training part.

    Args:
        data: the interactions.
        seed: used only when there are no timestamps.

    Returns:
        ``(train, test)``; ``test`` has one row per such user.

    Raises:
        ValueError: no user has two different items.

    Source:
        He et al., *Neural Collaborative Filtering*, WWW 2017, section 4.1.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 1, 2], timestamps=[5, 4, 1, 2])
        >>> train, test = leave_one_out(data)
        >>> test.item_ids.tolist(), train.item_ids.tolist()
        ([0, 2], [1, 1])
    """
    if data.timestamps is None:
        age: NDArray[Any] = np.random.default_rng(seed).permutation(len(data))
    else:
        age = data.timestamps
    order = np.lexsort((np.arange(len(data)), age, data.user_ids))
    is_last = np.diff(data.user_ids[order], append=-1) != 0
    last = order[is_last]
    held_out = np.full(data.num_users, -1)
    held_out[data.user_ids[last]] = data.item_ids[last]
    same_pair = held_out[data.user_ids] == data.item_ids
    others = np.bincount(data.user_ids[~same_pair], minlength=data.num_users)
    test = np.sort(last[others[data.user_ids[last]] > 0])
    if len(test) == 0:
        raise ValueError("data has no user with two different items: expected at least one")
    tested = np.zeros(data.num_users, bool)
    tested[data.user_ids[test]] = True
    return data.take(~(same_pair & tested[data.user_ids])), data.take(test)


def random_split(data: Interactions, test_fraction: float = 0.2, seed: int = 0) -> Halves:
    """Hold out random rows.

    Args:
        data: the interactions.
        test_fraction: share of the rows to hold out, in (0, 1); rounded to whole rows.
        seed: of the draw.

    Raises:
        ValueError: the fraction is out of range, or leaves one part empty.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> train, test = random_split(Interactions([0] * 10, list(range(10))), 0.3)
        >>> len(train), len(test)
        (7, 3)
    """
    _check_fraction(test_fraction)
    num_test = round(len(data) * test_fraction)
    if num_test in (0, len(data)):
        raise ValueError(f"test_fraction is {test_fraction}: of the rows, it leaves a part empty")
    rows = np.random.default_rng(seed).permutation(len(data))
    return data.take(np.sort(rows[num_test:])), data.take(np.sort(rows[:num_test]))


def by_time(data: Interactions, test_fraction: float = 0.2) -> Halves:
    """Cut the record at one moment: train on what was before, test on the rest.

    This is the only split here in which no row of any user in training is newer than a test row.

    Args:
        data: interactions with timestamps.
        test_fraction: share of the rows to hold out, in (0, 1); rows of the same moment stay
            together, in the test part, so it may come out larger.

    Raises:
        ValueError: the fraction is out of range, there are no timestamps, or a part is empty.

    Source:
        Ji et al., *A Critical Study on Data Leakage in Recommender System Offline Evaluation*,
        ACM TOIS 2023.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 1, 2], timestamps=[5, 4, 1, 2])
        >>> train, test = by_time(data, 0.5)
        >>> train.timestamps.tolist(), test.timestamps.tolist()
        ([1, 2], [5, 4])
    """
    _check_fraction(test_fraction)
    if data.timestamps is None:
        raise ValueError("data has no timestamps: expected some to cut at")
    num_test = max(1, round(len(data) * test_fraction))
    held_out = data.timestamps >= np.sort(data.timestamps)[-num_test]
    if held_out.all():
        raise ValueError(f"test_fraction is {test_fraction}: by time, it leaves no row to train")
    return data.take(~held_out), data.take(held_out)


def stratified(data: Interactions, test_fraction: float = 0.25, seed: int = 0) -> Halves:
    """Hold out the same share of each user's rows, at random.

    A user keeps at least one row for training; with ``m`` rows, ``floor(m * test_fraction + 1/2)``
    are held out.

    Args:
        data: the interactions.
        test_fraction: share of each user's rows to hold out, in (0, 1).
        seed: of the draw.

    Raises:
        ValueError: the fraction is out of range, or no user has enough rows.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> train, test = stratified(Interactions([0] * 4 + [1] * 8, list(range(12))))
        >>> test.user_ids.tolist()
        [0, 1, 1]
    """
    _check_fraction(test_fraction)
    shuffle = np.random.default_rng(seed).permutation(len(data))
    order = shuffle[np.argsort(data.user_ids[shuffle], kind="stable")]
    counts = np.bincount(data.user_ids, minlength=data.num_users)
    start = np.cumsum(counts) - counts
    position = np.empty(len(data), np.int64)  # in a random order of the rows of its user
    position[order] = np.arange(len(data)) - start[data.user_ids[order]]
    count = counts[data.user_ids]
    num_test = np.minimum(np.floor(count * test_fraction + 0.5), count - 1)
    mask = position < num_test
    if not mask.any():
        raise ValueError(f"test_fraction is {test_fraction}: no user has rows enough for it")
    return data.take(~mask), data.take(mask)


def folds(data: Interactions, num_folds: int = 5, seed: int = 0) -> Iterator[Halves]:
    """Return ``num_folds`` pairs (train, test); each row is in exactly one test part.

    Args:
        data: the interactions.
        num_folds: from 2 to the number of rows.
        seed: of the shuffle before the rows are cut into folds.

    Raises:
        ValueError: ``num_folds`` is out of range.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> data = Interactions([0] * 5, list(range(5)))
        >>> [len(test) for _, test in folds(data, num_folds=5)]
        [1, 1, 1, 1, 1]
    """
    num_folds = check_number("num_folds", num_folds, 2, len(data), integer=True)
    fold = np.random.default_rng(seed).permutation(len(data)) % num_folds
    return ((data.take(fold != number), data.take(fold == number)) for number in range(num_folds))


def sample_negatives(
    train: Interactions, test: Interactions, num_negatives: int = 99, seed: int = 0
) -> NDArray[np.int64]:
    """Return, for each test row, different items that its user has in neither part.

    Args:
        train: interactions that are no negatives.
        test: the rows to draw for; no negatives either.
        num_negatives: how many per row, 1 or more.
        seed: of the uniform draw.

    Returns:
        (len(test), num_negatives) item ids, for :class:`recsys_lib.data.Split`.

    Raises:
        ValueError: a user has fewer unseen items than that, or the parts are not of one data set.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> train, test = Interactions([0, 0, 1], [0, 1, 3]).split_leave_one_out()
        >>> sorted(sample_negatives(train, test, num_negatives=2)[0].tolist())
        [2, 3]
    """
    num_negatives = check_number("num_negatives", num_negatives, 1, integer=True)
    check_parts(train=train, test=test)
    known = (train.to_csr() + test.to_csr()).tocsr()
    rng = np.random.default_rng(seed)
    negatives = np.empty((len(test), num_negatives), np.int64)
    for row, user in enumerate(test.user_ids):
        unseen = np.ones(train.num_items, bool)
        unseen[known.indices[known.indptr[user] : known.indptr[user + 1]]] = False
        choice = np.flatnonzero(unseen)
        if len(choice) < num_negatives:
            found = f"user {user} has only {len(choice)} unseen items"
            raise ValueError(f"num_negatives is {num_negatives}: {found}")
        negatives[row] = rng.choice(choice, num_negatives, replace=False)
    return negatives


@dataclass(frozen=True, eq=False)
class ColdItemSplit:
    """Three parts with the same users and without a common item.

    Args:
        train: what a model may learn from.
        validation: items to choose settings with.
        test: items to judge with.

    Attributes:
        name: of the data set.
        is_synthetic: True when the rows come from the generator and not from people.

    In each part items are numbered from 0; names, texts and vocabulary are those of its items.
    """

    train: Interactions
    validation: Interactions
    test: Interactions

    name = property(lambda self: self.train.name)
    is_synthetic = property(lambda self: self.train.is_synthetic)


def split_cold_items(
    interactions: Interactions,
    *,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    min_interactions: int = 5,
    seed: int = 0,
) -> ColdItemSplit:
    """Return parts without a common item: whole items are held out, with all that happened.

    Args:
        interactions: the whole log.
        test_fraction: share of the items, in (0, 1).
        validation_fraction: likewise; together they are below 1.
        min_interactions: items with fewer rows are left out of all parts.
        seed: of the draw.

    Raises:
        ValueError: a fraction out of range, or a part without items.

    Source:
        Schein et al., *Methods and Metrics for Cold-Start Recommendations*, SIGIR 2002.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> log = Interactions(user_ids=[0, 1, 0, 1, 0, 1], item_ids=[0, 0, 1, 1, 2, 2])
        >>> split = split_cold_items(log, test_fraction=0.34, validation_fraction=0.33,
        ...                          min_interactions=2)
        >>> split.train.num_items, split.validation.num_items, split.test.num_items
        (1, 1, 1)
    """
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    for name, value in fractions.items():
        _check_fraction(value, name)
    if (both := test_fraction + validation_fraction) >= 1:
        raise ValueError(f"test_fraction and validation_fraction add up to {both}: expected less")
    counts = np.bincount(interactions.item_ids, minlength=interactions.num_items)
    items = np.random.default_rng(seed).permutation(np.flatnonzero(counts >= min_interactions))
    num_test, num_validation = (round(share * len(items)) for share in fractions.values())
    test, validation, train = np.split(items, [num_test, num_test + num_validation])
    for name, part in (("test", test), ("validation", validation), ("train", train)):
        if not len(part):
            what = f"{len(items)} items have {min_interactions} interactions or more"
            raise ValueError(f"{what}: expected enough for one in {name}")
    return ColdItemSplit(*(_part(interactions, np.sort(p)) for p in (train, validation, test)))


def _check_fraction(value: float, name: str = "test_fraction") -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}: expected a number in (0, 1)")


def _part(whole: Interactions, items: NDArray[np.int64]) -> Interactions:
    """Return the rows of some items, which are numbered anew."""

    def of_items(values: Any) -> Any:
        return None if values is None else [values[item] for item in items]

    part = whole.take(np.isin(whole.item_ids, items))
    return replace(
        part,
        item_ids=np.searchsorted(items, part.item_ids),
        num_items=len(items),
        item_vocabulary=whole.original_ids("item")[items],
        item_names=of_items(whole.item_names),
        item_texts=of_items(whole.item_texts),
    )
