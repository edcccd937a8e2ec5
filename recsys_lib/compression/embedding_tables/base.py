"""What all substitutes for an embedding table have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_weights
from recsys_lib.compression.quantization.uniform import fitting_dtype
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.files import known_settings

# Numbers of a table by name: floating-point parts train, whole numbers do not.
Parts = dict[str, NDArray[Any]]
Counts = NDArray[np.float64] | None
# normal(std, rows, columns): random float32 numbers with mean 0.
Normal = Callable[..., NDArray[np.float32]]


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

    def start(
        self, num_rows: int, dim: int, *, std: float = 0.1, seed: int = 0, counts: Any = None
    ) -> Parts:
        """Return random parts to train from, whose rows have a standard deviation of about ``std``.

        Args:
            num_rows: of the table.
            dim: d, columns of the table.
            std: of the numbers of a row.
            seed: of the draw.
            counts: (num_rows,) how often each id occurs, where the scheme looks at it.

        Raises:
            ValueError: the scheme does not fit the table.
        """
        random = np.random.default_rng(seed)

        def normal(std: float, *shape: int) -> NDArray[np.float32]:
            return random.normal(0.0, std, shape).astype(np.float32)

        return self._start(normal, num_rows, dim, std, _checked(counts, num_rows))

    def approximate(self, table: ArrayLike, counts: ArrayLike | None = None) -> Parts:
        """Return the parts that come nearest to a trained table (rows, d).

        Raises:
            TypeError, ValueError: no finite matrix, or one that the scheme does not fit.
        """
        values = check_weights("table", table, ndim=2)
        return self._approximate(values, _checked(counts, len(values)))

    def encode(self, table: ArrayLike, counts: ArrayLike | None = None) -> EncodedTensor:
        """Return the stored form of what comes nearest to a trained table, in float16.

        Args:
            table: (rows, d) finite numbers.
            counts: (rows,) how often each id occurs. MixedDimension needs them, others weigh the
                error of rows by them.

        Raises:
            TypeError, ValueError: as :meth:`approximate`.

        Example:
            >>> from recsys_lib.compression.embedding_tables import LowRank
            >>> LowRank(1).encode(np.ones((50, 8), np.float32))
            TableTensor(shape (50, 8), 167 bytes)
        """
        return self.store(self.approximate(table, counts), len(np.asarray(table)))

    @abstractmethod
    def _start(self, normal: Normal, rows: int, dim: int, std: float, counts: Counts) -> Parts: ...

    @abstractmethod
    def _approximate(self, table: NDArray[np.float32], counts: Counts) -> Parts: ...

    @abstractmethod
    def lookup(self, xp: Any, parts: Parts, ids: Any) -> Any:
        """Return rows (n, d) for ids (n,); ``xp`` is ``numpy`` or ``keras.ops``."""

    def store(self, parts: Parts, num_rows: int) -> EncodedTensor:
        """Return the stored form of all parts, trained ones in float16."""
        return TableTensor(self, _in_floats(parts, "float16"), num_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with the name of the scheme, for JSON."""
        return {"scheme": self.name, **vars(self)}

    @staticmethod
    def from_dict(settings: dict[str, Any]) -> TableScheme:
        """Make a scheme again from :meth:`to_dict`."""
        known = TableScheme._names
        scheme = known[check_choice("scheme", settings["scheme"], known)]
        options = {name: value for name, value in settings.items() if name != "scheme"}
        return scheme(**known_settings(options, scheme.__annotations__, scheme.__name__))


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
    settings = None

    def __init__(self, scheme: TableScheme, parts: Parts, num_rows: int) -> None:
        for name, part in parts.items():
            if part.dtype.kind == "f":
                check_weights(name, part)
        self.scheme, self.parts, self._num_rows = scheme, dict(parts), num_rows
        self.shape = self.decode().shape

    def header(self) -> dict[str, Any]:
        """Return the scheme's settings and the shape."""
        return {**self.scheme.to_dict(), "shape": list(self.shape)}

    def arrays(self) -> Parts:
        """Return the parts."""
        return self.parts

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: Parts) -> Self:
        """Return the table from its header and arrays."""
        settings = {name: value for name, value in header.items() if name != "shape"}
        return cls(TableScheme.from_dict(settings), arrays, header["shape"][0])

    def decode(self) -> NDArray[np.float32]:
        """Return the whole table: the row of every id."""
        floats = _in_floats(self.parts, "float32")
        return self.scheme.lookup(np, floats, np.arange(self._num_rows)).astype(np.float32)


def _in_floats(parts: Parts, dtype: str) -> Parts:
    """Return the parts, trained ones in another type if it can hold them."""
    floats = {n: x.astype(fitting_dtype(x, dtype)) for n, x in parts.items() if x.dtype.kind == "f"}
    return {**parts, **floats}


def _checked(counts: ArrayLike | None, num_rows: int) -> Counts:
    if counts is None:
        return None
    values = np.asarray(counts, np.float64)
    if values.shape != (num_rows,) or not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"counts has shape {values.shape}: expected ({num_rows},), none negative")
    return values
