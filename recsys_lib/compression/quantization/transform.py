"""Transform coding: turn the axes of both tables, round each with a step of its own, code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_type, store_flags, store_numbers
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning.tables import rotate_to_principal_axes, rotate_to_user_axes
from recsys_lib.compression.quantization.entropy import EntropyCodedTensor, EntropyCoding
from recsys_lib.compression.quantization.uniform import Array
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import with_weights
from recsys_lib.models.factors import Factors

_MOST = 2000  # largest number of steps


@dataclass(frozen=True)
class TransformCoding:
    """How to store both tables of a factor model in as few bytes as an error of scores allows.

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

    Biases, if the model has them, stay in float32.

    Args:
        relative_error: how far scores may be off: an upper bound on the root mean square of the
            error, as a share of the root mean square of the inner products. The one dial to turn.
        scale_users: give a user whose scores are n times as large ``n ** user_exponent`` times the
            error, for one more byte a user. A ranking compares scores of one user, so users with
            small scores need finer steps.
        user_exponent: 0 to 1.
        round_up_from: 0.5 to 1, the part of a step from which a number is rounded up. More than
            .5 makes more zeros, which are cheapest to code: at equal bytes the finer step that
            this pays for is worth more.
        contexts: "column" codes each column with frequencies of its own; "size" each number with
            those of numbers of about its size (:class:`EntropyCoding`): equal vectors, fewer bytes.
        scale_items: multiply each item by what makes its inner product with its rounded self that
            with itself again (at most 4), for one more byte an item. Rounding with more zeros
            shortens rows, those of rare items most, and a shorter row falls out of all lists.
        axes: "principal" as above; "rotation" for files of items only: it keeps all lengths
            (:func:`rotate_to_user_axes`), so that a history is folded in to what it was before.

    ``user_exponent`` and ``round_up_from`` were chosen on held-out training interactions of
    ncf-ml-1m, by ``benchmarks/embedding_tables.py``; neighbours are as good within its noise.

    Raises:
        TypeError, ValueError: a number out of range.

    Source:
        Huang & Schultheiss, *Block Quantization of Correlated Gaussian Random Variables*, 1963;
        Goyal, *Theoretical Foundations of Transform Coding*, 2001.

    Example:
        >>> from recsys_lib.compression.quantization import quantize
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> coded = quantize(model, TransformCoding(relative_error=0.05))
        >>> bool(abs(coded.score([0], [1]) - model.score([0], [1]))[0] < 0.1)
        True
        >>> TransformCoding(relative_error=0)
        Traceback (most recent call last):
        ValueError: relative_error is 0: expected a finite number above 0
    """

    relative_error: float = 0.1
    scale_users: bool = True
    user_exponent: float = 0.75
    round_up_from: float = 0.55
    contexts: str = "column"
    axes: str = "principal"
    scale_items: bool = False

    def __post_init__(self) -> None:
        check_choice("axes", self.axes, ("principal", "rotation"))
        check_choice("contexts", self.contexts, ("column", "size"))
        store_flags(self, "scale_users", "scale_items")
        store_numbers(self, 0, "relative_error", include_low=False)
        store_numbers(self, 0, "user_exponent", high=1)
        store_numbers(self, 0.5, "round_up_from", high=1)

    def compress(self, model: Factors) -> CompressedModel:
        """Return a new model in principal axes; see :func:`quantize`.

        Its scores are those of ``model`` up to the error asked for, its vectors are not. The
        report's errors are those against the rotated tables.

        Raises:
            TypeError: no factor model.
            ValueError: an error so small that 2000 steps do not suffice, or tables of zeros.
        """
        check_type("model", model, (Factors,), " such as IALS")
        users, items, energies, root_mean_square = self._turn(model._users(), model.item_vectors)
        if root_mean_square <= 0:
            raise ValueError("model scores 0 everywhere: expected one that has learned something")
        ratio = np.sqrt(len(users) / len(items))
        unit = self.relative_error * root_mean_square
        unit /= np.sqrt(users.shape[1] / 12 * (ratio + 1 / ratio))
        # Columns without energy have nothing to store; any step will do.
        of_users, of_items = (np.maximum(e, 1e-9 * e.max()) for e in energies)
        row_scale = None
        if self.scale_users:
            lengths = np.sqrt((users.astype(np.float64) ** 2 * (of_items / len(items))).sum(axis=1))
            row_scale = np.maximum(lengths, 1e-6 * lengths.max()) ** self.user_exponent
            row_scale /= np.sqrt((row_scale**2).mean())
        user_steps = unit * ratio**0.5 / np.sqrt(of_items / len(items))
        item_steps = unit / ratio**0.5 / np.sqrt(of_users / len(users))
        rotated = with_weights(model, {"user_vectors": users, "item_vectors": items})
        coded = {
            "user_vectors": self._code(users, user_steps, row_scale),
            "item_vectors": self._code(items, item_steps, None, scale_again=self.scale_items),
        }
        return store_weights("transform coding", self, rotated, coded)

    def _turn(self, users: Array, items: Array) -> tuple[Array, Array, list[Array], float]:
        """Return both tables in new axes, the energy of their columns, and the size of scores."""
        if self.axes == "principal":
            turned = rotate_to_principal_axes(users, items)
            singular = turned.singular_values.astype(np.float64)
            square = (singular**2).sum() / (len(users) * len(items))
            return turned.user_vectors, turned.item_vectors, [singular, singular], square**0.5
        users, items = rotate_to_user_axes(users, items)
        grams = [table.T @ table for table in (users.astype(np.float64), items.astype(np.float64))]
        square = (grams[0] * grams[1]).sum() / (len(users) * len(items))
        return users, items, [np.diag(gram) for gram in grams], max(float(square), 0.0) ** 0.5

    def _code(
        self, table: Array, steps: Array, row_scale: Array | None, scale_again: bool = False
    ) -> EntropyCodedTensor:
        scaled = table if row_scale is None else table / row_scale[:, None]
        in_steps = scaled / steps
        whole = np.sign(in_steps) * np.floor(np.abs(in_steps) + 1 - self.round_up_from)
        if scale_again:
            kept = (table * whole * steps).sum(axis=1)
            full = (table.astype(np.float64) ** 2).sum(axis=1)
            row_scale = np.clip(full / np.where(kept > 0, kept, np.maximum(full, 1e-30)), 0.5, 4)
        tensor = SteppedTensor(whole.astype(np.int64), steps, row_scale)
        return EntropyCoding(self.contexts).encode(tensor)


class SteppedTensor(EncodedTensor):
    """Whole numbers of steps, a step for each column and, optionally, a scale for each row.

    Args:
        whole: (rows, columns) integers from -2000 to 2000.
        steps: (columns,) positive numbers; stored as float16 of the largest.
        row_scale: (rows,) positive numbers, stored in 8 bits each, or None for 1.

    Raises:
        ValueError: a number beyond that.

    Example:
        >>> SteppedTensor(np.array([[-1, 2], [0, 0]]), np.array([1, 0.5])).decode().tolist()
        [[-1.0, 1.0], [0.0, 0.0]]
    """

    kind = "stepped"
    settings = ("unit", "scale_range")

    def __init__(self, whole: Array, steps: Array, row_scale: Array | None = None) -> None:
        rows, columns = whole.shape
        if np.abs(whole).max() > _MOST:
            raise ValueError(f"whole reaches {np.abs(whole).max()}: allow a larger error")
        unit = float(steps.max())
        header: dict[str, Any] = {"shape": [rows, columns], "unit": unit}
        arrays: dict[str, NDArray[Any]] = {
            "codes": (2 * np.abs(whole) - (whole < 0)).astype(np.uint16),
            "steps": (steps / unit).astype(np.float16),
        }
        if row_scale is not None:
            logs = np.log2(row_scale)
            low, step = float(logs.min()), float(np.ptp(logs)) / 255
            header["scale_range"] = [low, step]
            arrays["row_scale"] = np.rint((logs - low) / max(step, 1e-30)).astype(np.uint8)
        super().__init__(header, arrays)

    @property
    def codes(self) -> NDArray[np.uint16]:
        """Return the numbers of steps 0, -1, 1, -2, 2 ... as codes 0, 1, 2, 3, 4 ..."""
        return self._arrays["codes"]

    @property
    def whole(self) -> NDArray[np.int16]:
        """Return the signed numbers of steps."""
        half = ((self.codes + 1) // 2).astype(np.int16)
        return np.where(self.codes % 2, -half, half)

    def decode(self) -> NDArray[np.float32]:
        """Multiply whole numbers by steps and row scales."""
        steps = self._arrays["steps"].astype(np.float32) * np.float32(self._header["unit"])
        values = self.whole.astype(np.float32) * steps
        if "row_scale" not in self._arrays:
            return values
        low, step = self._header["scale_range"]
        return values * np.exp2(low + step * self._arrays["row_scale"]).astype(np.float32)[:, None]
