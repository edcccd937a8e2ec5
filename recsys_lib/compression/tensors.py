"""An array in fewer bytes: what every stored form of a weight has in common."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_weights


class EncodedTensor(ABC):
    """A float32 array, stored in another form: frozen, decoded on request.

    A subclass has a class attribute ``kind``, unique in the library, and the four methods below.
    A JSON header and plain arrays are all that it consists of, so that it can be written to a file
    and read back without running code.

    Attributes:
        shape: of the decoded array.

    Example:
        >>> half = DenseTensor(np.ones((2, 3)), dtype="float16")
        >>> half.decode().shape, half.nbytes - len(json.dumps(half.header()))
        ((2, 3), 12)
        >>> read_tensor(half.kind, half.header(), half.arrays()).decode().tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """

    kind: ClassVar[str]
    shape: tuple[int, ...]
    _kinds: ClassVar[dict[str, type[EncodedTensor]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls) and cls.__module__.startswith("recsys_lib."):
            EncodedTensor._kinds[cls.kind] = cls

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """Give the settings that JSON can hold, with ``shape``."""

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give what is stored, in the types in which it is stored (packed, where packed)."""

    @classmethod
    @abstractmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again; ValueError where they do not fit."""

    @abstractmethod
    def decode(self) -> NDArray[np.float32]:
        """Give the array."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored: the arrays and the header as JSON."""
        stored = sum(array.nbytes for array in self.arrays().values())
        return stored + len(json.dumps(self.header()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape {self.shape}, {self.nbytes:,} bytes)"


def read_tensor(
    kind: str, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> EncodedTensor:
    """Make the stored form of a kind again from its parts.

    Raises:
        ValueError: an unknown kind, or parts that do not fit together.
    """
    for room in ("embedding_tables", "pruning", "quantization"):  # they define the kinds
        importlib.import_module(f"recsys_lib.compression.{room}")
    known = EncodedTensor._kinds
    return known[check_choice("kind", kind, known)].from_parts(header, arrays)


class DenseTensor(EncodedTensor):
    """An array as it is, in float32 or float16.

    Args:
        values: finite numbers.
        dtype: "float32" or "float16" (half the bytes, 11 bits of precision).

    Raises:
        ValueError: another dtype, NaN or infinity, or a value beyond the range of float16.
    """

    kind = "dense"

    def __init__(self, values: NDArray[Any], dtype: str = "float32") -> None:
        check_choice("dtype", dtype, ("float32", "float16"))
        checked = check_weights("values", values)
        with np.errstate(over="ignore"):
            self._values = np.array(checked, dtype)
        if not np.isfinite(self._values).all():
            raise ValueError(
                f"values reach {np.abs(checked).max():.3g}: expected at most 65504 for float16"
            )
        self.shape = self._values.shape

    def header(self) -> dict[str, Any]:
        """Give dtype and shape."""
        return {"dtype": str(self._values.dtype), "shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the values."""
        return {"values": self._values}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        return cls(arrays["values"].reshape(header["shape"]), header["dtype"])

    def decode(self) -> NDArray[np.float32]:
        """Give the array in float32."""
        return self._values.astype(np.float32)
