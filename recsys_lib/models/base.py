"""What every recommender of the library has in common: scores, lists, files."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix

from recsys_lib.checks import (
    Floats,
    Ids,
    check_counts,
    check_ids,
    check_k,
    check_pairs,
    check_shape,
    check_type,
)
from recsys_lib.data import Interactions
from recsys_lib.files import FilePath, read_file, reading, write_file
from recsys_lib.models.topk import top_k

# Scores held at once by recommend() and score(): 4 million float32, 16 MB.
_SCORES_PER_BATCH = 1 << 22


class Recommender(ABC):
    """A model that scores user-item pairs; higher is better.

    A subclass has a constructor whose arguments are its settings, and these methods:

    - ``_fit(interactions)``: learn; called with checked interactions.
    - ``_score_users(user_ids)``: (b,) checked ids to (b, num_items) scores.
    - ``_score_pairs(user_ids, item_ids)``: optional, faster than picking from ``_score_users``.
    - ``_score_histories(matrix)``: optional, (b, num_items) sparse 0/1 rows to (b, num_items)
      scores: fold-in.
    - ``_state()`` returns ``(config, arrays)``, settings as JSON can hold them and arrays, which
      ``_from_state(config, arrays)`` takes back; ``num_users`` and ``num_items`` are kept here.

    Attributes:
        num_users: number of users, None before fit.
        num_items: number of items, None before fit.

    Example:
        >>> from recsys_lib.models import Popularity
        >>> model = Popularity().fit(Interactions([0, 0, 1], [0, 1, 1]))
        >>> model.recommend([0, 1], k=2).tolist()
        [[1, 0], [1, 0]]
    """

    num_users: int | None = None
    num_items: int | None = None
    _registry: ClassVar[dict[str, type[Recommender]]] = {}
    _allows_empty_history: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("recsys_lib."):  # a class of the user's never takes a name
            Recommender._registry[cls.__name__] = cls

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]: ...

    @classmethod
    @abstractmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self: ...

    @abstractmethod
    def _fit(self, interactions: Interactions) -> None: ...

    @abstractmethod
    def _score_users(self, user_ids: Ids) -> Floats: ...

    def _score_histories(self, matrix: csr_matrix) -> Floats:
        raise TypeError(f"histories: {type(self).__name__} cannot fold in: expected user_ids")

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        order, scores = np.argsort(user_ids, kind="stable"), np.empty(len(user_ids), np.float32)
        for batch in self._batches(len(order)):
            pairs = order[batch]
            users, row = np.unique(user_ids[pairs], return_inverse=True)
            scores[pairs] = self._score_users(users)[row, item_ids[pairs]]
        return scores

    def fit(self, interactions: Interactions) -> Self:
        """Learn from interactions, from the beginning.

        Args:
            interactions: what to learn from.

        Returns:
            The model itself.

        Raises:
            TypeError: not Interactions.
        """
        check_interactions(interactions)
        self._fit(interactions)
        self.num_users, self.num_items = interactions.num_users, interactions.num_items
        return self

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Floats:
        """Score pairs.

        Args:
            user_ids: (n,) integers in [0, num_users).
            item_ids: (n,) integers in [0, num_items).

        Returns:
            (n,) float32; only their order has a meaning, unless the model says more.

        Raises:
            RuntimeError: the model is not fitted.
            TypeError: ids are not integers.
            ValueError: an unknown id, not one dimension, or lengths differ.
        """
        num_users, num_items = self._counts()
        users, items = check_pairs(user_ids, item_ids, num_users, num_items)
        return np.asarray(self._score_pairs(users, items), np.float32)

    def score_all_items(self, user_ids: ArrayLike) -> Floats:
        """Score every item for each user.

        Args:
            user_ids: (b,) integers in [0, num_users).

        Returns:
            (b, num_items) float32.

        Raises:
            RuntimeError: the model is not fitted.
            TypeError: ids are not integers.
            ValueError: an unknown id, or not one dimension.
        """
        users = check_ids("user_ids", user_ids, self._counts()[0])
        return np.asarray(self._score_users(users), np.float32)

    def score_histories(self, histories: Sequence[ArrayLike]) -> Floats:
        """Score every item for users known only by the items they met (fold-in).

        Args:
            histories: b lists of item ids; repeats count once.

        Returns:
            (b, num_items) float32.

        Raises:
            RuntimeError: the model is not fitted.
            TypeError: the model cannot fold in, or ids are not integers.
            ValueError: an unknown item id, or an empty history.
        """
        return np.asarray(self._score_histories(self._history_matrix(histories)), np.float32)

    def recommend(
        self,
        user_ids: ArrayLike | None = None,
        k: int = 10,
        *,
        histories: Sequence[ArrayLike] | None = None,
        exclude: Interactions | Sequence[ArrayLike] | None = None,
    ) -> Ids:
        """Return the k best items of each user, best first, equal scores by lowest item id.

        Users are taken in batches, so that memory does not grow with their number. Items that a
        user has met are *not* left out by themselves: pass the training data as ``exclude``.

        Args:
            user_ids: (b,) integers in [0, num_users); or use ``histories``.
            k: how many.
            histories: b lists of item ids, for users known only by these; their own items are
                never recommended.
            exclude: pairs never to recommend: Interactions, or b lists of item ids.

        Returns:
            (b, k) int64 item ids, filled up with -1 where fewer items are left.

        Raises:
            RuntimeError: the model is not fitted.
            TypeError: ids or k are not integers, or the model cannot fold in.
            ValueError: both or none of user_ids and histories, an unknown id, k below 1, an empty
                history, or exclude does not fit.

        Example:
            >>> from recsys_lib.models import EASE
            >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 2])
            >>> model = EASE(l2=1.0).fit(data)
            >>> model.recommend([0], k=2, exclude=data).tolist()
            [[2, -1]]
            >>> model.recommend(histories=[[0]], k=1).tolist()
            [[1]]
        """
        k, shape = check_k(k), self._counts()
        if (histories is None) == (user_ids is None):
            raise ValueError("user_ids, histories: expected exactly one of them")
        if histories is not None:
            met = self._history_matrix(histories)
            banned = exclusion_matrix(exclude, None, met.shape[0], shape) + met
            return self._top_k(k, banned, lambda batch: self._score_histories(met[batch]))
        users = check_ids("user_ids", user_ids, shape[0])
        banned = exclusion_matrix(exclude, users, len(users), shape)
        return self._top_k(k, banned, lambda batch: self._score_users(users[batch]))

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape that each array attribute must have; checked after loading."""
        return {}

    def save(self, path: FilePath) -> None:
        """Write the model to one file of arrays and settings: whole, or not at all.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            RuntimeError: the model is not fitted.
            FileNotFoundError: the folder does not exist.
        """
        counts = dict(zip(("num_users", "num_items"), self._counts(), strict=True))
        config, arrays = self._state()
        settings = counts | {"config": config, "module": type(self).__module__}
        write_file(path, type(self).__name__, settings, arrays)

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Read a model that was written by :meth:`save`; no code is run from the file.

        A class of one's own opens its own files only, and :func:`load_model` none of them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, foreign, of a newer format or of another class.
        """
        kind, settings, arrays = read_file(path)
        known = _class_of(kind, str(settings.get("module")), cls)
        if known is None or not issubclass(known, cls):
            what = f"a model of class {kind} of {settings.get('module')}"
            raise ValueError(f"{path} holds {what}: expected {cls.__name__}; see load_model")
        with reading(path, kind):
            model = known._from_state(dict(settings["config"]), arrays)
            model.num_users, model.num_items = settings["num_users"], settings["num_items"]
            for attribute, shape in model._expected_shapes().items():
                check_shape(attribute, getattr(model, attribute), shape)
        return model

    def _counts(self) -> tuple[int, int]:
        if self.num_users is None or self.num_items is None:
            raise RuntimeError(f"{type(self).__name__} is not fitted: expected fit() before")
        return self.num_users, self.num_items

    def _history_matrix(self, histories: Sequence[ArrayLike]) -> csr_matrix:
        may_be_empty = self._allows_empty_history
        return item_lists_to_csr("histories", histories, self._counts()[1], may_be_empty)

    def _batches(self, num_rows: int) -> list[slice]:
        size = max(1, _SCORES_PER_BATCH // self._counts()[1])
        return [slice(start, start + size) for start in range(0, num_rows, size)]

    def _top_k(self, k: int, banned: csr_matrix, score: Callable[[slice], Floats]) -> Ids:
        result = np.full((banned.shape[0], k), -1, np.int64)
        for batch in self._batches(banned.shape[0]):
            scores = np.array(score(batch), np.float32)  # a copy, to write into
            scores[banned[batch].nonzero()] = -np.inf
            result[batch] = top_k(scores, k)
        return result


def load_model(path: FilePath) -> Recommender:
    """Read a model of any class of the library from a file written by :meth:`Recommender.save`.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, foreign, of a newer format, or of a class of one's own
            (its ``load`` opens it).

    Example:
        >>> import tempfile
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import Popularity
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Popularity().fit(Interactions([0, 1], [1, 1])).save(f"{folder}/model")
        ...     load_model(f"{folder}/model").score([0, 0], [0, 1]).tolist()
        [0.0, 2.0]
    """
    return Recommender.load(path)


def _class_of(kind: str, module: str, asked: type[Recommender]) -> type[Recommender] | None:
    """Return the library's class of that name, or ``asked`` where the file is one of its own."""
    if (kind, module) == (asked.__name__, asked.__module__):
        return asked
    if module.startswith("recsys_lib."):
        importlib.import_module(".".join(module.split(".")[:2]))
        return Recommender._registry.get(kind)
    return None


def check_interactions(interactions: Interactions) -> None:
    """Raise unless it is an :class:`recsys_lib.data.Interactions`."""
    hint = " (split.train, or Interactions.from_frame for a data frame)"
    check_type("interactions", interactions, (Interactions,), hint)


def item_lists(name: str, lists: Any, num_items: int, may_be_empty: bool) -> list[Ids]:
    """Return checked lists of item ids, each sorted and without repeats.

    Raises:
        TypeError: not a list of lists of integers.
        ValueError: an unknown item id, or an empty list where that is not allowed.

    Example:
        >>> [ids.tolist() for ids in item_lists("histories", [[2], [2, 0, 2]], 3, False)]
        [[2], [0, 2]]
    """
    if isinstance(lists, str | bytes | Interactions) or not hasattr(lists, "__len__"):
        raise TypeError(f"{name} is of type {type(lists).__name__}: expected lists of item ids")
    rows = [np.unique(check_ids(f"{name}[{n}]", x, num_items)) for n, x in enumerate(lists)]
    if not may_be_empty and not all(map(len, rows)):
        empty = next(n for n, row in enumerate(rows) if not len(row))
        raise ValueError(f"{name}[{empty}] is empty: expected an item id")
    return rows


def item_lists_to_csr(name: str, lists: Any, num_items: int, may_be_empty: bool) -> csr_matrix:
    """Return lists of item ids as a (len(lists), num_items) sparse matrix of 0 and 1, float32.

    Example:
        >>> item_lists_to_csr("histories", [[2], [0, 2]], 3, False).toarray().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]
    """
    rows = item_lists(name, lists, num_items, may_be_empty)
    items = np.concatenate([np.empty(0, np.int64), *rows])
    starts, ones = np.cumsum([0, *map(len, rows)]), np.ones(len(items), np.float32)
    return csr_matrix((ones, items, starts), (len(rows), num_items))


def exclusion_matrix(
    exclude: Any, user_ids: Ids | None, num_rows: int, shape: tuple[int, int]
) -> csr_matrix:
    """Return the (num_rows, num_items) sparse matrix of what must not be recommended.

    Args:
        exclude: as in :meth:`recsys_lib.models.Recommender.recommend`.
        user_ids: (num_rows,) users, or None when users are known by their histories.
        num_rows: how many rows are asked for.
        shape: (num_users, num_items) of the model.
    """
    if exclude is None:
        return csr_matrix((num_rows, shape[1]), dtype=np.float32)
    if not isinstance(exclude, Interactions):
        matrix = item_lists_to_csr("exclude", exclude, shape[1], True)
        check_shape("exclude", matrix, (num_rows, shape[1]))
        return matrix
    if user_ids is None:
        raise ValueError("exclude is Interactions: expected a list of item ids for each history")
    check_counts("exclude", exclude, shape)
    rows = np.isin(exclude.user_ids, user_ids)
    pairs = exclude.user_ids[rows], exclude.item_ids[rows]
    return coo_matrix((np.ones(len(pairs[0]), np.float32), pairs), shape).tocsr()[user_ids]
