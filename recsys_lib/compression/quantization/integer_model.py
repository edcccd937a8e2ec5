"""A rating model in integer arithmetic, with its weights packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_ids
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.quantization.integer import IntegerDense
from recsys_lib.compression.quantization.integer_ops import (
    Operation,
    Value,
    to_real,
)
from recsys_lib.compression.tensors import EncodedTensor

_PAIRS_PER_BATCH = 1 << 14


class Step(NamedTuple):
    """A layer of the model: its name, those it reads, its arithmetic."""

    name: str
    inputs: tuple[str, ...]
    operation: Operation


@dataclass(frozen=True, eq=False, repr=False)
class IntegerModel(CompressedModel):
    """A model whose dense layers multiply 8-bit codes and add up in 32 bits; made by `convert`.

    Scores are sums in 32 bits times a scale, float32; nothing rounds them.

    Args:
        tensors, model, report: as for CompressedModel; ``model`` is the float32 model with the
            rounded weights, which computes the same without rounding what lies between layers.
        steps: what is computed, in order.
        input_names: of the model's inputs.
        layers: the integer dense layers by name.
        num_rows: ids that each input may have, 0 for an input that is no id.
    """

    steps: tuple[Step, ...]
    input_names: tuple[str, ...]
    layers: dict[str, IntegerDense]
    num_rows: tuple[int, ...]

    def __call__(self, inputs: Sequence[ArrayLike]) -> NDArray[np.float32]:
        """Give the outputs (n, ...) for one array (n, ...) for each input of the model."""
        return to_real(self.run(inputs)[self.steps[-1].name])

    def run(self, inputs: Sequence[ArrayLike]) -> dict[str, Value]:
        """Give what each layer gives, by name: pieces of (codes, scale), or float32 numbers."""
        values: dict[str, Value] = {
            name: np.asarray(array) for name, array in zip(self.input_names, inputs, strict=True)
        }
        for step in self.steps:
            values[step.name] = step.operation([values[name] for name in step.inputs])
        return values

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs (n,), (n,) to (n,).

        Raises:
            ValueError: arrays of different lengths, or an id out of range.
        """
        users = check_ids("user_ids", user_ids, self.num_rows[0])
        items = check_ids("item_ids", item_ids, self.num_rows[1])
        if users.shape != items.shape:
            raise ValueError(
                f"user_ids has shape {users.shape}, item_ids {items.shape}: expected (n,) twice"
            )
        scores = np.empty(len(users), np.float32)
        for start in range(0, len(users), _PAIRS_PER_BATCH):
            rows = slice(start, start + _PAIRS_PER_BATCH)
            scores[rows] = self([users[rows], items[rows]]).reshape(-1)
        return scores

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32."""
        users, num_items = np.asarray(user_ids), self.num_rows[1]
        pairs = np.repeat(users, num_items), np.tile(np.arange(num_items), len(users))
        return self.score(*pairs).reshape(len(users), num_items)

    def __repr__(self) -> str:
        return f"IntegerModel({len(self.layers)} dense layers, {self.report!r})"


class IntegerBias(EncodedTensor):
    """A bias in 32-bit integers.

    Args:
        codes: (outputs,) int32.
        scale: (outputs,) float32, what 1 stands for: input scale times kernel scale.
    """

    kind = "integer_bias"

    def __init__(self, codes: NDArray[np.int32], scale: NDArray[np.float32]) -> None:
        if codes.dtype != np.int32 or codes.shape != scale.shape:
            raise ValueError(
                f"codes is {codes.dtype} {codes.shape}, scale {scale.shape}: expected int32 and "
                "the same shape"
            )
        self.codes, self.scale, self.shape = codes, scale, codes.shape

    def header(self) -> dict[str, Any]:
        """Give the shape."""
        return {"shape": list(self.shape)}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give codes and scales."""
        return {"codes": self.codes, "scale": self.scale}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        return cls(arrays["codes"], arrays["scale"])

    def decode(self) -> NDArray[np.float32]:
        """Give the bias."""
        return (self.codes * self.scale).astype(np.float32)
