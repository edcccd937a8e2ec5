"""Pruning: fewer weights. Masks set single weights to zero; structured pruning shrinks shapes.

One verb, :func:`prune`, takes a model and a config that says what goes.
"""

from recsys_lib.compression.pruning.hidden import (
    LayerRemoval,
    NeuronPruning,
    ablate_layers,
    neuron_importance,
    remove_neurons,
)
from recsys_lib.compression.pruning.prune import prune
from recsys_lib.compression.pruning.rating_models import sample_pairs
from recsys_lib.compression.pruning.sparse import SparseMLP, break_even_sparsity, store_sparse
from recsys_lib.compression.pruning.tables import (
    DimensionReduction,
    FewerRows,
    PrincipalAxes,
    RowRemoval,
    rotate_to_principal_axes,
)
from recsys_lib.compression.pruning.training import PolynomialSchedule, PrunedModel, fit_pruned
from recsys_lib.compression.pruning.weights import WeightPruning, magnitude_mask

__all__ = [
    "DimensionReduction", "FewerRows", "LayerRemoval", "NeuronPruning", "PolynomialSchedule",
    "PrincipalAxes", "PrunedModel", "RowRemoval", "SparseMLP", "WeightPruning", "ablate_layers",
    "break_even_sparsity", "fit_pruned", "magnitude_mask", "neuron_importance", "prune",
    "remove_neurons", "rotate_to_principal_axes", "sample_pairs", "store_sparse",
]  # fmt: skip
