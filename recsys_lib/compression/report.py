"""What a compression step did: bytes before and after, zeros, error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.compression.tensors import EncodedTensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TensorReport:
    """One weight, before and after.

    Args:
        name: of the weight.
        stored_as: kind of the stored form, such as "dense", "uniform" or "csr".
        shape_before: of the weight.
        shape_after: of what replaces it; smaller after structured pruning.
        bytes_before: of the float32 array.
        bytes_after: of all that has to be stored, see ``EncodedTensor.nbytes``.
        sparsity: fraction of zeros after the step.
        relative_error: ``|before - after| / |before|`` (Frobenius norms); NaN where the shapes
            differ, 0 where both are zero.
    """

    name: str
    stored_as: str
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    sparsity: float
    relative_error: float


@dataclass(frozen=True, repr=False)
class CompressionReport:
    """What a compression step did to a model. Prints as one line; ``to_frame`` gives the weights.

    Args:
        method: name of the step, such as "uniform quantization".
        config: the frozen dataclass with all its choices.
        tensors: one entry for each weight.

    Example:
        >>> from recsys_lib.compression.tensors import DenseTensor
        >>> before = {"kernel": np.ones((4, 2), np.float32)}
        >>> compare_weights("nothing", None, before, {"kernel": DenseTensor(before["kernel"])})
        CompressionReport(nothing: 32 -> 69 bytes (0.46x smaller), sparsity 0.000, error 0.0000)
    """

    method: str
    config: Any
    tensors: tuple[TensorReport, ...]

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights in float32."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Stored bytes of all weights, with scales, codebooks, indices and headers."""
        return sum(tensor.bytes_after for tensor in self.tensors)

    @property
    def ratio(self) -> float:
        """bytes_before / bytes_after."""
        return self.bytes_before / self.bytes_after

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in all weights after the step."""
        sizes = [float(np.prod(tensor.shape_after)) for tensor in self.tensors]
        return float(np.average([tensor.sparsity for tensor in self.tensors], weights=sizes))

    @property
    def relative_error(self) -> float:
        """Largest relative error of a weight; NaN if a shape changed."""
        return float(np.max([tensor.relative_error for tensor in self.tensors]))

    def __repr__(self) -> str:
        return (
            f"CompressionReport({self.method}: {self.bytes_before:,} -> {self.bytes_after:,} bytes "
            f"({self.ratio:.2f}x smaller), sparsity {self.sparsity:.3f}, "
            f"error {self.relative_error:.4f})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row for each weight."""
        import pandas as pd

        return pd.DataFrame([vars(tensor) for tensor in self.tensors])


def compare_weights(
    method: str,
    config: Any,
    before: Mapping[str, NDArray[np.float32]],
    after: Mapping[str, EncodedTensor],
) -> CompressionReport:
    """Make the report of a step from the weights before it and what is stored after it.

    Args:
        method: name of the step.
        config: its choices.
        before: weights by name.
        after: stored forms under the same names; a weight that is missing here was removed
            (0 bytes), and one that is only here was added.
    """
    rows = []
    for name in dict.fromkeys([*before, *after]):
        old, new = before.get(name), after.get(name)
        values = np.zeros(0, np.float32) if new is None else new.decode()
        same = old is not None and old.shape == values.shape
        rows.append(
            TensorReport(
                name,
                "removed" if new is None else new.kind,
                () if old is None else old.shape,
                values.shape,
                0 if old is None else old.size * 4,
                0 if new is None else new.nbytes,
                float(np.mean(values == 0)) if values.size else 0.0,
                relative_error(old, values) if old is not None and same else float("nan"),
            )
        )
    return CompressionReport(method, config, tuple(rows))


def relative_error(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Give ``|before - after| / |before|``, Frobenius norms; 0 for two arrays of zeros.

    Example:
        >>> round(relative_error(np.float32([3, 4]), np.float32([3, 0])), 6)
        0.8
    """
    norm = float(np.linalg.norm(before.astype(np.float64)))
    error = float(np.linalg.norm(before.astype(np.float64) - after))
    return error / norm if norm else error
