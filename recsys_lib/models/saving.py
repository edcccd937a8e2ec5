"""Saving and loading, for every class of model."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from numpy.typing import NDArray

from recsys_lib.checks import check_shape
from recsys_lib.files import read_file, write_file

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
        if cls.__module__.startswith("recsys_lib."):  # a class of the user's never takes a name
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
        """Write the model to one file of arrays and settings: whole, or not at all.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            RuntimeError: the model is not fitted.
            FileNotFoundError: the folder does not exist.
        """
        num_users, num_items = self._counts()
        config, arrays = self._state()
        settings = {"num_users": num_users, "num_items": num_items, "config": config}
        settings["module"] = type(self).__module__
        write_file(path, type(self).__name__, settings, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a model that was written by :meth:`save`; no code is run from the file.

        A class of one's own opens its own files only, and :func:`load_model` none of them.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, foreign, of a newer format or of another class.
        """
        kind, settings, arrays = read_file(path)
        known = _class_of(kind, str(settings.get("module")), cls)
        if known is None or not issubclass(known, cls):
            raise ValueError(
                f"{path} holds a model of class {kind} of {settings.get('module')}: expected "
                f"{cls.__name__} (recsys_lib.models.load_model opens any of the library)"
            )
        try:
            model = known._from_state(dict(settings["config"]), arrays)
            model.num_users, model.num_items = settings["num_users"], settings["num_items"]
            for attribute, shape in model._expected_shapes().items():
                check_shape(attribute, getattr(model, attribute), shape)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as {kind}: {error}") from error
        return model

    def _counts(self) -> tuple[int, int]:
        if self.num_users is None or self.num_items is None:
            raise RuntimeError(
                f"{type(self).__name__} is not fitted: expected fit(interactions) before"
            )
        return self.num_users, self.num_items


def _class_of(kind: str, module: str, asked: type[Saveable]) -> type[Saveable] | None:
    """Return the library's class of that name, or ``asked`` where the file is one of its own."""
    if (kind, module) == (asked.__name__, asked.__module__):
        return asked
    if module.startswith("recsys_lib."):
        importlib.import_module(".".join(module.split(".")[:2]))
        return Saveable._registry.get(kind)
    return None


def load_model(path: str | os.PathLike[str]) -> Recommender:
    """Read a model of any class of the library from a file written by :meth:`Saveable.save`.

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
    return cast("Recommender", Saveable.load(path))
