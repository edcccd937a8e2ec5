"""An array in fewer bytes: what every stored form of a weight has in common."""

from __future__ import annotations

import importlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_weights
from recsys_lib.files import known_settings

# A stored form of n bytes decodes to so many numbers at most: all that a forged header can ask for.
_MOST_NUMBERS, _NUMBERS_PER_BYTE = 1 << 20, 4_000


class EncodedTensor(ABC):
    """A float32 array, stored in another form: frozen, decoded on request.

    A JSON header and plain arrays are all that it consists of, so that it can be written to a file
    and read back without running code. A subclass has a class attribute ``kind``, unique in the
    library, the names of its ``settings``, and :meth:`decode`.

    Args:
        header: settings that JSON can hold, with ``shape``.
        arrays: what is stored, in the types in which it is stored (packed, where packed).

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
    settings: ClassVar[tuple[str, ...] | None] = ()  # of the header, beside shape
    shape: tuple[int, ...]
    _kinds: ClassVar[dict[str, type[EncodedTensor]]] = {}

    def __init__(self, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self._header, self._arrays = header, arrays
        self.shape = tuple(header["shape"])

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in vars(cls) and cls.__module__.startswith("recsys_lib."):
            EncodedTensor._kinds[cls.kind] = cls

    def header(self) -> dict[str, Any]:
        """Return the settings that JSON can hold, with ``shape``."""
        return self._header

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what is stored, in the types in which it is stored (packed, where packed)."""
        return self._arrays

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Return the tensor from its header and arrays; where they do not fit, ``decode`` fails."""
        tensor = cls.__new__(cls)
        EncodedTensor.__init__(tensor, header, arrays)
        return tensor

    @abstractmethod
    def decode(self) -> NDArray[np.float32]:
        """Return the array."""

    @property
    def nbytes(self) -> int:
        """Return the bytes of all that is stored: the arrays and the header as JSON."""
        stored = sum(array.nbytes for array in self.arrays().values())
        return stored + len(json.dumps(self.header()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape {self.shape}, {self.nbytes:,} bytes)"


def read_tensor(kind: str, header: dict[str, Any], arrays: dict[str, Any]) -> EncodedTensor:
    """Return the stored form of a kind, made again from its parts.

    Raises:
        ValueError: an unknown kind, parts that do not fit together, a shape far beyond what is
            stored, or a setting that only a newer version knows.
    """
    for room in ("embedding_tables", "pruning", "quantization"):  # they define the kinds
        importlib.import_module(f"recsys_lib.compression.{room}")
    known = EncodedTensor._kinds
    stored = known[check_choice("kind", kind, known)]
    if stored.settings is not None:  # else the class knows better
        known_settings(header, ["shape", *stored.settings], stored.__name__)
    shape = check_claim(header.get("shape", ()), arrays)
    tensor = stored.from_parts(header, arrays)
    if "shape" in header and list(tensor.shape) != shape:
        raise ValueError(f"shape is {shape}: expected {tensor.shape}, as stored")
    return tensor


def check_claim(shape: Iterable[Any], arrays: Mapping[str, NDArray[Any]]) -> list[int]:
    """Return a shape that was read from a file, if so few bytes may decode to so many numbers.

    Example:
        >>> check_claim([2**30, 64], {"codes": np.zeros(100, np.uint8)})
        Traceback (most recent call last):
        ValueError: shape is [1073741824, 64]: expected at most 1,048,576 numbers from 100 bytes
    """
    found, size = list(shape), sum(array.nbytes for array in arrays.values())
    most = max(_MOST_NUMBERS, _NUMBERS_PER_BYTE * size)
    if not all(type(n) is int and n >= 0 for n in found) or math.prod(found) > most:
        raise ValueError(f"shape is {found}: expected at most {most:,} numbers from {size:,} bytes")
    return found


class DenseTensor(EncodedTensor):
    """An array as it is, in float32 or float16.

    Args:
        values: finite numbers.
        dtype: "float32" or "float16" (half the bytes, 11 bits of precision; where all values are
            below 2**-14, too small for that, they stay float32).

    Raises:
        ValueError: another dtype, NaN or infinity, or a value beyond the range of float16.
    """

    kind = "dense"
    settings = ("dtype",)

    def __init__(self, values: NDArray[Any], dtype: str = "float32") -> None:
        check_choice("dtype", dtype, ("float32", "float16"))
        checked = check_weights("values", values)
        largest = float(np.abs(checked).max(initial=0))
        if dtype == "float16" and largest >= 65520:
            raise ValueError(f"values reach {largest:.3g}: expected at most 65504")
        stored = np.array(checked, "float32" if 0 < largest < 2.0**-14 else dtype)
        header = {"dtype": stored.dtype.name, "shape": list(stored.shape)}
        super().__init__(header, {"values": stored})

    def decode(self) -> NDArray[np.float32]:
        """Return the array in float32."""
        return self._arrays["values"].astype(np.float32).reshape(self.shape)
