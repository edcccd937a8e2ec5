"""Saving and loading, for every class of model."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from numpy.typing import NDArray

from recsys_lib.models.checks import check_shape
from recsys_lib.models.persistence import read_model_file, write_model_file

if TYPE_CHECKING:
    from recsys_lib.models.base import Recommender


class Saveable(ABC):
    """A fitted model that can be written to a file and read again.

    A subclass gives ``_state()`` and ``_from_state(config, arrays)``: its settings, as JSON can
    hold them, and its arrays, out and in again. ``num_users`` and ``num_items`` are kept here.
    Classes are known by name from the moment they are defined.

    Attributes:
        num_users: number of users, None before fit.
        num_items: number of items, None before fit.

    Example:
        >>> from recsys_lib.models import EASE
        >>> issubclass(EASE, Saveable)
        True
    """

    num_users: int | None = None
    num_items: int | None = None
    _registry: ClassVar[dict[str, type[Saveable]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Saveable._registry[cls.__name__] = cls

    @abstractmethod
    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]: ...

    @classmethod
    @abstractmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self: ...

    def _expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Give the shape that each array attribute must have; checked after loading."""
        return {}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one .npz file of arrays and a JSON header: whole, or not at all.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            RuntimeError: the model is not fitted.
            FileNotFoundError: the folder does not exist.
        """
        num_users, num_items = self._counts()
        config, arrays = self._state()
        header: dict[str, Any] = {"num_users": num_users, "num_items": num_items}
        header |= {"class": type(self).__name__, "module": type(self).__module__, "config": config}
        write_model_file(path, header, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that was written by :meth:`save`; no code is run from the file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, foreign, of a newer format or of another class.
        """
        header, arrays = read_model_file(path)
        name = header.get("class")
        known = Saveable._registry.get(str(name))
        if known is None or inspect.isabstract(known):
            raise ValueError(
                f"{path} holds a model of class {name}, which is not imported: "
                f"expected `import {header.get('module')}` first"
            )
        if not issubclass(known, cls):
            raise ValueError(
                f"{path} holds a model of class {name}: expected {cls.__name__} "
                "(recsys_lib.models.load_model opens any)"
            )
        try:
            model = known._from_state(dict(header["config"]), arrays)
            model.num_users, model.num_items = int(header["num_users"]), int(header["num_items"])
            for attribute, shape in model._expected_shapes().items():
                check_shape(attribute, getattr(model, attribute), shape)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): expected a file of {name}") from error
        return model

    def _counts(self) -> tuple[int, int]:
        if self.num_users is None or self.num_items is None:
            raise RuntimeError(
                f"{type(self).__name__} is not fitted: expected fit(interactions) before"
            )
        return self.num_users, self.num_items


def load_model(path: str | os.PathLike[str]) -> Recommender:
    """Read a model of any imported class from a file written by :meth:`Saveable.save`.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, foreign, of a newer format, or of a class that is not
            imported (the message says which import brings it).

    Example:
        >>> import tempfile
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import Popularity
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Popularity().fit(Interactions([0, 1], [1, 1])).save(f"{folder}/model.npz")
        ...     load_model(f"{folder}/model.npz").score([0, 0], [0, 1]).tolist()
        [0.0, 2.0]
    """
    return cast("Recommender", Saveable.load(path))
