"""Recipes: several compression steps as one list, measured after each, in one file."""

from recsys_lib.recipe.compress import CompressionResult, Stage, compress
from recsys_lib.recipe.measure import hold_out_users
from recsys_lib.recipe.search import (
    RecipeSearch,
    Trial,
    default_recipes,
    search_recipe,
)
from recsys_lib.recipe.steps import (
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
    "Prune",
    "Quantize",
    "RecipeSearch",
    "ReduceDimensions",
    "Stage",
    "Trial",
    "check_recipe",
    "compress",
    "default_recipes",
    "hold_out_users",
    "search_recipe",
]
