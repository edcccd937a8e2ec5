"""Compress the tables of a trained model in one step, without training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_names
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.pruning import rotate_to_principal_axes
from recsys_lib.compression.quantization.codebooks import CodebookQuantization, quantize_codebook
from recsys_lib.compression.quantization.product import (
    ProductQuantization,
    deal_out,
    quantize_product,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform
from recsys_lib.compression.tensors import EncodedTensor
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.models.factors import Factors

TableConfig = TableScheme | UniformQuantization | CodebookQuantization | ProductQuantization


def compress_tables(
    model: Any,
    config: TableConfig | Mapping[str, TableConfig],
    *,
    counts: Mapping[str, ArrayLike] | None = None,
    weighting: str = "none",
) -> CompressedModel:
    """Replace trained tables by what comes nearest to them.

    Args:
        model: factor model, Keras model or KerasRecommender; it stays as it is.
        config: a scheme or a quantization: for all tables (both tables of a factor model; weights
            called ``embeddings`` with more than one column of a Keras model), or by name of weight.
        counts: by name of weight, (rows,) how often each id occurs. Needed by MixedDimension; the
            other schemes and product quantization weigh the error of rows by them where given.
        weighting: "scores" minimises the error of the scores instead of that of the vectors; for
            ProductQuantization of a factor model. Both tables are first written in principal axes,
            which changes no score, and there the weights are one number a column and take no
            bytes. The report's errors are those against the turned tables.

    Returns:
        A new model, the stored forms and the report.

    Raises:
        TypeError: another kind of model or config.
        ValueError: unknown names, a table that a config does not fit, or weighting by scores
            where there are no two tables.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> compress_tables(model, UniformQuantization(bits=4)).report.tensors[0].stored_as
        'uniform'
    """
    check_choice("weighting", weighting, ("none", "scores"))
    weights = named_weights(model)
    tables = {name: w for name, w in weights.items() if _is_table(model, name, w)}
    chosen = dict(config) if isinstance(config, Mapping) else dict.fromkeys(tables, config)
    check_names("config", chosen, tables)
    check_names("counts", counts or {}, tables)
    energy = None
    if weighting == "scores":
        model, energy = _turn(model, list(chosen.values()))
        weights = named_weights(model)
    tensors = {}
    for name, own in chosen.items():
        mass = None if counts is None or name not in counts else np.asarray(counts[name])
        tensors[name] = _encode(weights[name], own, mass, energy)
    return store_weights("table compression", config, model, tensors)


def _turn(model: Any, configs: list[TableConfig]) -> tuple[Any, NDArray[np.float64]]:
    """Write a model in principal axes, dealt out to subspaces; give the energy of each column."""
    pieces = {c.num_subspaces for c in configs if isinstance(c, ProductQuantization)}
    if not isinstance(model, Factors) or len(pieces) != 1:
        raise ValueError(
            "weighting is 'scores': expected a factor model, whose scores are products, and "
            "ProductQuantization with the same num_subspaces for its tables"
        )
    turned = rotate_to_principal_axes(model.user_vectors, model.item_vectors)
    energy = np.maximum(turned.singular_values, 1e-9 * turned.singular_values[0] + 1e-30)
    order = deal_out(energy.astype(np.float64) ** 2, pieces.pop())
    new = {"user_vectors": turned.user_vectors, "item_vectors": turned.item_vectors}
    new = {name: table[:, order] for name, table in new.items()}
    return with_weights(model, new), energy[order].astype(np.float64)


def _is_table(model: Any, name: str, values: NDArray[np.float32]) -> bool:
    if isinstance(model, Factors):
        return True
    return name.endswith("/embeddings") and values.ndim == 2 and values.shape[1] > 1


def _encode(
    table: NDArray[np.float32], config: TableConfig, counts: Any, energy: Any
) -> EncodedTensor:
    if isinstance(config, TableScheme):
        trained, fixed = config.approximate(table, counts)
        return config.store(trained | fixed, len(table))
    if isinstance(config, ProductQuantization):
        weights = None if counts is None else counts.astype(np.float32)
        metric = None if energy is None else np.diag(energy)
        return quantize_product(table, config, metric=metric, row_weights=weights)
    if isinstance(config, CodebookQuantization):
        return quantize_codebook(table, config)
    if isinstance(config, UniformQuantization):
        return quantize_uniform(table, config)
    raise TypeError(
        f"config is of type {type(config).__name__}: expected a scheme such as LowRank, or "
        "UniformQuantization, CodebookQuantization or ProductQuantization"
    )
