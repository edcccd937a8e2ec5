"""Readers of clicks on news, libraries of papers, listening counts and invoices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys_lib.data.catalogue import DATASETS
from recsys_lib.data.files import CorruptFileError, open_text, path_of, read_columns, read_numbers
from recsys_lib.data.frames import kept_rows, plain_texts, read_frame
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.splits import Split

RETAIL_COLUMNS = (
    "InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID",
    "Country",
)  # fmt: skip
PRODUCT_CODE = r"\d{5}[A-Z]*"


def read_adressa_macr(folder: Path) -> Split:
    """Read lines of a user and the articles they clicked."""
    train, test = (_read_lists(path_of(folder, name)) for name in ("train.txt", "test.txt"))
    parts = _parts("adressa-macr", [train, test])
    return Split(parts[0], parts[1], name="adressa-macr")


def read_citeulike_derrd(folder: Path) -> Split:
    """Read pairs of user and paper.

    The authors count 5,220 users and 25,182 papers, one more of each than occur; so do we.
    """
    names = ("train.tsv", "valid.tsv", "test.tsv")
    tables = [read_numbers(path_of(folder, name)) for name in names]
    train, validation, test = _parts("citeulike-derrd", tables, at_least=(5_220, 25_182))
    return Split(train, test, validation=validation, name="citeulike-derrd")


def _parts(
    name: str, tables: list[NDArray[np.int64]], at_least: tuple[int, int] = (0, 0)
) -> list[Interactions]:
    """Return one part for each (n, 2) table of users and items, with common counts."""
    most = np.max([table.max(axis=0) for table in tables], axis=0) + 1
    users, items = np.maximum(most, at_least).tolist()
    common: Any = {"num_users": users, "num_items": items, "name": name}
    return [Interactions(table[:, 0], table[:, 1], **common) for table in tables]


def read_lastfm(folder: Path) -> Interactions:
    """Read listening counts; texts are the artist's name and its five most frequent tags."""
    table = read_numbers(path_of(folder, "user_artists.dat"), header=True)
    artist_ids, names = _lastfm_artists(folder)
    order = np.argsort(artist_ids)
    vocabulary = artist_ids[order]
    top_tags = _lastfm_tags(folder, vocabulary)
    user_vocabulary, user_ids = np.unique(table[:, 0], return_inverse=True)
    item_names = [names[row] for row in order]
    return Interactions(
        user_ids=user_ids,
        item_ids=np.searchsorted(vocabulary, table[:, 1]),
        ratings=table[:, 2].astype(np.float32),
        num_users=len(user_vocabulary),
        num_items=len(vocabulary),
        user_vocabulary=user_vocabulary,
        item_vocabulary=vocabulary,
        item_names=tuple(item_names),
        item_texts=tuple(
            " ".join([name, *tags]) for name, tags in zip(item_names, top_tags, strict=True)
        ),
        name="lastfm-hetrec2011-2k",
    )


def _lastfm_artists(folder: Path) -> tuple[NDArray[np.int64], list[str]]:
    path, columns = path_of(folder, "artists.dat"), ("id", "name", "url", "pictureURL")
    artists, names, _, _ = read_columns(path, columns, delimiter="\t", quoted=False)
    return np.array(artists).astype(np.int64), names


def _lastfm_values(folder: Path) -> dict[int, str]:
    path = path_of(folder, "tags.dat")
    tag_ids, values = read_columns(path, ("tagID", "tagValue"), delimiter="\t", quoted=False)
    return dict(zip(map(int, tag_ids), values, strict=True))


def read_lastfm_tags(folder: Path) -> pd.DataFrame:
    """Read who gave which artist which tag, and when; tags of artists without listeners go."""
    table = read_numbers(path_of(folder, "user_taggedartists.dat"), header=True)
    known = np.isin(table[:, 1], _lastfm_artists(folder)[0])
    user, item, tag, day, month, year = table[known].T
    tags = pd.Series(tag).map(_lastfm_values(folder))
    frame = pd.DataFrame({"user": user, "item": item, "tag": tags})
    frame["time"] = pd.to_datetime(pd.DataFrame({"year": year, "month": month, "day": day}))
    return frame.dropna(subset="tag").reset_index(drop=True)


def _lastfm_tags(folder: Path, vocabulary: NDArray[np.int64], most: int = 5) -> list[list[str]]:
    """List each artist's tags, the most frequent first."""
    value_of = _lastfm_values(folder)
    table = read_numbers(path_of(folder, "user_taggedartists.dat"), header=True)
    # Some tagged artists are in nobody's listening list and not in artists.dat: left out.
    known = table[np.isin(table[:, 1], vocabulary)]
    pairs, counts = np.unique(known[:, 1:3], axis=0, return_counts=True)
    tags: list[list[str]] = [[] for _ in vocabulary]
    items = np.searchsorted(vocabulary, pairs[:, 0])
    for row in np.lexsort((pairs[:, 1], -counts)):
        if len(tags[items[row]]) < most and int(pairs[row, 1]) in value_of:
            tags[items[row]].append(value_of[int(pairs[row, 1])])
    return tags


def _read_lists(path: Path) -> NDArray[np.int64]:
    """Read lines of ``user item item ...`` as pairs (n, 2)."""
    with open_text(path) as file:
        lists = [line.split() for line in file]
    return np.array([(user, item) for user, *items in lists for item in items]).astype(np.int64)


def read_retail_frame(folder: Path) -> pd.DataFrame:
    """Read the raw invoice lines, all of them, as they are.

    Returns:
        Columns ``InvoiceNo``, ``StockCode``, ``Description``, ``Country`` (text), ``Quantity``
        (int), ``InvoiceDate`` (datetime), ``UnitPrice`` (float, pounds), ``CustomerID`` (nullable
        integer; missing for about a quarter of the lines).
    """
    path = path_of(folder, "online_retail.csv")
    columns = read_columns(path, RETAIL_COLUMNS)
    frame = pd.DataFrame(dict(zip(RETAIL_COLUMNS, columns, strict=True)))
    try:
        frame["Quantity"] = frame["Quantity"].astype(np.int64)
        frame["InvoiceDate"] = np.array(columns[4]).astype("datetime64[s]")
        frame["UnitPrice"] = frame["UnitPrice"].astype(np.float64)
        customers = frame["CustomerID"].replace("", "nan").astype(np.float64)
        frame["CustomerID"] = customers.astype("Int64")
    except ValueError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    found = {
        "rows": len(frame),
        "invoices": frame["InvoiceNo"].nunique(),
        "stock_codes": frame["StockCode"].nunique(),
        "customers": frame["CustomerID"].nunique(),
        "rows_without_customer": frame["CustomerID"].isna().sum(),
        "countries": frame["Country"].nunique(),
        "quantity": frame["Quantity"].sum(),
    }
    for count, expected in DATASETS["online-retail"].statistics.items():
        if found[count] != expected:
            raise CorruptFileError(f"{path}: {count} is {found[count]}: expected {expected}")
    return frame


def purchases_of(frame: pd.DataFrame, *, report: bool = True) -> Interactions:
    """Keep the purchases of known customers; one row per invoice line.

    A purchase has a customer, a quantity above zero, an invoice that is no cancellation (its number
    does not start with "C"), and a product code: five digits, then letters for variants. Postage,
    fees, gift vouchers and corrections have other codes. Codes are compared in upper case. A
    customer who buys an item again has one row more.

    Numbers and texts are read alike, as a spreadsheet mixes them: 85048, 85048.0 and "85048".

    Args:
        frame: raw lines with the columns of :func:`read_retail_frame`.
        name: name of the data set.
        report: warn of the rows that are left out, with the number of them for each reason.

    Returns:
        Interactions; ``ratings`` are quantities, ``timestamps`` those of the invoice (the clock of
        the shop, taken as UTC), names the most frequent description of the product.
    """
    used = [column for column in RETAIL_COLUMNS if column not in ("UnitPrice", "Country")]
    frame = read_frame(frame, {column: column for column in used})[used]
    for column in ("InvoiceNo", "StockCode", "Description", "CustomerID"):
        frame[column] = plain_texts(frame[column])
    frame["StockCode"] = frame["StockCode"].str.upper()
    reasons = {
        "without a customer": frame["CustomerID"] == "",
        "without a quantity above zero": ~(pd.to_numeric(frame["Quantity"], errors="coerce") > 0),
        "of cancelled invoices": frame["InvoiceNo"].str.upper().str.startswith("C"),
        "without a product code": ~frame["StockCode"].str.fullmatch(PRODUCT_CODE),
    }
    rows = frame[kept_rows(reasons, 3 if report else 0)]
    count = rows.groupby(["StockCode", "Description"]).size().rename("count").reset_index()
    best = count.sort_values(["count", "Description"], ascending=[False, True])
    description_of = best.drop_duplicates("StockCode").set_index("StockCode")["Description"]
    names, customers = rows["StockCode"].map(description_of), rows["CustomerID"].astype("int64")
    rows = rows.assign(CustomerID=customers, Description=names)
    return Interactions.from_frame(
        rows,
        user="CustomerID",
        item="StockCode",
        rating="Quantity",
        time="InvoiceDate",
        item_name="Description",
        item_text="Description",
        name="online-retail",
    )


def read_online_retail(folder: Path) -> Interactions:
    """Read the purchases; see :func:`purchases_of`."""
    return purchases_of(read_retail_frame(folder), report=False)
