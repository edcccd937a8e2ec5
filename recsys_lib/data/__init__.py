"""Data: the one data type, splits, data sets, downloads and the synthetic generator."""

from recsys_lib.data.download import fetch
from recsys_lib.data.errors import CorruptFileError, DataError, DownloadError
from recsys_lib.data.files import data_home
from recsys_lib.data.info import DATASETS, DatasetInfo, describe_dataset
from recsys_lib.data.interactions import Interactions
from recsys_lib.data.load import load_dataset, load_folds, load_frame
from recsys_lib.data.negatives import sample_negatives
from recsys_lib.data.splits import Split
from recsys_lib.data.synthetic import PRESETS, SyntheticConfig, make_synthetic

__all__ = [
    "DATASETS",
    "PRESETS",
    "CorruptFileError",
    "DataError",
    "DatasetInfo",
    "DownloadError",
    "Interactions",
    "Split",
    "SyntheticConfig",
    "data_home",
    "describe_dataset",
    "fetch",
    "load_dataset",
    "load_folds",
    "load_frame",
    "make_synthetic",
    "sample_negatives",
]
