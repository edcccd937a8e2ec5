"""A model whose weights are stored in fewer bytes, and which scores like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.compression.report import CompressionReport, compare_weights
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.models import Recommender


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
        """Stored bytes of all weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def score(self, user_ids: ArrayLike, item_ids: ArrayLike) -> NDArray[np.float32]:
        """Score pairs (n,), (n,) to (n,), as :meth:`recsys_lib.models.Recommender.score`."""
        return self._scorer.score(user_ids, item_ids)

    def score_all_items(self, user_ids: ArrayLike) -> NDArray[np.float32]:
        """Score all items for users (b,): (b, num_items) float32.

        Raises:
            TypeError: a plain Keras model, which does not know what all items are.
        """
        if not isinstance(self.model, Recommender):
            raise TypeError(
                f"model is of type {type(self.model).__name__}: expected a Recommender to score "
                "all items (a KerasRecommender, for example)"
            )
        return self.model.score_all_items(user_ids)

    def __repr__(self) -> str:
        return f"CompressedModel({type(self.model).__name__}, {self.report!r})"

    @cached_property
    def _scorer(self) -> Any:
        if isinstance(self.model, Recommender):
            return self.model
        from recsys_lib.training import KerasScorer

        return KerasScorer(self.model)


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
