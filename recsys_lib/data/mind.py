"""A reader of news in the MIND format, for readers who have accepted its licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_lib.data.files import open_text, path_of
from recsys_lib.data.frames import first_reasons
from recsys_lib.data.interactions import Interactions
from recsys_lib.files import FilePath

_NEWS = ("news", "category", "subcategory", "title", "abstract", "url")
_BEHAVIORS = ("impression", "user", "time", "history", "shown")


@dataclass(frozen=True, eq=False)
class News:
    """News, who was shown which, and who clicked.

    Args:
        clicks: what was clicked in an impression, with its time; names are titles.
        news: one row for each item, in the order of the items of ``clicks``: ``news``,
            ``category``, ``subcategory``, ``title``, ``abstract``, ``url``.
        impressions: one row for each item that was shown: ``impression``, ``user``, ``time``,
            ``item`` (its number in ``clicks``), ``clicked`` (missing in a test part).
        history: (user, item) pairs that were clicked before the first impression; without times.
        report: lines of ``behaviors.tsv`` by the reason for which they went, and "kept".
    """

    clicks: Interactions
    news: pd.DataFrame
    impressions: pd.DataFrame
    history: pd.DataFrame
    report: pd.Series


def read_mind(folder: FilePath) -> News:
    r"""Read ``behaviors.tsv`` and ``news.tsv`` of a folder, plain or gzipped.

    Lines of ``news.tsv`` without an id or a title, and repeated ids, are left out. A line of
    ``behaviors.tsv`` goes if it has no user, no time, nothing shown, or only items that
    ``news.tsv`` does not have; the other items of a line are left out alone. Nothing is downloaded:
    the data set has a licence of its own, see https://msnews.github.io.

    Args:
        folder: of the two files, as they come.

    Raises:
        DataError: a file is missing, cut or in another encoding.
        ValueError: no line is left, or nobody clicked.

    Source:
        Wu et al., *MIND: A Large-scale Dataset for News Recommendation*, ACL 2020.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     _ = Path(name, "news.tsv").write_text("N1\tsports\tgolf\tA hole in one\n")
        ...     line = "1\tU7\t11/15/2019 8:55:22 AM\t\tN1-1\n"
        ...     _ = Path(name, "behaviors.tsv").write_text(line)
        ...     read_mind(name).clicks
        Interactions('MIND', 1 rows, 1 users, 1 items, timestamps, item_names, item_texts)
    """
    folder = Path(folder)
    news = _read_lines(path_of(folder, "news.tsv"), _NEWS)
    news = news[(news["news"] != "") & (news["title"] != "")].drop_duplicates("news")
    news = news.sort_values("news", ignore_index=True)
    lines = _read_lines(path_of(folder, "behaviors.tsv"), _BEHAVIORS)
    lines["time"] = pd.to_datetime(lines["time"], errors="coerce", format="%m/%d/%Y %I:%M:%S %p")
    number = pd.Series(np.arange(len(news)), news["news"])
    shown = lines["shown"].str.split().explode().dropna().rename("shown").to_frame()
    parts = shown["shown"].str.extract(r"^(.*?)(?:-([01]))?$")
    shown["item"], shown["clicked"] = parts[0].map(number), parts[1].map({"0": False, "1": True})
    shown = shown.dropna(subset="item")
    reasons = {
        "no user": lines["user"] == "",
        "no time": lines["time"].isna(),
        "nothing shown": lines["shown"] == "",
        "only unknown news": ~lines.index.isin(shown.index),
    }
    kept, report = first_reasons(reasons)
    lines = lines[kept]
    impressions = lines[["impression", "user", "time"]].join(shown[["item", "clicked"]])
    impressions = impressions.astype({"item": np.int64}).reset_index(drop=True)
    clicked = impressions[impressions["clicked"].eq(True)]
    users, user_ids = np.unique(clicked["user"].to_numpy(str), return_inverse=True)
    texts = (news["title"] + " " + news["abstract"]).str.strip()
    clicks = Interactions(
        user_ids=user_ids,
        item_ids=clicked["item"].to_numpy(),
        timestamps=clicked["time"].astype("datetime64[s]").astype(np.int64).to_numpy(),
        num_items=len(news),
        user_vocabulary=users,
        item_vocabulary=news["news"].to_numpy(str),
        item_names=tuple(news["title"]),
        item_texts=tuple(texts),
        time_unit="s",
        name="MIND",
    )
    before = lines.set_index("user")["history"].str.split().explode().map(number).dropna()
    history = before.astype(np.int64).rename("item").reset_index().drop_duplicates()
    return News(clicks, news, impressions, history.reset_index(drop=True), report)


def _read_lines(path: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """Return lines of values between tabs; what a line lacks is empty, what it has more is left."""
    with open_text(path) as file:
        rows = [line.rstrip("\r\n").split("\t")[: len(names)] for line in file]
    padded = [row + [""] * (len(names) - len(row)) for row in rows]
    return pd.DataFrame(padded, columns=list(names)).apply(lambda column: column.str.strip())
