"""Invoice lines of a shop: what is left of them after cleaning, and the questions they answer."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.data.frames import first_reasons, plain_texts, read_frame
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.readers import PRODUCT_CODE, RETAIL_COLUMNS
from recsys_lib.data.splits import Split

_NAMES = ("basket", "item", "name", "quantity", "time", "price", "customer", "country")


def clean_retail(frame: Any) -> tuple[pd.DataFrame, pd.Series]:
    """Return the purchases among raw invoice lines, and how many lines went for which reason.

    A line goes, in this order, if it has no invoice number, no date that can be read, no product
    code (five digits, then letters for variants: postage, fees, samples, vouchers and corrections
    have other codes), if its invoice is a cancellation ("C..."), if its quantity or its price is
    not above zero, or if it repeats another line in all columns. Then cancellations are matched: a
    cancelled quantity is taken from the same customer's last earlier purchases of that product, and
    a purchase of which nothing is left goes as well. Baskets of guests, who have no customer
    number, stay. Numbers and texts are read alike, as a spreadsheet mixes them: 85048, 85048.0 and
    "85048".

    Args:
        frame: raw lines with the columns of ``load_frame("online-retail")``; stays as it is.

    Returns:
        ``(lines, report)``. Lines have ``basket`` (invoice number), ``item`` (product code in upper
        case), ``name`` (the product's most frequent description), ``quantity``, ``time`` (the first
        of the invoice's), ``price`` (of one piece), ``customer`` (text, missing for a guest) and
        ``country``. The report counts rows by reason, "kept" at the end; it adds up to all rows.

    Raises:
        KeyError: a column is missing.
        TypeError, ValueError: no frame, or no line is left.

    Source:
        Chen, Sain & Guo, *Data mining for the online retail industry*, 2012, section 3, drops what
        has no customer; baskets of guests are kept here.

    Example:
        >>> import pandas as pd
        >>> from recsys_lib.data.readers import RETAIL_COLUMNS
        >>> raw = pd.DataFrame([
        ...     ["1", "85048", "MUG", 6, "2011-01-03", 2.1, 17850, "France"],
        ...     ["2", "85048", "mug", 6, "2011-01-04", 2.1, 17850, "France"],
        ...     ["C3", "85048", "MUG", -6, "2011-01-05", 2.1, 17850, "France"],
        ...     ["4", "POST", "POSTAGE", 1, "2011-01-05", 9.0, None, "France"],
        ... ], columns=RETAIL_COLUMNS)
        >>> lines, report = clean_retail(raw)
        >>> lines["basket"].tolist(), report[report > 0].to_dict()
        (['1'], {'no product': 1, 'a cancellation': 1, 'cancelled later': 1, 'kept': 1})
    """
    raw = read_frame(frame, {column: column for column in RETAIL_COLUMNS})
    lines = raw[list(RETAIL_COLUMNS)].set_axis(_NAMES, axis=1).reset_index(drop=True)
    for column in ("basket", "item", "name", "customer", "country"):
        lines[column] = plain_texts(lines[column])
    lines["item"] = lines["item"].str.upper()
    lines["name"] = lines["name"].str.split().str.join(" ")
    for column in ("quantity", "price"):
        lines[column] = pd.to_numeric(lines[column], errors="coerce")
    if lines["time"].dtype.kind != "M":
        texts = lines["time"].astype(str)
        lines["time"] = pd.to_datetime(texts, errors="coerce", format="ISO8601")
    cancels = lines["basket"].str.upper().str.startswith("C")
    reasons = {
        "no invoice": lines["basket"] == "",
        "no date": lines["time"].isna(),
        "no product": ~lines["item"].str.fullmatch(PRODUCT_CODE),
        "a cancellation": cancels,
        "no quantity above zero": ~(lines["quantity"] > 0) | np.isinf(lines["quantity"]),
        "no price above zero": ~(lines["price"] > 0) | np.isinf(lines["price"]),
        "a repeated line": lines.duplicated(),
    }
    bought = ~np.logical_or.reduce([mask.to_numpy() for mask in reasons.values()])
    left = _after_cancellations(lines, bought, cancels.to_numpy())
    kept, report = first_reasons(reasons | {"cancelled later": bought & (left <= 0)})
    lines = lines.assign(quantity=left)[kept]
    lines["time"] = lines.groupby("basket")["time"].transform("min")
    counts = lines[lines["name"] != ""].groupby(["item", "name"]).size().rename("n").reset_index()
    best = counts.sort_values(["n", "name"], ascending=[False, True]).drop_duplicates("item")
    name_of = best.set_index("item")["name"]
    lines["name"] = lines["item"].map(name_of).fillna(lines["item"])
    lines["customer"] = lines["customer"].where(lines["customer"] != "", None)
    lines.attrs["is_synthetic"] = raw.attrs.get("is_synthetic", False)
    return lines.reset_index(drop=True), report


def _after_cancellations(
    lines: pd.DataFrame, bought: NDArray[np.bool_], cancels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the quantity of each line less what its customer cancelled later, the last first."""
    left = lines["quantity"].to_numpy(np.float64, copy=True)
    keys = lines["customer"] + "/" + lines["item"]
    cancelled = cancels & (left < 0) & (lines["customer"] != "").to_numpy()
    moments = lines["time"].to_numpy()
    places: dict[str, list[int]] = defaultdict(list)
    rows = np.flatnonzero((bought | cancelled) & keys.isin(keys[cancelled]).to_numpy())
    for row in rows[np.argsort(moments[rows], kind="stable")]:
        earlier = places[keys[row]]
        if bought[row]:
            earlier.append(row)
        while cancelled[row] and left[row] < 0 and earlier:
            taken = min(left[earlier[-1]], -left[row])
            left[earlier[-1]] -= taken
            left[row] += taken
            if left[earlier[-1]] <= 0:
                earlier.pop()
    return left


def split_next_basket(lines: pd.DataFrame, test_fraction: float = 0.2) -> Split:
    """Cut the lines at one moment: what will known customers buy on their next visit?

    Args:
        lines: from :func:`clean_retail`; guests are left out.
        test_fraction: share of the lines after the cut, see ``Interactions.split_by_time``.

    Returns:
        Users are customers; ratings are quantities. The test part holds the first basket after the
        cut of each customer who bought before it: what is new to the customer and, as the split has
        ``repeats=True``, what was bought before. Products that nobody had bought by then are in the
        catalogue as well.

    Raises:
        ValueError: no customer bought before and after the cut.
    """
    known = lines[lines["customer"].notna()]
    train, later = _interactions(known, "customer").split_by_time(test_fraction)
    assert later.timestamps is not None
    first = np.full(later.num_users, np.iinfo(np.int64).max)
    np.minimum.at(first, later.user_ids, later.timestamps)
    chosen = later.timestamps == first[later.user_ids]
    chosen &= np.isin(later.user_ids, train.user_ids)
    return Split(train, later.take(chosen), name=train.name, repeats=True)


def split_basket_completion(
    lines: pd.DataFrame, test_fraction: float = 0.2, hidden: float = 0.5, seed: int = 0
) -> tuple[Interactions, Split]:
    """Cut the lines at one moment: which products are missing from a later basket?

    Args:
        lines: from :func:`clean_retail`, guests included.
        test_fraction: share of the lines after the cut.
        hidden: share of each later basket's products that is hidden, above 0 and below 1; rounded,
            and at least one product stays visible.
        seed: of the draw of what is hidden.

    Returns:
        ``(past, later)``; users are baskets. ``past`` is what a model may learn from. ``later`` has
        the baskets after the cut: in its train part what is visible, to fold in and to leave out of
        the answer; in its test part what is hidden. Baskets with nothing to hide are left out.

    Raises:
        ValueError: a share out of range, or no basket after the cut has two products.
    """
    past, later = _interactions(lines, "basket").split_by_time(test_fraction)
    pairs = later.user_ids * later.num_items + later.item_ids
    once = later.take(np.unique(pairs, return_index=True)[1])
    visible, tested = once.split_stratified(hidden, seed)
    visible = visible.take(np.isin(visible.user_ids, tested.user_ids))
    return past, Split(visible, tested, name=past.name)


def _interactions(lines: pd.DataFrame, user: str) -> Interactions:
    is_synthetic = bool(lines.attrs.get("is_synthetic", False))
    data = Interactions.from_frame(
        lines,
        user=user,
        item="item",
        rating="quantity",
        time="time",
        item_name="name",
        item_text="name",
        name=f"online-retail by {user}",
    )
    return replace(data, is_synthetic=is_synthetic)
