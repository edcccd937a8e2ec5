"""Quantize arrays and whole models: one verb for every way to do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_names
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.pruning import rotate_to_principal_axes
from recsys_lib.compression.quantization.codebooks import CodebookQuantization
from recsys_lib.compression.quantization.product import ProductQuantization, deal_out
from recsys_lib.compression.quantization.rate_distortion import RateDistortion
from recsys_lib.compression.quantization.residual import ResidualQuantization
from recsys_lib.compression.quantization.signs import SignQuantization
from recsys_lib.compression.quantization.uniform import UniformQuantization
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.models.factors import Factors

_ANY_MATRIX: Any = (UniformQuantization, CodebookQuantization, str)  # the others are for tables
_ROW_BY_ROW: Any = (*_ANY_MATRIX, ResidualQuantization, SignQuantization)


def quantize(
    model: Any,
    config: Any,
    *,
    train: Any = None,
    teacher: Any = None,
    counts: Any = None,
    weighting: str = "none",
) -> Any:
    """Return an array, some arrays or a model in fewer bits; what is given stays as it is.

    ==================================  =======================================================
    config                              stores
    ==================================  =======================================================
    "float16"                           numbers of half the bits
    :class:`UniformQuantization`        whole numbers of 2 to 8 bits and scales
    :class:`CodebookQuantization`       codes into a list of values that k-means finds
    :class:`ProductQuantization`        a code for each piece of a row
    :class:`ResidualQuantization`       codes of full rows that add up to a row
    :class:`SignQuantization`           one bit a number, and perhaps a copy to rank again
    a scheme of ``embedding_tables``    a table as parts of which its rows are made
    a mapping from name to such         each weight as it says; None keeps float32
    :class:`MixedPrecision`             another number of bits for each weight or group of one
    :class:`TransformCoding`            both tables of a factor model: steps by axis, coded
    :class:`RateDistortion`             both tables, trained to rank well in few bytes
    ==================================  =======================================================

    Args:
        model: factor model, Keras model, KerasRecommender, or a CompressedModel of one; for the
            first seven kinds of config also a plain array, or a mapping of arrays.
        config: one of the above. The first three, by themselves, are for all weights of two or more
            dimensions (vectors, such as biases, stay float32), the next four for all tables: those
            of a factor model, and weights called ``embeddings`` with more than one column.
        train: interactions, for RateDistortion.
        teacher: a better model to imitate, for RateDistortion.
        counts: by name of weight (for a plain array by itself), (rows,) how often each id occurs;
            ProductQuantization and schemes weigh the error of rows by it, others do not look at it.
        weighting: "scores" minimises the error of the scores instead of that of the vectors; for
            ProductQuantization of a factor model. Both tables are first written in principal axes,
            which changes no score, and there the weights are one number a column and take no
            bytes. The report's errors are those against the turned tables.

    Returns:
        For an array its stored form (an EncodedTensor: ``decode()``, ``nbytes``), for a mapping of
        arrays a dict of those, for a model a CompressedModel that scores in float32 with the
        rounded weights, with stored bytes and a report. For arithmetic in whole numbers see
        :func:`quantize_dynamic` and :func:`quantize_static`.

    Raises:
        TypeError: another model or config.
        ValueError: an unknown name, a model that is not built, NaN in its weights, a table that a
            config does not fit, or an option that the config has no use for.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 200, 300, 64))
        >>> quantize(model, UniformQuantization(bits=4)).report.ratio > 6
        True
        >>> quantize(np.float32([[0, 1, 2, 3]]), UniformQuantization(bits=2)).codes.tolist()
        [[0, 1, 2, 3]]
    """
    check_choice("weighting", weighting, ("none", "scores"))
    if isinstance(model, np.ndarray):
        return _encode("array", model, config, None if counts is None else {"array": counts})
    if teacher is not None and not isinstance(config, RateDistortion):
        raise ValueError(f"teacher is given with {config!r}: expected RateDistortion")
    kept: Mapping[str, EncodedTensor] = {}
    if isinstance(model, CompressedModel):
        model, kept = model.model, model.tensors
    if isinstance(config, RateDistortion):
        return config.compress(model, train, teacher)
    if hasattr(config, "compress"):
        return config.compress(model)
    plain = isinstance(model, Mapping)
    weights = dict(model) if plain else named_weights(model)
    if isinstance(config, Mapping):
        check_names("config", config, weights)
        chosen = {name: choice for name, choice in config.items() if choice is not None}
    else:
        any_matrix = isinstance(config, _ANY_MATRIX)
        fits = {n: w.ndim > 1 if any_matrix else _is_table(n, w) for n, w in weights.items()}
        chosen = {name: config for name, fit in fits.items() if plain or fit}
    check_names("counts", dict(counts or {}), chosen)
    energy = None
    if weighting == "scores":
        model, energy = _turn(model, list(chosen.values()))
        weights = named_weights(model)
    tensors = {n: _encode(n, weights[n], choice, counts, energy) for n, choice in chosen.items()}
    if plain:
        return tensors
    method = "float16" if config == "float16" else "quantization"
    return store_weights(method, config, model, {**kept, **tensors})


def _is_table(name: str, values: NDArray[Any]) -> bool:
    return name.endswith(("_vectors", "/embeddings")) and values.ndim == 2 and values.shape[1] > 1


def _encode(name: str, values: Any, config: Any, counts: Any, energy: Any = None) -> EncodedTensor:
    if isinstance(config, str) and config == "float16":
        return DenseTensor(values, "float16")
    if not hasattr(config, "encode") or isinstance(config, str):
        raise TypeError(f"config is {config!r} for {name}: expected such as UniformQuantization")
    if isinstance(config, _ROW_BY_ROW):
        return config.encode(values)
    rows = None if counts is None or name not in counts else np.asarray(counts[name])
    more = {} if energy is None else {"column_weights": energy}
    return config.encode(values, rows, **more)


def _turn(model: Any, configs: list[Any]) -> tuple[Factors, NDArray[np.floating]]:
    """Write a model in principal axes, dealt out to subspaces; return the energy of each column."""
    pieces = {c.num_subspaces for c in configs if isinstance(c, ProductQuantization)}
    if not isinstance(model, Factors) or len(pieces) != 1:
        raise ValueError("weighting is 'scores': expected Factors and one ProductQuantization")
    turned = rotate_to_principal_axes(model._users(), model.item_vectors)
    energy = np.maximum(turned.singular_values, 1e-9 * turned.singular_values[0] + 1e-30)
    order = deal_out(energy.astype(np.float64) ** 2, pieces.pop())
    users, items = turned.user_vectors[:, order], turned.item_vectors[:, order]
    return with_weights(model, {"user_vectors": users, "item_vectors": items}), energy[order]
