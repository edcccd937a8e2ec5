"""Transform coding: turn the axes of both tables, round each with a step of its own, code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_shape
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning import rotate_to_principal_axes
from recsys_lib.compression.quantization.context_coding import (
    ContextCodedTensor,
    scale_codes,
    scales_of_codes,
)
from recsys_lib.compression.quantization.entropy import EntropyCodedTensor, EntropyCoding
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import with_weights
from recsys_lib.models.factors import Factors

_MOST_LEVELS = 1024


@dataclass(frozen=True)
class TransformCoding:
    """Choices of transform coding.

    Args:
        relative_error: how far scores may be off: an upper bound on the root mean square of the
            error, as a share of the root mean square of the scores. The one dial to turn.
        scale_users: give a user whose scores are n times as large ``n ** user_exponent`` times the
            error, for one more byte a user. A ranking compares scores of one user, so users with
            small scores need finer steps.
        user_exponent: 0 to 1.
        round_up_from: 0.5 to 1, the part of a step from which a number is rounded up. More than
            .5 makes more zeros, which are cheapest to code: at equal bytes the finer step that
            this pays for is worth more.
        contexts: "column" codes each column with frequencies of its own; "size" each number with
            those of numbers of about its size (:class:`ContextCodedTensor`): equal vectors, fewer
            bytes.

    ``user_exponent`` and ``round_up_from`` were chosen on held-out training interactions of
    ncf-ml-1m, by ``benchmarks/embedding_tables.py``; neighbours are as good within its noise.

    Raises:
        TypeError, ValueError: a number out of range.

    Example:
        >>> TransformCoding(relative_error=0)
        Traceback (most recent call last):
        ValueError: relative_error is 0: expected a finite number above 0
    """

    relative_error: float = 0.1
    scale_users: bool = True
    user_exponent: float = 0.75
    round_up_from: float = 0.55
    contexts: str = "column"

    def __post_init__(self) -> None:
        check_choice("contexts", self.contexts, ("column", "size"))
        check_number("relative_error", self.relative_error, 0, include_low=False)
        for name, low in (("user_exponent", 0.0), ("round_up_from", 0.5)):
            if check_number(name, getattr(self, name), low) > 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}: expected a number from {low:g} to 1"
                )


class SteppedTensor(EncodedTensor):
    """Whole numbers of steps, a step for each column and, optionally, a scale for each row.

    Args:
        codes: (rows, columns) integers, 0 or more: number of steps less ``lowest``.
        lowest: (columns,) integers.
        steps: (columns,) positive numbers; stored as float16 of the largest.
        row_scale: (rows,) positive numbers, stored in 8 bits each, or None for 1.

    Raises:
        ValueError: a code beyond 1023, or other shapes than these.

    Example:
        >>> tensor = SteppedTensor(np.array([[0, 2], [1, 0]]), np.array([-1, 0]), np.ones(2))
        >>> tensor.decode().tolist()
        [[-1.0, 2.0], [0.0, 0.0]]
    """

    kind = "stepped"

    def __init__(
        self,
        codes: NDArray[np.integer],
        lowest: NDArray[np.integer],
        steps: NDArray[np.floating],
        row_scale: NDArray[np.floating] | None = None,
    ) -> None:
        rows, columns = codes.shape
        check_shape("lowest", lowest, (columns,))
        check_shape("steps", steps, (columns,))
        if codes.min() < 0 or codes.max() >= _MOST_LEVELS:
            raise ValueError(
                f"codes reach from {codes.min()} to {codes.max()}: expected 0 to "
                f"{_MOST_LEVELS - 1}; allow a larger error"
            )
        self.shape = (rows, columns)
        self.codes: NDArray[np.uint16] = codes.astype(np.uint16)
        self._lowest = lowest.astype(np.int16)
        self._unit = float(steps.max())
        self._steps = (steps / self._unit).astype(np.float16)
        self._scale_codes: NDArray[np.uint8] | None = None
        self._scale_range = [0.0, 0.0]
        if row_scale is not None:
            check_shape("row_scale", row_scale, (rows,))
            self._scale_codes, self._scale_range = scale_codes(row_scale)

    def header(self) -> dict[str, Any]:
        """Give bits (of a code before it is entropy coded), shape, unit of steps, row scales."""
        return {
            "bits": 16,
            "shape": list(self.shape),
            "unit": self._unit,
            "scale_range": self._scale_range,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the codes, lowest numbers, steps and row scales."""
        stored: dict[str, NDArray[Any]] = {
            "codes": self.codes.ravel(),
            "lowest": self._lowest,
            "steps": self._steps,
        }
        return stored if self._scale_codes is None else stored | {"row_scale": self._scale_codes}

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Put header and arrays together again."""
        rows, columns = header["shape"]
        codes = arrays["codes"].reshape(rows, columns)
        result = cls(codes, arrays["lowest"], np.ones(columns))
        result._unit, result._steps = header["unit"], arrays["steps"]
        result._scale_range = list(header["scale_range"])
        result._scale_codes = arrays.get("row_scale")
        return result

    def decode(self) -> NDArray[np.float32]:
        """Multiply whole numbers by steps and row scales."""
        whole = self.codes.astype(np.float32) + self._lowest
        values = whole * (self._steps.astype(np.float32) * np.float32(self._unit))
        return values if self._scale_codes is None else values * self.row_scale[:, None]

    @property
    def row_scale(self) -> NDArray[np.float32]:
        """The scales of rows as they are stored, (rows,); ones if there are none."""
        if self._scale_codes is None:
            return np.ones(self.shape[0], np.float32)
        return scales_of_codes(self._scale_codes, self._scale_range)


def transform_code(model: Factors, config: TransformCoding) -> CompressedModel:
    """Store both tables of a factor model in as few bytes as the error of its scores allows.

    Three ideas, each old:

    1. *Rotate.* Inner products do not change when both tables are written in principal axes
       (:func:`rotate_to_principal_axes`), so the rotation costs nothing and need not be stored.
       Columns are then uncorrelated, and a few of them hold most of what scores are made of.
    2. *Round where it is not felt.* An error e in column j of an item changes the score of user u
       by ``x_uj e``: what counts is the energy ``sum_u x_uj²`` of the column on the other side.
       With a step inversely proportional to its root, all columns contribute the same error, which
       is the best there is; columns that hold less than that become zeros by themselves. A table
       with n times as many rows costs n times as many bits, and gets a larger step, in proportion
       to the fourth root of n.
    3. *Code.* A range coder with a table of frequencies for each column spends bits only where
       there is information.

    Args:
        model: IALS or ALS, fitted; it stays as it is.
        config: choices.

    Returns:
        A new model in principal axes: its scores are those of ``model`` up to the error asked for,
        its vectors are not. The report's errors are those against the rotated tables.

    Raises:
        TypeError: no factor model.
        ValueError: an error so small that 1024 steps do not suffice, or tables of zeros.

    Source:
        Huang & Schultheiss, *Block Quantization of Correlated Gaussian Random Variables*, 1963;
        Goyal, *Theoretical Foundations of Transform Coding*, 2001.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> coded = transform_code(model, TransformCoding(relative_error=0.05))
        >>> bool(abs(coded.score([0], [1]) - model.score([0], [1]))[0] < 0.1)
        True
    """
    if not isinstance(model, Factors):
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a factor model such as IALS"
        )
    turned = rotate_to_principal_axes(model.user_vectors, model.item_vectors)
    users, items = turned.user_vectors, turned.item_vectors
    singular = turned.singular_values.astype(np.float64)
    if singular[0] <= 0:
        raise ValueError("model scores 0 everywhere: expected one that has learned something")
    root_mean_square = np.sqrt((singular**2).sum() / (len(users) * len(items)))
    ratio = np.sqrt(len(users) / len(items))
    unit = config.relative_error * root_mean_square
    unit /= np.sqrt(users.shape[1] / 12 * (ratio + 1 / ratio))
    # Columns without energy have nothing to store; any step will do.
    energy = np.maximum(singular, 1e-9 * singular[0])
    row_scale = None
    if config.scale_users:
        lengths = np.sqrt((users.astype(np.float64) ** 2 * (energy / len(items))).sum(axis=1))
        row_scale = np.maximum(lengths, 1e-6 * lengths.max()) ** config.user_exponent
        row_scale /= np.sqrt((row_scale**2).mean())
    steps = {
        "user_vectors": unit * ratio**0.5 / np.sqrt(energy / len(items)),
        "item_vectors": unit / ratio**0.5 / np.sqrt(energy / len(users)),
    }
    rotated = with_weights(model, {"user_vectors": users, "item_vectors": items})
    coded = {
        "user_vectors": _code(users, steps["user_vectors"], row_scale, config),
        "item_vectors": _code(items, steps["item_vectors"], None, config),
    }
    return store_weights("transform coding", config, rotated, coded)


def _code(
    table: NDArray[np.float32],
    steps: NDArray[np.float64],
    row_scale: NDArray[np.float64] | None,
    config: TransformCoding,
) -> EncodedTensor:
    scaled = table if row_scale is None else table / row_scale[:, None]
    in_steps = scaled / steps
    whole = np.sign(in_steps) * np.floor(np.abs(in_steps) + 1 - config.round_up_from)
    whole = whole.astype(np.int64)
    if config.contexts == "size":
        return ContextCodedTensor(whole, steps, row_scale)
    lowest = whole.min(axis=0)
    tensor = SteppedTensor(whole - lowest, lowest, steps, row_scale)
    return EntropyCodedTensor(tensor, EntropyCoding(contexts="column"))
