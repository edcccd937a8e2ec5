"""A model whose weights are stored in fewer bytes, and the report of what that did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recsys_lib.checks import Floats, check_type
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.models import Recommender


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
            differ, 0 where both are zero or where there was none before.
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
        >>> before = {"kernel": np.ones((4, 2), np.float32)}
        >>> compare_weights("nothing", None, before, {"kernel": DenseTensor(before["kernel"])})
        CompressionReport(nothing: 32 -> 69 bytes (0.46x smaller), sparsity 0.000, error 0.0000)
    """

    method: str
    config: Any
    tensors: tuple[TensorReport, ...]

    @property
    def bytes_before(self) -> int:
        """Return the bytes of all weights in float32."""
        return sum(tensor.bytes_before for tensor in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Return the stored bytes of all weights, with scales, codebooks, indices and headers."""
        return sum(tensor.bytes_after for tensor in self.tensors)

    @property
    def ratio(self) -> float:
        """Return bytes_before / bytes_after."""
        return self.bytes_before / self.bytes_after

    @property
    def sparsity(self) -> float:
        """Return the fraction of zeros in all weights after the step."""
        sizes = [float(np.prod(tensor.shape_after)) for tensor in self.tensors]
        return float(np.average([tensor.sparsity for tensor in self.tensors], weights=sizes))

    @property
    def relative_error(self) -> float:
        """Return the largest relative error of a weight; NaN if a shape changed."""
        return float(np.max([tensor.relative_error for tensor in self.tensors]))

    def __repr__(self) -> str:
        return (
            f"CompressionReport({self.method}: {self.bytes_before:,} -> {self.bytes_after:,} bytes "
            f"({self.ratio:.2f}x smaller), sparsity {self.sparsity:.3f}, "
            f"error {self.relative_error:.4f})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each weight."""
        return pd.DataFrame([vars(tensor) for tensor in self.tensors])


def compare_weights(
    method: str, config: Any, before: Mapping[str, Floats], after: Mapping[str, EncodedTensor]
) -> CompressionReport:
    """Return the report of a step from the weights before it and what is stored after it.

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
                0.0 if old is None else relative_error(old, values) if same else float("nan"),
            )
        )
    return CompressionReport(method, config, tuple(rows))


def relative_error(before: Floats, after: Floats) -> float:
    """Return ``|before - after| / |before|``, Frobenius norms; 0 for two arrays of zeros.

    Example:
        >>> round(relative_error(np.float32([3, 4]), np.float32([3, 0])), 6)
        0.8
    """
    norm = float(np.linalg.norm(before.astype(np.float64)))
    error = float(np.linalg.norm(before.astype(np.float64) - after))
    return error / norm if norm else error


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """Stored weights, the model that they decode to, and the report of how they came about.

    Args:
        tensors: the stored form of every weight, by name.
        model: a model of the same kind as the original, whose weights are the decoded ones.
        report: bytes, sparsity and error.
    """

    tensors: Mapping[str, EncodedTensor]
    model: Any
    report: CompressionReport

    @property
    def nbytes(self) -> int:
        """Return the stored bytes of all weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> Floats:
        """Score pairs (n,), (n,) to (n,), as :meth:`recsys_lib.models.Recommender.score`."""
        return self._scorer.score(user_ids, item_ids)

    def score_all_items(self, user_ids: ArrayLike) -> Floats:
        """Score all items for users (b,): (b, num_items) float32.

        Raises:
            TypeError: a plain Keras model, which does not know what all items are.
        """
        check_type("model", self.model, (Recommender,), " to score all items (KerasRecommender)")
        return self.model.score_all_items(user_ids)

    def __repr__(self) -> str:
        return f"CompressedModel({type(self.model).__name__}, {self.report!r})"

    _scorer = cached_property(lambda self: scorer_of(self.model))


def scorer_of(model: Any) -> Any:
    """Return the model, or what scores pairs with it for a plain Keras model."""
    if hasattr(model, "score"):
        return model
    from recsys_lib.training import KerasScorer

    return KerasScorer(model)


def store_weights(
    method: str, config: Any, model: Any, tensors: Mapping[str, EncodedTensor]
) -> CompressedModel:
    """Put stored forms in the place of some weights of a model and report the difference.

    Args:
        method: name of the step.
        config: its choices.
        model: factor model, Keras model or KerasRecommender; it stays as it is.
        tensors: stored forms by name of weight; the other weights stay float32.

    Returns:
        A new model. Equal tensors of before and after are 0 apart.

    Raises:
        ValueError: an unknown name or another shape.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 20, 30))
        >>> half = {name: DenseTensor(w, "float16") for name, w in named_weights(model).items()}
        >>> compressed = store_weights("float16", None, model, half)
        >>> round(compressed.report.ratio, 1), compressed.score([3], [5]).shape
        (2.0, (1,))
    """
    before = named_weights(model)
    new = with_weights(model, {name: tensor.decode() for name, tensor in tensors.items()})
    stored = {name: tensors.get(name) or DenseTensor(values) for name, values in before.items()}
    return CompressedModel(stored, new, compare_weights(method, config, before, stored))
