"""Data: the one data type, splits, data sets, downloads and the synthetic generator."""

from recsys_lib.data.catalogue import DATASETS
from recsys_lib.data.download import fetch
from recsys_lib.data.files import DataError, DownloadError
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.load import load_dataset, load_frame, load_split
from recsys_lib.data.mind import News, read_mind
from recsys_lib.data.retail import clean_retail, split_basket_completion, split_next_basket
from recsys_lib.data.splits import ColdItemSplit, Split, sample_negatives, split_cold_items
from recsys_lib.data.synthetic import make_synthetic
from recsys_lib.data.tables import read_interactions

__all__ = [
    "DATASETS", "ColdItemSplit", "DataError", "DownloadError", "Interactions", "News", "Split",
    "clean_retail", "fetch", "load_dataset", "load_frame", "load_split", "make_synthetic",
    "read_interactions", "read_mind", "sample_negatives", "split_basket_completion",
    "split_cold_items", "split_next_basket",
]  # fmt: skip
