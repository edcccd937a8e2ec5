"""What all substitutes for an embedding table have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_weights
from recsys_lib.compression.tensors import EncodedTensor

Parts = dict[str, NDArray[Any]]


class TableScheme(ABC):
    """How a table (rows, d) is made up of smaller parts: a frozen config and three functions.

    The same ``lookup`` runs in NumPy and inside a Keras layer, because it uses only functions that
    both have under the same names.
    """

    name: ClassVar[str]
    _names: ClassVar[dict[str, type[TableScheme]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        TableScheme._names[cls.name] = cls

    @abstractmethod
    def start(
        self,
        num_rows: int,
        dim: int,
        *,
        std: float = 0.1,
        seed: int = 0,
        counts: NDArray[np.number] | None = None,
    ) -> tuple[Parts, Parts]:
        """Draw parts to train from, whose rows have a standard deviation of about ``std``.

        Args:
            num_rows: of the table.
            dim: d, columns of the table.
            std: of the numbers of a row.
            seed: of the draw.
            counts: (num_rows,) how often each id occurs, where the scheme looks at it.

        Returns:
            ``(trained, fixed)``: float32 parts that train, and integers that do not.

        Raises:
            ValueError: the scheme does not fit the table.
        """

    @abstractmethod
    def approximate(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> tuple[Parts, Parts]:
        """Find the parts that come nearest to a trained table, as :meth:`start` gives them."""

    @abstractmethod
    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Give rows (n, d) for ids (n,); ``xp`` is ``numpy`` or ``keras.ops``."""

    def encode(
        self, table: NDArray[np.float32], counts: NDArray[np.number] | None = None
    ) -> EncodedTensor:
        """Return the stored form of what comes nearest to a trained table."""
        trained, fixed = self.approximate(table, counts)
        return self.store(trained | fixed, len(table))

    def store(self, parts: Parts, num_rows: int, dtype: str = "float16") -> EncodedTensor:
        """Give the stored form of all parts, trained ones in ``dtype``."""
        stored = {
            name: part.astype(dtype if part.dtype.kind == "f" else part.dtype)
            for name, part in parts.items()
        }
        return TableTensor(self, stored, num_rows)

    def to_dict(self) -> dict[str, Any]:
        """Give the settings with the name of the scheme, for JSON."""
        return {"scheme": self.name, **vars(self)}

    @staticmethod
    def from_dict(settings: dict[str, Any]) -> TableScheme:
        """Make a scheme again from :meth:`to_dict`."""
        known = TableScheme._names
        options = {name: value for name, value in settings.items() if name != "scheme"}
        return known[check_choice("scheme", settings["scheme"], known)](**options)


class TableTensor(EncodedTensor):
    """A table, stored as the parts of a scheme.

    Args:
        scheme: how rows are made from the parts.
        parts: in the types in which they are stored.
        num_rows: of the table.

    Raises:
        ValueError: NaN or infinity in a part.
    """

    kind = "table"

    def __init__(self, scheme: TableScheme, parts: Parts, num_rows: int) -> None:
        for name, part in parts.items():
            if part.dtype.kind == "f":
                check_weights(name, part)
        self.scheme, self.parts = scheme, dict(parts)
        self._num_rows = num_rows
        self.shape = self.decode().shape

    def header(self) -> dict[str, Any]:
        """Give the scheme's settings and the shape."""
        return {**self.scheme.to_dict(), "shape": list(self.shape)}

    def arrays(self) -> Parts:
        """Give the parts."""
        return self.parts

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: Parts) -> Self:
        """Put header and arrays together again."""
        settings = {name: value for name, value in header.items() if name != "shape"}
        return cls(TableScheme.from_dict(settings), arrays, header["shape"][0])

    def decode(self) -> NDArray[np.float32]:
        """Look all ids up."""
        floats = {
            name: part.astype(np.float32) if part.dtype.kind == "f" else part
            for name, part in self.parts.items()
        }
        return self.scheme.lookup(np, floats, np.arange(self._num_rows)).astype(np.float32)


def check_table(num_rows: int, dim: int) -> None:
    """Raise unless a table has rows and columns.

    Example:
        >>> check_table(3, 0)
        Traceback (most recent call last):
        ValueError: dim is 0: expected an integer of at least 1
    """
    check_number("num_rows", num_rows, 1, integer=True)
    check_number("dim", dim, 1, integer=True)


def check_counts(
    counts: NDArray[np.number] | None, num_rows: int, scheme: str
) -> NDArray[np.float64]:
    """Give how often each id occurs, as numbers.

    Raises:
        ValueError: None, another length, or a negative number.

    Example:
        >>> check_counts(None, 3, "mixed dimension")
        Traceback (most recent call last):
        ValueError: counts is None: mixed dimension needs how often each of the 3 ids occurs
    """
    if counts is None:
        raise ValueError(
            f"counts is None: {scheme} needs how often each of the {num_rows} ids occurs"
        )
    values = np.asarray(counts, np.float64)
    if values.shape != (num_rows,) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            f"counts has shape {values.shape}: expected ({num_rows},), finite, none negative"
        )
    return values


def normal(random: np.random.Generator, std: float, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw float32 normal numbers with mean 0.

    Example:
        >>> normal(np.random.default_rng(0), 0.1, (2, 3)).shape
        (2, 3)
    """
    return random.normal(0.0, std, shape).astype(np.float32)
