"""Another number of bits for each weight, or for each group of its rows or columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_bits, check_names
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.quantization.grouped import (
    GroupedTensor,
    WeightGroups,
    ZeroTensor,
    check_groups,
    part_bytes,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import named_weights

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class MixedPrecision:
    """How many bits each weight, or each group of one, is stored in.

    Args:
        bits: by name of the weight, or ``name[group]`` for one that is grouped: 2 to 8 are whole
            numbers with a scale, 16 and 32 are float16 and float32, 0 is not stored (zeros).
            Weights that are not named stay float32.
        groups: by name of the weight, which rows or columns share their bits.
        base: all other choices of the whole numbers; its own ``bits`` are not used.

    Raises:
        TypeError: bits are no integers, or another type of ``base``.
        ValueError: other numbers of bits, or a group without bits.

    Example:
        >>> MixedPrecision({"item_vectors": 4, "user_vectors": 1})
        Traceback (most recent call last):
        ValueError: bits['user_vectors'] is 1: expected 0, 2 to 8, 16 or 32
    """

    bits: Mapping[str, int]
    groups: Mapping[str, WeightGroups] = field(default_factory=dict)
    base: UniformQuantization = field(default_factory=UniformQuantization)

    def __post_init__(self) -> None:
        check_base(self.base)
        object.__setattr__(self, "groups", dict(self.groups))
        object.__setattr__(
            self,
            "bits",
            {name: check_width(bits, f"bits[{name!r}]") for name, bits in self.bits.items()},
        )
        for name, group in self.groups.items():
            missing = [p for p in piece_names(name, group) if p not in self.bits]
            if missing:
                raise ValueError(f"bits has no {missing[0]!r}: expected bits for each group")


def quantize_mixed(model: Any, config: MixedPrecision) -> CompressedModel:
    """Store each weight, or each group of its rows or columns, in its own number of bits.

    Args:
        model: factor model, Keras model or KerasRecommender; it stays as it is.
        config: bits by name, as :func:`allocate_bits` finds them (its ``config``).

    Returns:
        A new model with packed weights. Its report has the bytes, and :func:`stored_bits` tells
        what each weight and each group takes.

    Raises:
        TypeError, ValueError: an unknown name, or groups that do not fit the weight.

    Source:
        Wang et al., *HAQ: Hardware-Aware Automated Quantization with Mixed Precision*, CVPR 2019,
        for bits by layer.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 90, 90, 64))
        >>> bits = {"user_embedding/embeddings": 8, "item_embedding/embeddings": 4}
        >>> round(quantize_mixed(model, MixedPrecision(bits)).report.ratio, 1)
        4.8
    """
    if not isinstance(config, MixedPrecision):
        raise TypeError(f"config is of type {type(config).__name__}: expected MixedPrecision")
    weights = named_weights(model)
    check_names("groups", config.groups, weights)
    check_groups(config.groups, weights)
    pieces = weight_pieces(weights, config.groups)
    check_names("bits", config.bits, pieces)
    encoded = {
        piece: encode(take_piece(weights, config.groups, pieces[piece]), bits, config.base)
        for piece, bits in config.bits.items()
    }
    tensors = {name: encoded[name] for name in weights if name in encoded}
    for name, group in config.groups.items():
        tensors[name] = GroupedTensor(group, [encoded[p] for p in piece_names(name, group)])
    return store_weights("mixed precision", config, model, tensors)


def stored_bits(compressed: CompressedModel) -> pd.DataFrame:
    """Give one row for each weight, or group of one: how it is stored, and in how many bytes.

    Returns:
        Columns ``piece``, ``stored_as``, ``bits`` (of each number), ``numbers``, ``bytes`` (with
        scales and header) and ``bits_in_all`` (8 * bytes / numbers). The bytes sum up to
        ``compressed.nbytes``; the row ``name[index]`` is the index of groups.
    """
    import pandas as pd

    rows: list[tuple[str, EncodedTensor | None, int]] = []
    for name, tensor in compressed.tensors.items():
        if isinstance(tensor, GroupedTensor):
            sizes = [part_bytes(part) for part in tensor.parts]
            pieces = piece_names(name, tensor.groups)
            rows += list(zip(pieces, tensor.parts, sizes, strict=True))
            rows.append((f"{name}[index]", None, tensor.nbytes - sum(sizes)))
        else:
            rows.append((name, tensor, tensor.nbytes))
    frame = pd.DataFrame(
        {
            "piece": [piece for piece, _, _ in rows],
            "stored_as": ["index" if tensor is None else tensor.kind for _, tensor, _ in rows],
            "bits": [_bits(tensor) for _, tensor, _ in rows],
            "numbers": [0 if t is None else int(np.prod(t.shape)) for _, t, _ in rows],
            "bytes": [size for _, _, size in rows],
        }
    )
    return frame.assign(bits_in_all=8 * frame.bytes / frame.numbers.where(frame.numbers > 0))


def encode(values: NDArray[np.float32], bits: int, base: UniformQuantization) -> EncodedTensor:
    """Store numbers in 0, 2 to 8, 16 or 32 bits each.

    Example:
        >>> [encode(np.ones((4, 4), np.float32), bits, UniformQuantization()).kind
        ...  for bits in (0, 4, 16)]
        ['zeros', 'uniform', 'dense']
    """
    if bits == 0:
        return ZeroTensor(values.shape)
    if bits >= 16:
        return DenseTensor(values, f"float{bits}")
    return quantize_uniform(values, replace(base, bits=bits))


def check_width(bits: int, name: str = "bits") -> int:
    """Give a number of bits that a piece can be stored in.

    Example:
        >>> check_width(9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected 0, 2 to 8, 16 or 32
    """
    try:
        width = check_bits(bits, name, low=0, high=32)
    except ValueError:
        width = -1
    if width not in (0, 2, 3, 4, 5, 6, 7, 8, 16, 32):
        raise ValueError(f"{name} is {bits}: expected 0, 2 to 8, 16 or 32")
    return width


def check_base(base: UniformQuantization) -> None:
    """Raise unless it is a UniformQuantization."""
    if not isinstance(base, UniformQuantization):
        raise TypeError(f"base is of type {type(base).__name__}: expected UniformQuantization")


def piece_names(name: str, group: WeightGroups) -> list[str]:
    """Name the groups of a weight.

    Example:
        >>> piece_names("item_vectors", WeightGroups(1, [0, 0, 1]))
        ['item_vectors[0]', 'item_vectors[1]']
    """
    return [f"{name}[{number}]" for number in range(group.num_groups)]


def weight_pieces(
    weights: Mapping[str, NDArray[np.float32]], groups: Mapping[str, WeightGroups]
) -> dict[str, tuple[str, int | None]]:
    """Give weight and group of each piece, by its name."""
    pieces: dict[str, tuple[str, int | None]] = {}
    for name in weights:
        if name in groups:
            names = piece_names(name, groups[name])
            pieces |= {piece: (name, number) for number, piece in enumerate(names)}
        else:
            pieces[name] = (name, None)
    return pieces


def take_piece(
    weights: Mapping[str, NDArray[np.float32]],
    groups: Mapping[str, WeightGroups],
    piece: tuple[str, int | None],
) -> NDArray[np.float32]:
    """Give the numbers of a piece."""
    name, number = piece
    return weights[name] if number is None else weights[name][groups[name].index(number)]


def _bits(tensor: EncodedTensor | None) -> int:
    if tensor is None or isinstance(tensor, ZeroTensor):
        return 0
    header = tensor.header()
    return int(header["bits"] if "bits" in header else header["dtype"].removeprefix("float"))
