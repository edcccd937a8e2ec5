"""Pruning: fewer weights. Masks set single weights to zero; structured pruning shrinks shapes."""

from recsys_lib.compression.pruning.dimensions import (
    DimensionReduction,
    PrincipalAxes,
    reduce_dimensions,
    rotate_to_principal_axes,
)
from recsys_lib.compression.pruning.importance import neuron_importance
from recsys_lib.compression.pruning.inference import SparseMLP
from recsys_lib.compression.pruning.layers import LayerRemoval, ablate_layers, drop_layer
from recsys_lib.compression.pruning.masks import global_magnitude_masks, magnitude_mask
from recsys_lib.compression.pruning.neurons import NeuronPruning, prune_neurons, remove_neurons
from recsys_lib.compression.pruning.rows import FewerRows, RowMap, RowRemoval, remove_rows
from recsys_lib.compression.pruning.schedules import (
    ConstantSchedule,
    PolynomialSchedule,
    Schedule,
)
from recsys_lib.compression.pruning.sparse import (
    BitmapTensor,
    CSRTensor,
    break_even_sparsity,
    store_sparse,
)
from recsys_lib.compression.pruning.training import PrunedModel, fit_pruned
from recsys_lib.compression.pruning.weights import WeightPruning, prune_weights

__all__ = [
    "BitmapTensor",
    "CSRTensor",
    "ConstantSchedule",
    "DimensionReduction",
    "FewerRows",
    "LayerRemoval",
    "NeuronPruning",
    "PolynomialSchedule",
    "PrincipalAxes",
    "PrunedModel",
    "RowMap",
    "RowRemoval",
    "Schedule",
    "SparseMLP",
    "WeightPruning",
    "ablate_layers",
    "break_even_sparsity",
    "drop_layer",
    "fit_pruned",
    "global_magnitude_masks",
    "magnitude_mask",
    "neuron_importance",
    "prune_neurons",
    "prune_weights",
    "reduce_dimensions",
    "remove_neurons",
    "remove_rows",
    "rotate_to_principal_axes",
    "store_sparse",
]
