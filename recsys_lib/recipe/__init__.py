"""Recipes: several compression steps as one list, measured after each, in one file."""

from recsys_lib.recipe.compress import CompressionResult, compress
from recsys_lib.recipe.measure import hold_out_users
from recsys_lib.recipe.report import SeedRuns, compare_models, compress_seeds
from recsys_lib.recipe.search import RecipeSearch, Trial, search_recipe
from recsys_lib.recipe.steps import Distill, EntropyCode, Prune, Quantize, ReduceDimensions

__all__ = [
    "CompressionResult", "Distill", "EntropyCode", "Prune", "Quantize", "RecipeSearch",
    "ReduceDimensions", "SeedRuns", "Trial", "compare_models", "compress", "compress_seeds",
    "hold_out_users", "search_recipe",
]  # fmt: skip
