"""Reader of Online Retail: the raw invoice lines, and the purchases among them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.data.files import path_of
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.tables import convert, read_columns

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
_PRODUCT_CODE = r"\d{5}[A-Z]*"


def read_retail_frame(folder: Path) -> pd.DataFrame:
    """Read the raw invoice lines, all of them, as they are.

    Returns:
        Columns ``InvoiceNo``, ``StockCode``, ``Description``, ``Country`` (text), ``Quantity``
        (int), ``InvoiceDate`` (datetime), ``UnitPrice`` (float, pounds), ``CustomerID`` (nullable
        integer; missing for about a quarter of the lines).
    """
    import pandas as pd

    path = path_of(folder, "online_retail.csv")
    text = dict(zip(COLUMNS, read_columns(path, COLUMNS), strict=True))
    customers = [value or "nan" for value in text["CustomerID"]]
    columns: dict[str, Any] = {
        **text,
        "Quantity": convert(path, "Quantity", text["Quantity"], np.int64),
        "InvoiceDate": convert(path, "InvoiceDate", text["InvoiceDate"], "datetime64[s]"),
        "UnitPrice": convert(path, "UnitPrice", text["UnitPrice"], np.float64),
        "CustomerID": pd.Series(convert(path, "CustomerID", customers, np.float64)).astype("Int64"),
    }
    return pd.DataFrame({column: columns[column] for column in COLUMNS})


def purchases_of(frame: pd.DataFrame, name: str = "online-retail") -> Interactions:
    """Keep the purchases of known customers; one row per invoice line.

    A purchase has a customer, a quantity above zero, an invoice that is no cancellation (its number
    does not start with "C"), and a product code: five digits, then letters for variants. Postage,
    fees, gift vouchers and corrections have other codes. Codes are compared in upper case. A
    customer who buys an item again has one row more.

    Args:
        frame: raw lines with the columns of :func:`read_retail_frame`.
        name: name of the data set.

    Returns:
        Interactions; ``ratings`` are quantities, ``timestamps`` those of the invoice (the clock of
        the shop, taken as UTC), names the most frequent description of the product.
    """
    codes = frame["StockCode"].str.upper().str.strip()
    kept = (
        frame["CustomerID"].notna()
        & (frame["Quantity"] > 0)
        & ~frame["InvoiceNo"].str.upper().str.startswith("C")
        & codes.str.fullmatch(_PRODUCT_CODE)
    )
    rows = frame[kept].assign(StockCode=codes[kept])
    rows = rows.assign(Description=rows["Description"].str.strip())
    count = rows.groupby(["StockCode", "Description"]).size().rename("count").reset_index()
    best = count.sort_values(["count", "Description"], ascending=[False, True])
    description_of = best.drop_duplicates("StockCode").set_index("StockCode")["Description"]
    rows = rows.assign(
        CustomerID=rows["CustomerID"].astype("int64"),
        Description=rows["StockCode"].map(description_of),
    )
    return Interactions.from_frame(
        rows,
        user="CustomerID",
        item="StockCode",
        rating="Quantity",
        time="InvoiceDate",
        item_name="Description",
        item_text="Description",
        name=name,
    )


def read_online_retail(folder: Path) -> Interactions:
    """Read the purchases; see :func:`purchases_of`."""
    return purchases_of(read_retail_frame(folder))
