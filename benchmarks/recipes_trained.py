"""The methods of the front that train and are no step of a recipe; see ``recipes.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from recsys_lib.compression.distillation import (
    SoftLabels,
    WeightAveraging,
    distill,
    start_from_teacher,
    train_with_average,
)
from recsys_lib.compression.quantization import (
    EntropyCoding,
    IntegerQuantization,
    UniformQuantization,
    convert,
    quantization_aware,
)
from recsys_lib.data import Split
from recsys_lib.models import IALS, RatingModelConfig, as_factors, build_rating_model

_TABLES = {"user_vectors": "user_embedding/embeddings", "item_vectors": "item_embedding/embeddings"}
Found = tuple[str, str, Any]  # method, setting, compressed model


def quantization_aware_tables(model: IALS, split: Split, seed: int) -> Iterator[Found]:
    """Round both tables to 4, 3 and 2 bits a number and train them on in that form (chapter 9).

    The float tables are the teacher, one epoch on its whole ranking. Each user's vector is first
    divided by the standard deviation of the user's scores, which changes no ranking.
    """
    import keras

    spread = (model.user_vectors @ model.item_vectors.T).std(axis=1, keepdims=True)
    dim = model.item_vectors.shape[1]
    start = build_rating_model(
        RatingModelConfig("dot_product", split.num_users, split.num_items, dim)
    )
    start.set_weights([model.user_vectors / np.maximum(spread, 1e-9), model.item_vectors])
    soft = SoftLabels(loss="listwise", weight=1.0, standardize=True)
    for bits in (4, 3, 2):
        choices = IntegerQuantization(bits, scale_search="mse")
        aware = quantization_aware(start, choices, split.train)
        steps = -(-len(split.train) // 8192)
        rate = keras.optimizers.schedules.CosineDecay(0.002, steps)
        student = distill(
            model, aware, split.train, soft, epochs=1, batch_size=8192, seed=seed,
            optimizer=keras.optimizers.Adam(rate), progress=False,
        ).model  # fmt: skip
        integers = convert(student).tensors
        tables = {name: integers[layer] for name, layer in _TABLES.items()}
        yield "quantization-aware training", f"{bits} bits, 1 epoch", stored_as(model, tables)
        coded = {name: EntropyCoding().encode(table) for name, table in tables.items()}
        setting = f"{bits} bits, 1 epoch, coded"
        yield "quantization-aware training, coded", setting, stored_as(model, coded)


def model_distillation(model: IALS, split: Split, seed: int) -> Iterator[Found]:
    """Start a small student from the teacher's tables, train it on labels, keep the average.

    The settings are those that chapter 13 chose on validation users; all of 10 epochs, no best one.
    """
    import keras

    from recsys_lib.compression.quantization import quantize

    for dim in (16, 32, 64):
        config = RatingModelConfig(
            "matrix_factorization", split.num_users, split.num_items, dim, seed=seed
        )
        student = start_from_teacher(model, config, split.train)
        trained = train_with_average(
            student, split.train, WeightAveraging(0.99), epochs=10, batch_size=8192, l2=0.01,
            optimizer=keras.optimizers.Adam(0.01), seed=seed, progress=False,
        ).model  # fmt: skip
        for name, one in (("start from the teacher", student), ("start, then average", trained)):
            factors = as_factors(one)
            yield name, f"{dim} dimensions", stored_as(factors, {})
            four = quantize(factors, UniformQuantization(4, scale_search="mse"))
            coded = {key: EntropyCoding().encode(table) for key, table in four.tensors.items()}
            setting = f"{dim} dimensions, 4 bits, coded"
            yield f"{name}, 4 bits", setting, stored_as(factors, coded)


def stored_as(model: Any, tensors: dict[str, Any]) -> Any:
    """Give the model with these tables; those that are missing stay in float32."""
    from recsys_lib.compression.compressed import store_weights

    return store_weights("trained", None, as_factors(model), tensors)
