"""The card of each data set: what it is, whose it is, how big it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

_GROUPLENS = "research use; no redistribution without separate permission (GroupLens)"
_NAMED = ("user_vocabulary", "item_vocabulary", "item_names", "item_texts")
_HARPER = (
    "Harper and Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015, "
    "doi:10.1145/2827872"
)


@dataclass(frozen=True)
class DatasetInfo:
    """The card of a data set.

    Args:
        name: for :func:`recsys_lib.data.load_dataset`.
        title: in words.
        domain: "video", "e-commerce", "news", "music" or "papers".
        kind: what ``load_dataset`` gives: "split" or "interactions".
        files: what must be in the folder ``<data home>/<name>/``; each plain or gzipped.
        columns: fields of the data that are not None, besides the ids.
        licence: terms, in short; read the source before you use the data for anything else.
        citation: what to cite.
        source: where it is downloaded from.
        statistics: counts, checked by the tests.
        notes: what surprises.
    """

    name: str
    title: str
    domain: Literal["video", "e-commerce", "news", "music", "papers"]
    kind: Literal["split", "interactions"]
    files: tuple[str, ...]
    columns: tuple[str, ...]
    licence: str
    citation: str
    source: str
    statistics: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""


DATASETS: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        card.name: card
        for card in (
            DatasetInfo(
                name="ncf-ml-1m",
                title="MovieLens 1M, leave-one-out split of NCF",
                domain="video",
                kind="split",
                files=("ml-1m.train.rating", "ml-1m.test.rating", "ml-1m.test.negative"),
                columns=("ratings",),
                licence=f"data: {_GROUPLENS}; repository of the split: Apache-2.0",
                citation=f"He et al., Neural Collaborative Filtering, WWW 2017; {_HARPER}",
                source="https://github.com/hexiangnan/neural_collaborative_filtering",
                statistics={
                    "users": 6_040,
                    "items": 3_706,
                    "train": 994_169,
                    "test": 6_040,
                    "negatives_per_user": 99,
                    "items_in_train": 3_704,
                    "negative_lists_with_test_item": 156,
                },
                notes="156 of the lists of negatives hold the test item itself: count it once.",
            ),
            DatasetInfo(
                name="ml-100k",
                title="MovieLens 100k",
                domain="video",
                kind="interactions",
                files=("u.data", "u.item"),
                columns=("ratings", "timestamps", *_NAMED),
                licence=_GROUPLENS,
                citation=_HARPER,
                source="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                statistics={"users": 943, "items": 1_682, "ratings": 100_000, "folds": 5},
                notes="u1 to u5 (load_folds) are five 80/20 splits with disjoint test parts.",
            ),
            DatasetInfo(
                name="ml-latest-small",
                title="MovieLens, small and recent (September 2018)",
                domain="video",
                kind="interactions",
                files=("ratings.csv", "movies.csv", "tags.csv"),
                columns=("ratings", "timestamps", *_NAMED),
                licence="research use; may be redistributed under the same terms (GroupLens)",
                citation=_HARPER,
                source="https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
                statistics={
                    "users": 610,
                    "items": 9_742,
                    "rated_items": 9_724,
                    "ratings": 100_836,
                    "tags": 3_683,
                },
                notes="The catalogue has all movies, also the 18 that nobody rated: cold items.",
            ),
            DatasetInfo(
                name="online-retail",
                title="Online Retail: invoices of a British gift shop, 2010-12 to 2011-12",
                domain="e-commerce",
                kind="interactions",
                files=("online_retail.csv",),
                columns=("ratings", "timestamps", *_NAMED),
                licence="CC BY 4.0 (UCI)",
                citation=(
                    "Chen, Sain and Guo, Data mining for the online retail industry, Journal of "
                    "Database Marketing 19(3), 2012, doi:10.1057/dbm.2012.17"
                ),
                source="https://archive.ics.uci.edu/static/public/352/data.csv",
                statistics={
                    "rows": 541_909,
                    "invoices": 25_900,
                    "stock_codes": 4_070,
                    "customers": 4_372,
                    "rows_without_customer": 135_080,
                },
                notes="Statistics of the raw rows (load_frame); load_dataset keeps purchases.",
            ),
            DatasetInfo(
                name="adressa-macr",
                title="Adressa: clicks on Norwegian news, split of MACR",
                domain="news",
                kind="split",
                files=("train.txt", "test.txt"),
                columns=(),
                licence="research, non-commercial (NTNU and Adresseavisen); see the source",
                citation=(
                    "Gulla et al., The Adressa Dataset for News Recommendation, WI 2017; Wei et "
                    "al., Model-Agnostic Counterfactual Reasoning, KDD 2021, 2010.15363"
                ),
                source="https://github.com/weitianxin/MACR",
                statistics={
                    "users": 13_485,
                    "items": 744,
                    "train": 113_345,
                    "train_users": 13_484,
                    "test": 2_976,
                    "test_users": 2_090,
                },
                notes="The test part is unbiased by popularity; no text and no time.",
            ),
            DatasetInfo(
                name="lastfm-hetrec2011-2k",
                title="Last.fm: listening counts of 2,000 users (HetRec 2011)",
                domain="music",
                kind="interactions",
                files=("artists.dat", "tags.dat", "user_artists.dat", "user_taggedartists.dat"),
                columns=("ratings", *_NAMED),
                licence="non-commercial use (readme.txt); cite Last.fm and HetRec 2011",
                citation="Cantador, Brusilovsky and Kuflik, HetRec 2011, RecSys 2011",
                source="https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",
                statistics={
                    "users": 1_892,
                    "items": 17_632,
                    "listening_counts": 92_834,
                    "tag_assignments": 186_479,
                    "tags": 11_946,
                    "friend_pairs": 25_434,
                },
                notes="A rating is a listening count: from 1 to hundreds of thousands.",
            ),
            DatasetInfo(
                name="citeulike-derrd",
                title="CiteULike: papers in users' libraries, leave-one-out split of DE-RRD",
                domain="papers",
                kind="split",
                files=("train.tsv", "valid.tsv", "test.tsv"),
                columns=("validation",),
                licence="research use (CiteULike)",
                citation="Kang et al., DE-RRD, CIKM 2020, 2012.04357",
                source="https://github.com/SeongKu-Kang/DE-RRD_CIKM20",
                statistics={
                    "users": 5_220,
                    "items": 25_182,
                    "train": 115_142,
                    "validation": 5_219,
                    "test": 5_219,
                },
                notes=(
                    "The authors count one user and one paper more than occur. Their 499 negatives "
                    "are not to be had: draw seeded ones."
                ),
            ),
        )
    }
)


def describe_dataset(name: str) -> DatasetInfo:
    """Give the card of a data set.

    Args:
        name: one of ``DATASETS``.

    Raises:
        ValueError: no data set has this name.

    Example:
        >>> describe_dataset("ml-100k").statistics["ratings"]
        100000
    """
    if name not in DATASETS:
        raise ValueError(f"name is {name!r}: expected one of {', '.join(DATASETS)}")
    return DATASETS[name]
