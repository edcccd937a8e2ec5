"""Another number of bits for each weight, or for each group of its rows or columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import (
    check_ids,
    check_names,
    check_number,
    check_type,
    check_weights,
    store,
    store_numbers,
)
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.quantization.uniform import UniformQuantization, pack_bits, unpack_bits
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor, read_tensor
from recsys_lib.compression.weights import named_weights

Floats = NDArray[np.float32]


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
        store_numbers(self, 0, "axis", high=1, integer=True)
        labels = check_ids("labels", self.labels, 256)
        members = np.bincount(labels, minlength=1)
        if not members.all():
            raise ValueError(f"labels leave group {members.argmin()} empty: expected members")
        labels.flags.writeable = False
        store(self, labels=labels)

    @property
    def num_groups(self) -> int:
        """Return the number of groups."""
        return int(self.labels.max()) + 1

    def index(self, group: int) -> tuple[Any, ...]:
        """Return what selects a group in the matrix."""
        members = np.flatnonzero(self.labels == group)
        return (members,) if self.axis == 0 else (slice(None), members)


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
    frequency = check_weights("counts", np.asarray(counts, np.float64), ndim=1)
    parts = np.array([check_number("shares", share, 0, include_low=False) for share in shares])
    if not np.isclose(parts.sum(), 1):
        raise ValueError(f"shares sum to {parts.sum():g}: expected 1")
    ends = np.rint(np.cumsum(parts) * len(frequency)).astype(int)
    labels = np.empty(len(frequency), np.int64)
    order = np.argsort(-frequency, kind="stable")
    labels[order] = np.searchsorted(ends, np.arange(len(frequency)), side="right")
    return WeightGroups(0, labels)


@dataclass(frozen=True, eq=False)
class MixedPrecision:
    """How many bits each weight, or each group of its rows or columns, is stored in.

    :func:`allocate_bits` finds them (its ``config``), and :func:`stored_bits` tells what each piece
    then takes.

    Args:
        bits: by name of the weight, or ``name[group]`` for one that is grouped: 2 to 8 are whole
            numbers with a scale, 16 and 32 are float16 and float32, 0 is not stored (zeros).
            Weights that are not named stay float32.
        groups: by name of the weight, which rows or columns share their bits.
        base: all other choices of the whole numbers; its own ``bits`` are not used.

    Raises:
        TypeError: bits are no integers, or another type of ``base``.
        ValueError: other numbers of bits, or a group without bits.

    Source:
        Wang et al., *HAQ: Hardware-Aware Automated Quantization with Mixed Precision*, CVPR 2019,
        for bits by layer.

    Example:
        >>> from recsys_lib.compression.quantization import quantize
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 90, 90, 64))
        >>> bits = {"user_embedding/embeddings": 8, "item_embedding/embeddings": 4}
        >>> round(quantize(model, MixedPrecision(bits)).report.ratio, 1)
        4.8
        >>> MixedPrecision({"item_vectors": 4, "user_vectors": 1})
        Traceback (most recent call last):
        ValueError: bits['user_vectors'] is 1: expected 0, 2 to 8, 16 or 32
    """

    bits: Mapping[str, int]
    groups: Mapping[str, WeightGroups] = field(default_factory=dict)
    base: UniformQuantization = field(default_factory=UniformQuantization)

    def __post_init__(self) -> None:
        check_type("base", self.base, (UniformQuantization,))
        bits = {name: check_width(bits, f"bits[{name!r}]") for name, bits in self.bits.items()}
        store(self, bits=bits, groups=dict(self.groups))
        for name, group in self.groups.items():
            check_type(f"groups[{name!r}]", group, (WeightGroups,))
            check_names("groups", piece_names(name, group), bits)

    def compress(self, model: Any) -> CompressedModel:
        """Return a new model with packed weights; see :func:`quantize`.

        Raises:
            ValueError: an unknown name, or groups that do not fit the weight.
        """
        weights = named_weights(model)
        pieces = weight_pieces(weights, self.groups)
        check_names("bits", self.bits, pieces)
        encoded = {}
        for piece, bits in self.bits.items():
            name, index = pieces[piece]
            encoded[piece] = encode_width(weights[name][index], bits, self.base)
        tensors = {name: encoded[name] for name in weights if name in encoded}
        for name, group in self.groups.items():
            tensors[name] = GroupedTensor(group, [encoded[p] for p in piece_names(name, group)])
        return store_weights("mixed precision", self, model, tensors)


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
        super().__init__({"shape": [int(n) for n in shape]}, {})

    def decode(self) -> Floats:
        """Return the zeros."""
        return np.zeros(self.shape, np.float32)


class GroupedTensor(EncodedTensor):
    """A matrix in which each group of rows or columns has a stored form of its own.

    Stored are the parts and, packed, the group of each row or column.

    Args:
        groups: which rows or columns belong together.
        parts: the stored form of each group, in the order of their numbers.

    Example:
        >>> parts = [DenseTensor(np.ones((2, 1))), ZeroTensor((2, 2))]
        >>> GroupedTensor(WeightGroups(1, [1, 0, 1]), parts).decode().tolist()
        [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    """

    kind = "grouped"
    settings = ("axis", "parts")

    def __init__(self, groups: WeightGroups, parts: Sequence[EncodedTensor]) -> None:
        other = parts[0].shape[1 - groups.axis]
        self.groups, self.parts = groups, tuple(parts)
        shape = [other, len(groups.labels)] if groups.axis else [len(groups.labels), other]
        kinds = [[part.kind, part.header()] for part in parts]
        arrays = {"labels": pack_bits(groups.labels, _label_bits(len(parts)))}
        for number, part in enumerate(parts):
            arrays |= {f"{number}/{name}": array for name, array in part.arrays().items()}
        super().__init__({"shape": shape, "axis": groups.axis, "parts": kinds}, arrays)

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Return the tensor from its header and arrays."""
        axis, kinds = header["axis"], header["parts"]
        labels = unpack_bits(arrays["labels"], _label_bits(len(kinds)), header["shape"][axis])
        parts = []
        for number, (kind, settings) in enumerate(kinds):
            start = f"{number}/"
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            parts.append(read_tensor(kind, settings, own))
        return cls(WeightGroups(axis, labels.astype(np.int64)), parts)

    def decode(self) -> Floats:
        """Return the matrix."""
        values = np.empty(self.shape, np.float32)
        for number, part in enumerate(self.parts):
            values[self.groups.index(number)] = part.decode()
        return values


def stored_bits(compressed: CompressedModel) -> pd.DataFrame:
    """Return one row for each weight, or group of one: how it is stored, and in how many bytes.

    Returns:
        Columns ``piece``, ``stored_as``, ``bits`` (of each number), ``numbers``, ``bytes`` (with
        scales and header) and ``bits_in_all`` (8 * bytes / numbers). The bytes sum up to
        ``compressed.nbytes``; the row ``name[index]`` is the index of groups.
    """
    rows: list[tuple[Any, ...]] = []
    for name, tensor in compressed.tensors.items():
        sizes, parts = [tensor.nbytes], {name: tensor}
        if isinstance(tensor, GroupedTensor):
            parts = dict(zip(piece_names(name, tensor.groups), tensor.parts, strict=True))
            sizes = [part_bytes(part) for part in tensor.parts]
        for (piece, part), size in zip(parts.items(), sizes, strict=True):
            rows.append((piece, part.kind, _bits(part), int(np.prod(part.shape)), size))
        if isinstance(tensor, GroupedTensor):
            rows.append((f"{name}[index]", "index", 0, 0, tensor.nbytes - sum(sizes)))
    frame = pd.DataFrame(rows, columns=["piece", "stored_as", "bits", "numbers", "bytes"])
    return frame.assign(bits_in_all=8 * frame.bytes / frame.numbers.where(frame.numbers > 0))


def part_bytes(part: EncodedTensor) -> int:
    """Return what a part adds to a GroupedTensor: its arrays, and its kind and header."""
    stored = sum(array.nbytes for array in part.arrays().values())
    return stored + len(json.dumps([part.kind, part.header()]))


def encode_width(values: Floats, bits: int, base: UniformQuantization) -> EncodedTensor:
    """Store numbers in 0, 2 to 8, 16 or 32 bits each.

    Example:
        >>> [encode_width(np.ones((4, 4), np.float32), bits, UniformQuantization()).kind
        ...  for bits in (0, 4, 16)]
        ['zeros', 'uniform', 'dense']
    """
    if bits == 0:
        return ZeroTensor(values.shape)
    if bits >= 16:
        return DenseTensor(values, f"float{bits}")
    return replace(base, bits=bits).encode(values)


def check_width(bits: Any, name: str = "bits") -> int:
    """Return a number of bits that a piece can be stored in.

    Example:
        >>> check_width(9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected 0, 2 to 8, 16 or 32
    """
    if check_number(name, bits, -np.inf, integer=True) not in (0, *range(2, 9), 16, 32):
        raise ValueError(f"{name} is {bits}: expected 0, 2 to 8, 16 or 32")
    return int(bits)


def piece_names(name: str, group: WeightGroups) -> list[str]:
    """Name the groups of a weight.

    Example:
        >>> piece_names("item_vectors", WeightGroups(1, [0, 0, 1]))
        ['item_vectors[0]', 'item_vectors[1]']
    """
    return [f"{name}[{number}]" for number in range(group.num_groups)]


def weight_pieces(
    weights: Mapping[str, Floats], groups: Mapping[str, WeightGroups]
) -> dict[str, tuple[str, Any]]:
    """Return weight and index of each piece, by its name; ValueError where groups do not fit."""
    check_names("groups", groups, weights)
    pieces: dict[str, tuple[str, Any]] = {}
    for name, values in weights.items():
        if name not in groups:
            pieces[name] = (name, ...)
            continue
        group = groups[name]
        size = check_weights(name, values, ndim=2).shape[group.axis]
        if len(group.labels) != size:
            raise ValueError(f"groups[{name!r}] has {len(group.labels)} labels: expected {size}")
        for number, piece in enumerate(piece_names(name, group)):
            pieces[piece] = (name, group.index(number))
    return pieces


def _label_bits(num_groups: int) -> int:
    return max(1, (num_groups - 1).bit_length())


def _bits(tensor: EncodedTensor) -> int:
    header = tensor.header()
    return int(header.get("bits") or header.get("dtype", "float0").removeprefix("float"))
