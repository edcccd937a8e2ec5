"""Generated data in place of a data set that cannot be had: same kind, same columns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.data.info import DATASETS, DatasetInfo
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.negatives import sample_negatives
from recsys_lib.data.splits import Split
from recsys_lib.data.synthetic import Preset, make_synthetic

if TYPE_CHECKING:
    import pandas as pd

_PRESET: dict[str, Preset] = {
    "video": "video",
    "e-commerce": "e-commerce",
    "news": "news",
    "music": "music",
    "papers": "video",
}


def stand_in(info: DatasetInfo, seed: int = 0) -> Interactions | Split:
    """Generate what stands in for a data set.

    Args:
        info: card of the data set.
        seed: of everything.

    Returns:
        The same kind with the same columns; ``is_synthetic`` is True.

    Example:
        >>> from recsys_lib.data.info import describe_dataset
        >>> stand_in(describe_dataset("ncf-ml-1m")).negatives.shape
        (1500, 99)
    """
    name = f"synthetic (for {info.name})"
    full = make_synthetic(_PRESET[info.domain], seed=seed, name=name)
    if info.kind == "interactions":
        return _keep(full, info.columns)
    # Split by the time that the generator knows, then forget what the data set does not have.
    if info.name == "adressa-macr":
        train, test = full.split_stratified(test_fraction=0.1, seed=seed)
        return Split(_keep(train, info.columns), _keep(test, info.columns), name=name)
    train, test = full.split_leave_one_out()
    if info.name == "citeulike-derrd":
        train, validation = train.split_leave_one_out()
        return Split(
            _keep(train, info.columns),
            _keep(test, info.columns),
            validation=_keep(validation, info.columns),
            name=name,
        )
    negatives = sample_negatives(train, test, 99, seed)
    return Split(_keep(train, info.columns), _keep(test, info.columns), negatives, name=name)


def stand_in_folds(seed: int = 0) -> list[Split]:
    """Generate what stands in for the five splits of MovieLens 100k."""
    data = stand_in(DATASETS["ml-100k"], seed=seed)
    assert isinstance(data, Interactions)
    return [
        Split(train, test, name=f"{data.name} u{number}")
        for number, (train, test) in enumerate(data.split_folds(5, seed=seed), start=1)
    ]


def stand_in_frame(seed: int = 0) -> pd.DataFrame:
    """Generate invoice lines with the columns of Online Retail; all are purchases."""
    import pandas as pd

    data = make_synthetic("e-commerce", seed=seed)
    assert data.ratings is not None
    assert data.timestamps is not None
    assert data.item_names is not None
    rng = np.random.default_rng(seed)
    prices = np.round(rng.lognormal(0.9, 0.8, data.num_items), 2)
    countries = rng.choice(
        ["United Kingdom", "Germany", "France"], data.num_users, p=[0.9, 0.05, 0.05]
    )
    baskets = np.unique(
        np.stack([data.timestamps, data.user_ids], axis=1), axis=0, return_inverse=True
    )[1].reshape(-1)
    names = np.array([name.upper() for name in data.item_names], object)
    return pd.DataFrame(
        {
            "InvoiceNo": (536_365 + baskets).astype(str),
            "StockCode": (20_000 + data.item_ids).astype(str),
            "Description": names[data.item_ids],
            "Quantity": data.ratings.astype(np.int64),
            "InvoiceDate": data.timestamps.astype("datetime64[s]"),
            "UnitPrice": prices[data.item_ids],
            "CustomerID": pd.Series(12_346 + data.user_ids).astype("Int64"),
            "Country": countries[data.user_ids],
        }
    )


def _keep(part: Interactions, columns: tuple[str, ...]) -> Interactions:
    """Number users and items from 1, and drop the columns that are not named."""
    have: dict[str, Any] = {
        "ratings": part.ratings,
        "timestamps": part.timestamps,
        "user_vocabulary": np.arange(1, part.num_users + 1),
        "item_vocabulary": np.arange(1, part.num_items + 1),
        "item_names": part.item_names,
        "item_texts": part.item_texts,
    }
    return replace(part, **{c: value if c in columns else None for c, value in have.items()})
