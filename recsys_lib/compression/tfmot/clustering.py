"""Weight clustering by TFMOT: few different values in each weight, trained on the twin."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_lib.checks import check_choice, check_number
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.quantization.codebooks import CodebookQuantization
from recsys_lib.compression.tfmot.training import TwinTraining, check_data, fit_twin
from recsys_lib.compression.tfmot.twin import (
    chosen_weights,
    load_tfmot,
    store_twin,
    to_twin,
    wrap_layers,
)
from recsys_lib.compression.weights import named_weights
from recsys_lib.data import Interactions

_KEEPING = "tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster"
_STARTS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "density": "DENSITY_BASED",
    "linear": "LINEAR",
    "random": "RANDOM",
}


@dataclass(frozen=True)
class TfmotClustering:
    """How TFMOT clusters weights.

    Args:
        num_clusters: values in the codebook of each weight, from 2 to 256.
        start: "kmeans++", "density", "linear" or "random"; the name tells how TFMOT chooses the
            first centroids, which training then moves. It does not run k-means.
        preserve_sparsity: keep a centroid at zero and what is zero there; needs 3 clusters.
        layers: names; None for all Dense and Embedding layers whose weight has more numbers than
            there are clusters.
        training: how the twin is trained.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Example:
        >>> TfmotClustering(300)
        Traceback (most recent call last):
        ValueError: num_clusters is 300: expected at most 256
    """

    num_clusters: int = 16
    start: str = "kmeans++"
    preserve_sparsity: bool = False
    layers: Sequence[str] | None = None
    training: TwinTraining = field(default_factory=TwinTraining)

    def __post_init__(self) -> None:
        lowest = 3 if self.preserve_sparsity else 2
        check_number("num_clusters", self.num_clusters, lowest, integer=True)
        if self.num_clusters > 256:
            raise ValueError(f"num_clusters is {self.num_clusters}: expected at most 256")
        check_choice("start", self.start, _STARTS)


def cluster_with_tfmot(
    model: Any, interactions: Interactions, config: TfmotClustering
) -> CompressedModel:
    """Cluster the weights of a rating model while TFMOT trains its twin.

    Args:
        model: as for :func:`to_twin`; it stays as it is.
        interactions: what to train on.
        config: how to cluster, and how to train.

    Returns:
        The clustered weights, stored as codebook and codes, in a model of the same kind.

    Raises:
        ModuleNotFoundError: TFMOT is not installed (``pip install recsys-lib[tfmot]``).
        TypeError, ValueError: as :func:`to_twin`; layers that cannot be clustered or have fewer
            numbers than clusters, or data that does not fit the model.

    Source:
        Han, Mao & Dally, *Deep Compression*, ICLR 2016, section 3.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 4, 5, 8))
        >>> data = Interactions([0, 0, 1, 1, 2, 3], [0, 1, 1, 2, 3, 4])
        >>> brief = TwinTraining(epochs=1)
        >>> clustered = cluster_with_tfmot(model, data, TfmotClustering(4, training=brief))
        >>> {tensor.kind for tensor in clustered.tensors.values()}
        {'codebook'}
    """
    if not isinstance(config, TfmotClustering):
        raise TypeError(f"config is of type {type(config).__name__}: expected TfmotClustering")
    weights = chosen_weights(model, config.layers)
    check_data(interactions, config.training, read_config(model))
    sizes = {name: named_weights(model)[name].size for name in weights.values()}
    few = [layer for layer, name in weights.items() if sizes[name] <= config.num_clusters]
    if few and config.layers is not None:
        raise ValueError(
            f"num_clusters is {config.num_clusters}: expected fewer than the "
            f"{sizes[weights[few[0]]]} numbers of layer {few[0]!r}"
        )
    weights = {layer: name for layer, name in weights.items() if layer not in few}
    clustering = load_tfmot().clustering.keras
    start = getattr(clustering.CentroidInitialization, _STARTS[config.start])
    cluster = clustering.cluster_weights
    if config.preserve_sparsity:
        keeping = importlib.import_module(_KEEPING).cluster_weights
        cluster = functools.partial(keeping, preserve_sparsity=True)
    twin = wrap_layers(
        to_twin(model), lambda layer: cluster(layer, config.num_clusters, start), weights
    )
    fit_twin(twin, interactions, config.training)
    stored_as = CodebookQuantization((config.num_clusters - 1).bit_length(), dtype="float32")
    store = dict.fromkeys(weights.values(), stored_as.encode)  # exact: values are few
    return store_twin("TFMOT clustering", config, model, twin, store)
