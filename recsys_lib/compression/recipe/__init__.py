"""Recipes: several compression steps as one list, measured after each, in one file."""

from recsys_lib.compression.recipe.compress import CompressionResult, Stage, compress
from recsys_lib.compression.recipe.factors import Factors, FoldIn, as_factors
from recsys_lib.compression.recipe.files import load_compressed, save_compressed
from recsys_lib.compression.recipe.measure import hold_out_users
from recsys_lib.compression.recipe.search import (
    SearchResult,
    Trial,
    default_recipes,
    search_recipe,
)
from recsys_lib.compression.recipe.steps import (
    Distill,
    EntropyCode,
    Prune,
    Quantize,
    ReduceDimensions,
    check_recipe,
)

__all__ = [
    "CompressionResult",
    "Distill",
    "EntropyCode",
    "Factors",
    "FoldIn",
    "Prune",
    "Quantize",
    "ReduceDimensions",
    "SearchResult",
    "Stage",
    "Trial",
    "as_factors",
    "check_recipe",
    "compress",
    "default_recipes",
    "hold_out_users",
    "load_compressed",
    "save_compressed",
    "search_recipe",
]
