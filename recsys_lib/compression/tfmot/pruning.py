"""Weight pruning by TFMOT: masks, schedules and training on the twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_lib.checks import check_choice, check_number, check_sparsity
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.masks import check_units, num_kept
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.pruning.sparse import store_sparse
from recsys_lib.compression.tfmot.training import (
    TwinTraining,
    check_data,
    fit_twin,
    num_updates,
)
from recsys_lib.compression.tfmot.twin import (
    chosen_weights,
    load_tfmot,
    store_twin,
    to_twin,
    wrap_layers,
)
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions

GRANULARITIES = ("element", "block", "n_of_m")


@dataclass(frozen=True)
class TfmotPruning:
    """What TFMOT prunes; the words are those of ``pruning.magnitude_mask``.

    Args:
        sparsity: fraction of zeros in the weight of each layer, in [0, 1); of each group for
            "n_of_m".
        granularity: "element"; "block", of sizes that divide each weight into two or more each
            way; or "n_of_m" along the inputs of Dense layers and the rows of tables, at once and
            not by a schedule.
        block_size: rows and columns of a block.
        pooling: "mean" or "max" of ``|w|`` in a block.
        group_size: m of n_of_m.
        schedule: "constant", or "polynomial" from 0 (Zhu & Gupta 2017).
        ramp: share of the updates after which "polynomial" has reached ``sparsity``, in (0, 1].
        layers: names; None for all Dense and Embedding layers.
        training: how the twin is trained.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Example:
        >>> TfmotPruning(1.0)
        Traceback (most recent call last):
        ValueError: sparsity is 1.0: expected a number in [0, 1)
    """

    sparsity: float = 0.5
    granularity: str = "element"
    block_size: tuple[int, int] = (4, 4)
    pooling: str = "mean"
    group_size: int = 4
    schedule: str = "polynomial"
    ramp: float = 0.75
    layers: Sequence[str] | None = None
    training: TwinTraining = field(default_factory=TwinTraining)

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        check_choice("granularity", self.granularity, GRANULARITIES)
        check_units(self.block_size, self.pooling, self.group_size)
        check_choice("schedule", self.schedule, ("constant", "polynomial"))
        check_number("ramp", self.ramp, 0, include_low=False)
        if self.ramp > 1:
            raise ValueError(f"ramp is {self.ramp}: expected a number in (0, 1]")


def prune_with_tfmot(
    model: Any, interactions: Interactions, config: TfmotPruning
) -> CompressedModel:
    """Prune a rating model while TFMOT trains its twin.

    Args:
        model: as for :func:`to_twin`; it stays as it is.
        interactions: what to train on.
        config: what to prune, and how to train.

    Returns:
        The pruned weights, stored sparse where that is smaller, in a model of the same kind.

    Raises:
        ModuleNotFoundError: TFMOT is not installed (``pip install recsys-lib[tfmot]``).
        TypeError, ValueError: as :func:`to_twin`; layers that cannot be pruned, blocks that do not
            fit a weight, or data that does not fit the model.

    Source:
        Zhu & Gupta, *To prune, or not to prune*, 2017.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 4, 5, 8))
        >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
        >>> brief = TwinTraining(epochs=1)
        >>> pruned = prune_with_tfmot(model, data, TfmotPruning(0.75, training=brief))
        >>> pruned.report.sparsity
        0.75
    """
    if not isinstance(config, TfmotPruning):
        raise TypeError(f"config is of type {type(config).__name__}: expected TfmotPruning")
    weights = chosen_weights(model, config.layers)
    check_data(interactions, config.training, read_config(model))
    _check_blocks({name: named_weights(model)[name].shape for name in weights.values()}, config)
    tfmot = load_tfmot()
    options = _wrapper_options(tfmot, config, num_updates(interactions, config.training))
    twin = wrap_layers(
        to_twin(model),
        lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, **options),
        weights,
    )
    fit_twin(twin, interactions, config.training, [tfmot.sparsity.keras.UpdatePruningStep()])
    return store_twin(
        "TFMOT pruning", config, model, twin, dict.fromkeys(weights.values(), store_sparse)
    )


def _wrapper_options(tfmot: Any, config: TfmotPruning, steps: int) -> dict[str, Any]:
    """Translate to the arguments of TFMOT; masks follow the weights about 100 times a run."""
    frequency = max(1, steps // 100)
    if config.schedule == "constant" or config.granularity == "n_of_m":
        # Steps count from 1 here, and are acted on only at begin_step + a multiple.
        schedule = tfmot.sparsity.keras.ConstantSparsity(config.sparsity, 1, frequency=frequency)
    else:
        # The last change has to fall on a multiple, or the final sparsity is never reached.
        end = frequency * max(1, int(config.ramp * steps) // frequency)
        schedule = tfmot.sparsity.keras.PolynomialDecay(
            0.0, config.sparsity, 0, end, frequency=frequency
        )
    options: dict[str, Any] = {"pruning_schedule": schedule}
    if config.granularity == "block":
        pooling = {"mean": "AVG", "max": "MAX"}[config.pooling]
        options |= {"block_size": config.block_size, "block_pooling_type": pooling}
    if config.granularity == "n_of_m":
        zeros = config.group_size - num_kept(config.group_size, config.sparsity)
        options["sparsity_m_by_n"] = (zeros, config.group_size)
    return options


def _check_blocks(shapes: dict[str, tuple[int, ...]], config: TfmotPruning) -> None:
    if config.granularity != "block":
        return
    for name, shape in shapes.items():
        pairs = list(zip(shape, config.block_size, strict=True))
        if any(length % size or length == size for length, size in pairs):
            raise ValueError(
                f"block_size is {config.block_size}: expected one that divides {name} of shape "
                f"{shape} into two or more each way (TFMOT measures other windows than it removes "
                "at borders, and fails on one); name the layers that it fits with layers=..."
            )
