"""A matrix whose groups of rows or of columns are stored in different ways."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number, check_weights
from recsys_lib.compression.quantization.packing import pack_bits, unpack_bits
from recsys_lib.compression.tensors import EncodedTensor, read_tensor

_MOST_GROUPS = 256


@dataclass(frozen=True, eq=False)
class WeightGroups:
    """Which rows, or which columns, of a matrix belong together.

    Args:
        axis: 0 groups the rows (users, items), 1 the columns (embedding dimensions).
        labels: (n,) group of each row or column; every group from 0 to the highest has members.

    Raises:
        TypeError: labels are not integers.
        ValueError: an axis that is not 0 or 1, an empty group, or more than 256 groups.

    Example:
        >>> WeightGroups(1, [0, 0, 1]).num_groups
        2
    """

    axis: int
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.axis not in (0, 1) or isinstance(self.axis, bool):
            raise ValueError(f"axis is {self.axis!r}: expected 0 (rows) or 1 (columns)")
        labels = np.array(self.labels)
        if labels.dtype.kind not in "iu":
            raise TypeError(f"labels is of type {labels.dtype}: expected integers")
        if labels.ndim != 1 or labels.size == 0 or labels.min() < 0:
            raise ValueError(f"labels has shape {labels.shape}: expected (n,) numbers from 0 on")
        if labels.max() >= _MOST_GROUPS:
            raise ValueError(f"labels reach {labels.max()}: expected at most {_MOST_GROUPS - 1}")
        empty = np.flatnonzero(np.bincount(labels) == 0)
        if len(empty):
            raise ValueError(f"labels leave group {empty[0]} empty: expected members in each")
        labels = labels.astype(np.int64)
        labels.flags.writeable = False
        object.__setattr__(self, "labels", labels)

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return int(self.labels.max()) + 1

    def index(self, group: int) -> tuple[Any, ...]:
        """Give what selects a group in the matrix."""
        members = np.flatnonzero(self.labels == group)
        return (members,) if self.axis == 0 else (slice(None), members)


def dimension_groups(width: int, num_groups: int) -> WeightGroups:
    """Group neighbouring columns of a matrix into groups of (nearly) equal size.

    Args:
        width: number of columns, best in descending order of importance.
        num_groups: 1 to ``width``.

    Example:
        >>> dimension_groups(5, 2).labels.tolist()
        [0, 0, 0, 1, 1]
    """
    _check_count("num_groups", num_groups, "width", width)
    return WeightGroups(1, np.arange(width) * num_groups // width)


def frequency_groups(counts: ArrayLike, shares: Sequence[float]) -> WeightGroups:
    """Group rows by how often they occur: the most frequent first.

    Args:
        counts: (n,) occurrences of each row, such as interactions of each item.
        shares: of the rows in each group, positive, in sum 1. ``(0.1, 0.3, 0.6)`` makes a head
            of the most frequent tenth, a torso and a tail. Ties go by position.

    Raises:
        ValueError: shares that do not sum to 1, or leave a group without rows.

    Example:
        >>> frequency_groups([5, 1, 9, 2], (0.25, 0.75)).labels.tolist()
        [1, 1, 0, 1]
    """
    frequency = np.asarray(counts)
    if frequency.ndim != 1 or frequency.size == 0:
        raise ValueError(f"counts has shape {frequency.shape}: expected (n,) with n of at least 1")
    parts = np.array([check_number("shares", share, 0, include_low=False) for share in shares])
    if not np.isclose(parts.sum(), 1):
        raise ValueError(f"shares sum to {parts.sum():g}: expected 1")
    ends = np.rint(np.cumsum(parts) * len(frequency)).astype(int)
    labels = np.empty(len(frequency), np.int64)
    labels[np.argsort(-frequency, kind="stable")] = np.searchsorted(
        ends, np.arange(len(frequency)), side="right"
    )
    return WeightGroups(0, labels)


class ZeroTensor(EncodedTensor):
    """Zeros, stored as their shape: what 0 bits for each number leave.

    Args:
        shape: of the array.

    Example:
        >>> ZeroTensor((2, 3)).decode().sum(), ZeroTensor((2000, 3000)).nbytes < 50
        (np.float32(0.0), True)
    """

    kind = "zeros"

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(int(n) for n in shape)

    def header(self) -> dict[str, Any]:
        """Give the shape."""
        return {"shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give nothing."""
        return {}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Give the zeros again."""
        return cls(header["shape"])

    def decode(self) -> NDArray[np.float32]:
        """Give the zeros."""
        return np.zeros(self.shape, np.float32)


class GroupedTensor(EncodedTensor):
    """A matrix in which each group of rows or columns has a stored form of its own.

    Stored are the parts and, packed, the group of each row or column.

    Args:
        groups: which rows or columns belong together.
        parts: the stored form of each group, in the order of their numbers.

    Raises:
        ValueError: another number of parts than groups, or a part of another shape.

    Example:
        >>> from recsys_lib.compression.tensors import DenseTensor
        >>> parts = [DenseTensor(np.ones((2, 1))), ZeroTensor((2, 2))]
        >>> GroupedTensor(WeightGroups(1, [1, 0, 1]), parts).decode().tolist()
        [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """

    kind = "grouped"

    def __init__(self, groups: WeightGroups, parts: Sequence[EncodedTensor]) -> None:
        if len(parts) != groups.num_groups:
            raise ValueError(f"parts has {len(parts)} entries: expected {groups.num_groups}")
        sizes, axis = np.bincount(groups.labels), groups.axis
        other = parts[0].shape[1 - axis] if len(parts[0].shape) == 2 else -1
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            expected = (int(size), other) if axis == 0 else (other, int(size))
            if part.shape != expected:
                raise ValueError(f"parts[{number}] has shape {part.shape}: expected {expected}")
        self.groups = groups
        self.parts = tuple(parts)
        n = len(groups.labels)
        self.shape = (n, other) if axis == 0 else (other, n)

    def header(self) -> dict[str, Any]:
        """Give axis, shape, and the kind and header of each part."""
        parts = [[part.kind, part.header()] for part in self.parts]
        return {"shape": list(self.shape), "axis": self.groups.axis, "parts": parts}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the packed group numbers, and the arrays of each part as ``number/name``."""
        stored: dict[str, NDArray[Any]] = {
            "labels": pack_bits(self.groups.labels, _label_bits(self.groups.num_groups))
        }
        for number, part in enumerate(self.parts):
            stored |= {f"{number}/{name}": array for name, array in part.arrays().items()}
        return stored

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        axis, kinds = header["axis"], header["parts"]
        count = header["shape"][axis]
        labels = unpack_bits(arrays["labels"], _label_bits(len(kinds)), count)
        parts = []
        for number, (kind, settings) in enumerate(kinds):
            start = f"{number}/"
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            parts.append(read_tensor(kind, settings, own))
        return cls(WeightGroups(axis, labels.astype(np.int64)), parts)

    def decode(self) -> NDArray[np.float32]:
        """Give the matrix."""
        values = np.empty(self.shape, np.float32)
        for number, part in enumerate(self.parts):
            values[self.groups.index(number)] = part.decode()
        return values


def part_bytes(part: EncodedTensor) -> int:
    """Bytes that a part adds to a :class:`GroupedTensor`: its arrays, and its kind and header."""
    stored = sum(array.nbytes for array in part.arrays().values())
    return stored + len(json.dumps([part.kind, part.header()]))


def check_groups(
    groups: Mapping[str, WeightGroups], weights: Mapping[str, NDArray[np.float32]]
) -> None:
    """Raise unless the groups fit the weights that they are named after."""
    for name, group in groups.items():
        if not isinstance(group, WeightGroups):
            raise TypeError(f"groups[{name!r}] is {type(group).__name__}: expected WeightGroups")
        values = check_weights(name, weights[name], ndim=2)
        if len(group.labels) != values.shape[group.axis]:
            raise ValueError(
                f"groups[{name!r}] labels {len(group.labels)} "
                f"{'columns' if group.axis else 'rows'}: expected {values.shape[group.axis]}"
            )


def _label_bits(num_groups: int) -> int:
    return max(1, (num_groups - 1).bit_length())


def _check_count(name: str, value: int, limit_name: str, limit: int) -> None:
    count = check_number(name, value, 1, integer=True)
    if count > check_number(limit_name, limit, 1, integer=True):
        raise ValueError(f"{name} is {value}: expected at most {limit}, the {limit_name}")
