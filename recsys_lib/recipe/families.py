"""Families of recipes to search in, each from mild to harsh."""

from __future__ import annotations

from recsys_lib.compression.quantization import (
    EntropyCoding,
    ProductQuantization,
    ResidualQuantization,
    SignQuantization,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.recipe.steps import EntropyCode, Quantize, Recipe, ReduceDimensions


def default_recipes(embedding_dim: int) -> dict[str, list[Recipe]]:
    """Return families of recipes for a model of so many dimensions, each from mild to harsh.

    None is there because it did well on one data set. Each begins with what does no harm on any
    (8 bits, all dimensions), so that a search on few users has something careful to fall back to.

    Example:
        >>> list(default_recipes(64))[:3]
        ['rounding', 'fewer dimensions, 8 bits', 'fewer dimensions, 4 bits']
    """
    code = EntropyCode(EntropyCoding())
    widths = sorted({max(2, round(embedding_dim * share / 8)) for share in range(2, 8)})[::-1]
    pieces = [n for n in range(embedding_dim // 2, 1, -1) if embedding_dim % n == 0][:3]
    eight, four = (Quantize(UniformQuantization(bits, scale_search="mse")) for bits in (8, 4))
    stages = sorted({max(1, embedding_dim // part) for part in (4, 8)})[::-1]
    families: dict[str, list[Recipe]] = {
        "rounding": [
            [Quantize(UniformQuantization(bits, scale_search="mse")), code]
            for bits in range(8, 1, -1)
        ],
        "fewer dimensions, 8 bits": [[ReduceDimensions(w), eight, code] for w in widths],
        "fewer dimensions, 4 bits": [[ReduceDimensions(w), four, code] for w in widths],
        "one bit": [[Quantize({"user_vectors": four.config, "item_vectors": SignQuantization()})]],
        "product quantization": [[Quantize(ProductQuantization(n, bits=4)), code] for n in pieces],
        "residual quantization": [[Quantize(ResidualQuantization(n)), code] for n in stages],
        "transform coding": [
            [Quantize(TransformCoding(round(0.02 * 1.15**n, 4), contexts="size"))]
            for n in range(28)
        ],
    }
    return {name: recipes for name, recipes in families.items() if recipes}
