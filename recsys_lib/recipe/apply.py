"""Run one step of a recipe: from one compressed model to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.embedding_tables import compress_tables
from recsys_lib.compression.pruning import DimensionReduction, prune_weights, reduce_dimensions
from recsys_lib.compression.quantization import (
    EntropyCodedTensor,
    RateDistortion,
    TransformCoding,
    rate_distortion_tables,
    transform_code,
)
from recsys_lib.data import Interactions
from recsys_lib.models.factors import Factors, as_factors
from recsys_lib.recipe.steps import (
    Distill,
    EntropyCode,
    Prune,
    Quantize,
    ReduceDimensions,
    Step,
)


@dataclass(frozen=True, eq=False)
class State:
    """What one step hands to the next.

    Args:
        compressed: the model as it is stored now.
        quantization: how its numbers are rounded, None for not at all.
    """

    compressed: CompressedModel
    quantization: Any = None

    @property
    def model(self) -> Factors:
        """The model that the stored forms decode to."""
        return as_factors(self.compressed.model)


def start(model: Any) -> State:
    """Give the state before the first step: two tables in float32.

    Example:
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> start(model).compressed.report.relative_error
        0.0
    """
    return State(store_weights("float32", None, as_factors(model), {}))


def apply_step(step: Step, state: State, train: Interactions) -> State:
    """Run a step; ``state`` stays as it is.

    Args:
        step: one of the recipe.
        state: what came before.
        train: interactions to train on; only Distill does.

    Raises:
        TypeError, ValueError: from the function that the step stands for.

    Example:
        >>> from recsys_lib.models import IALS
        >>> data = Interactions([0, 0, 1, 2], [0, 1, 1, 2])
        >>> state = apply_step(Quantize(), start(IALS(embedding_dim=4).fit(data)), data)
        >>> state.compressed.tensors["item_vectors"].kind
        'uniform'
    """
    return _RUN[type(step)](step, state, train)


def _distill(step: Distill, state: State, train: Interactions) -> State:
    from recsys_lib.compression.distillation import distill
    from recsys_lib.models import RatingModelConfig

    teacher = state.model
    config = RatingModelConfig(step.kind, train.num_users, train.num_items, step.embedding_dim)
    methods = step.method if isinstance(step.method, tuple) else (step.method,)
    methods = () if step.method is None else methods
    result = distill(teacher, config, train, *methods, **step.options)
    return start(result.model)


def _reduce(step: ReduceDimensions, state: State, train: Interactions) -> State:
    config = DimensionReduction(step.embedding_dim, step.axes)
    return State(reduce_dimensions(state.model, config))


def _prune(step: Prune, state: State, train: Interactions) -> State:
    pruned = prune_weights(state.model, step.config)
    if state.quantization is None:
        return State(pruned)
    # Zero is one of the numbers (the recipe was checked), so rounding again keeps the zeros.
    return State(compress_tables(pruned.model, state.quantization), state.quantization)


def _quantize(step: Quantize, state: State, train: Interactions) -> State:
    if isinstance(step.config, TransformCoding):
        return State(transform_code(state.model, step.config), step.config)
    if isinstance(step.config, RateDistortion):
        return State(
            rate_distortion_tables(state.model, step.config, train, step.teacher), step.config
        )
    return State(compress_tables(state.model, step.config), step.config)


def _entropy_code(step: EntropyCode, state: State, train: Interactions) -> State:
    coded = {
        name: EntropyCodedTensor(tensor, step.config) if hasattr(tensor, "codes") else tensor
        for name, tensor in state.compressed.tensors.items()
    }
    compressed = store_weights("entropy coding", step.config, state.model, coded)
    return replace(state, compressed=compressed)


_RUN: dict[type, Callable[[Any, State, Interactions], State]] = {
    Distill: _distill,
    ReduceDimensions: _reduce,
    Prune: _prune,
    Quantize: _quantize,
    EntropyCode: _entropy_code,
}
