"""Families of recipes to search in, each from mild to harsh."""

from __future__ import annotations

from recsys_lib.checks import check_choice
from recsys_lib.compression.files import ACCOUNTS
from recsys_lib.compression.quantization import (
    EntropyCoding,
    ProductQuantization,
    ResidualQuantization,
    SignQuantization,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.recipe.steps import EntropyCode, Quantize, Recipe, ReduceDimensions


def default_recipes(embedding_dim: int, account: str = "self-contained") -> dict[str, list[Recipe]]:
    """Return families of recipes for a model of so many dimensions, each from mild to harsh.

    None is there because it did well on one data set. Each begins with what does no harm on any
    (8 bits, all dimensions), so that a search on few users has something careful to fall back to.

    For "items", axes are turned and not stretched. Users are folded in there, and in stretched axes
    the penalty on their length is another one: at recipes that otherwise lose under 2 % this costs
    11 to 14 % of NDCG on two of six data sets, and on a third, whose test is free of popularity, it
    gains as much. A recipe is to leave the model what it is.

    Args:
        embedding_dim: of the model.
        account: "self-contained" or "items", see :func:`recsys_lib.recipe.compress`.

    Example:
        >>> list(default_recipes(64))[:3]
        ['rounding', 'fewer dimensions, 8 bits', 'fewer dimensions, 4 bits']
    """
    axes = "rotation" if check_choice("account", account, ACCOUNTS) == "items" else "principal"
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
        "fewer dimensions, 8 bits": [[ReduceDimensions(w, axes), eight, code] for w in widths],
        "fewer dimensions, 4 bits": [[ReduceDimensions(w, axes), four, code] for w in widths],
        "one bit": [[Quantize({"user_vectors": four.config, "item_vectors": SignQuantization()})]],
        "product quantization": [[Quantize(ProductQuantization(n, bits=4)), code] for n in pieces],
        "residual quantization": [[Quantize(ResidualQuantization(n)), code] for n in stages],
        "transform coding": [
            [Quantize(TransformCoding(round(0.02 * 1.15**n, 4), contexts="size", axes=axes))]
            for n in range(28)
        ],
    }
    return {name: recipes for name, recipes in families.items() if recipes}
