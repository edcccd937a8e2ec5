"""The published statistics of every data set, counted again in the files."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import (
    DATASETS,
    Interactions,
    Split,
    load_dataset,
    load_frame,
    load_split,
    make_synthetic,
)
from recsys_lib.data.files import data_home, path_of
from recsys_lib.data.movielens import GENRES, item_genres, texts_without_tags
from recsys_lib.data.tables import read_columns, read_numbers


def known(split, part):
    """How many rows of the part are in the training part."""
    return split.train.to_csr()[part.user_ids, part.item_ids].sum()


def distinct(ids):
    return len(np.unique(ids))


@pytest.mark.parametrize("name", DATASETS)
def test_counts_are_those_of_the_card(real_data, name):
    counts, data = DATASETS[name].statistics, real_data(name)
    assert data.name == name
    assert not data.is_synthetic
    assert data.num_users == counts.get("users", data.num_users)
    assert data.num_items == counts.get("items", data.num_items)
    if isinstance(data, Split):
        assert known(data, data.test) == 0
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        sizes = {part: len(rows) for part, rows in parts.items() if rows is not None}
        assert sizes == {part: counts[part] for part in sizes}
        assert len(load_dataset(name)) == sum(sizes.values())


def test_ncf_ml_1m(real_data):
    split, counts = real_data("ncf-ml-1m"), DATASETS["ncf-ml-1m"].statistics
    assert split.negatives.shape == (counts["test"], counts["negatives_per_user"])
    assert distinct(split.train.item_ids) == counts["items_in_train"]
    assert split.test.user_ids.tolist() == list(range(counts["users"]))
    doubled = (split.negatives == split.test.item_ids[:, None]).any(axis=1)
    assert doubled.sum() == counts["negative_lists_with_test_item"]
    assert set(np.unique(split.train.ratings)) == {1, 2, 3, 4, 5}
    # The first line of the files.
    assert (split.test.item_ids[0], split.test.ratings[0]) == (25, 5)
    assert split.negatives[0, :3].tolist() == [1064, 174, 2791]


def test_ml_100k(real_data):
    data = real_data("ml-100k")
    assert (len(data), distinct(data.user_ids), distinct(data.item_ids)) == (100_000, 943, 1_682)
    assert data.ratings.mean() == pytest.approx(3.52986)
    assert data.density == pytest.approx(100_000 / (943 * 1_682))
    # The first line of u.data: user 196, movie 242, rating 3.
    assert data.user_vocabulary[data.user_ids[0]] == 196
    assert data.item_vocabulary[data.item_ids[0]] == 242
    assert (data.ratings[0], data.timestamps[0]) == (3, 881_250_949)
    assert data.item_names[241] == "Kolya (1996)"
    assert data.item_texts[0] == "Toy Story (1995) Animation Children's Comedy"
    assert data.item_names[542] == "Misérables, Les (1995)"


def test_ml_100k_folds(real_data):
    def pairs(part):
        return set((part.user_ids * part.num_items + part.item_ids).tolist())

    whole = pairs(real_data("ml-100k"))
    splits = [load_split("ml-100k", fold=fold) for fold in range(1, 6)]
    for split in splits:
        assert (len(split.train), len(split.test)) == (80_000, 20_000)
        assert pairs(split.train) | pairs(split.test) == whole
    assert set().union(*(pairs(split.test) for split in splits)) == whole  # and so disjoint


def test_ml_latest_small(real_data):
    data, counts = real_data("ml-latest-small"), DATASETS["ml-latest-small"].statistics
    assert len(data) == counts["ratings"]
    assert distinct(data.item_ids) == counts["rated_items"]
    assert distinct(data.user_ids) == counts["users"]
    assert (data.ratings.min(), data.ratings.max()) == (0.5, 5.0)
    path = path_of(data_home() / "ml-latest-small", "tags.csv")
    tags = read_columns(path, ("userId", "movieId", "tag", "timestamp"))
    assert len(tags[0]) == counts["tags"]
    toy_story = data.item_vocabulary.tolist().index(1)
    assert data.item_names[toy_story] == "Toy Story (1995)"
    assert data.item_texts[toy_story].endswith("Children Comedy Fantasy pixar fun")
    # "1,1,4.0,964982703" is the first line.
    assert (data.ratings[0], data.timestamps[0]) == (4.0, 964_982_703)


def test_online_retail(real_data):
    data, counts = real_data("online-retail"), DATASETS["online-retail"].statistics
    frame = load_frame("online-retail")
    assert len(frame) == counts["rows"]
    assert frame["InvoiceNo"].nunique() == counts["invoices"]
    assert frame["StockCode"].nunique() == counts["stock_codes"]
    assert frame["CustomerID"].nunique() == counts["customers"]
    assert frame["CustomerID"].isna().sum() == counts["rows_without_customer"]
    assert str(frame["InvoiceDate"].min()) == "2010-12-01 08:26:00"
    assert str(frame["InvoiceDate"].max()) == "2011-12-09 12:50:00"
    # The purchases among them.
    assert (len(data), data.num_users, data.num_items) == (396_370, 4_335, 3_659)
    assert data.ratings.min() >= 1
    assert not set(data.item_vocabulary) & {"POST", "M", "D", "DOT", "C2", "BANK CHARGES"}
    assert data.timestamps.min() == np.datetime64("2010-12-01T08:26").astype("M8[s]").astype(int)
    mug = data.item_vocabulary.tolist().index("85123A")
    assert data.item_names[mug] == "WHITE HANGING HEART T-LIGHT HOLDER"


def test_adressa_macr(real_data):
    split, counts = real_data("adressa-macr"), DATASETS["adressa-macr"].statistics
    assert distinct(split.train.user_ids) == counts["train_users"]
    assert distinct(split.test.user_ids) == counts["test_users"]
    assert distinct(split.train.item_ids) == counts["items"]
    assert split.train.to_csr().nnz == counts["train"]


def test_lastfm(real_data):
    data, counts = real_data("lastfm-hetrec2011-2k"), DATASETS["lastfm-hetrec2011-2k"].statistics
    assert len(data) == counts["listening_counts"]
    assert distinct(data.user_ids) == counts["users"]
    assert distinct(data.item_ids) == counts["items"]
    folder = data_home() / "lastfm-hetrec2011-2k"
    for file, count in (
        ("user_taggedartists.dat", "tag_assignments"),
        ("user_friends.dat", "friend_pairs"),
    ):
        assert len(read_numbers(path_of(folder, file), header=True)) == counts[count]
    path, columns = path_of(folder, "tags.dat"), ("tagID", "tagValue")
    tags = read_columns(path, columns, delimiter="\t", quoted=False)
    assert len(tags[0]) == counts["tags"]
    assert data.item_names[0] == "MALICE MIZER"
    assert data.item_texts[0].startswith("MALICE MIZER j-rock visual kei")
    # "2 51 13883": the first line.
    assert data.item_vocabulary[data.item_ids[0]] == 51
    assert data.ratings[0] == 13_883


def test_citeulike(real_data):
    split = real_data("citeulike-derrd")
    assert known(split, split.validation) == 0
    for part in (split.validation, split.test):
        assert distinct(part.user_ids) == len(part)


def test_genres_end_where_tags_begin():
    names = ("Heat (1995)", "War", "Up", "Drama")
    texts = ("Heat (1995) Action Crime drama", "War Sci-Fi War Warring", "Up", "Drama Drama Drama")
    films = Interactions([0], [0], num_items=4, item_names=names, item_texts=texts)
    found = [[GENRES[g] for g in np.flatnonzero(row)] for row in item_genres(films)]
    assert found == [["Action", "Crime"], ["Sci-Fi", "War"], [], ["Drama"]]
    without = ["Heat (1995) Action Crime", "War Sci-Fi War", "Up", "Drama Drama"]
    assert texts_without_tags(films) == without
    with pytest.raises(ValueError, match="no item_names or no item_texts"):
        item_genres(Interactions([0], [0]))
    assert (item_genres(make_synthetic("video")).sum(axis=0) > 0).sum() == 8  # its topics


def test_every_genre_of_real_films_is_read(real_data):
    share = item_genres(real_data("ml-latest-small")).mean(axis=0)
    assert (share[:19] > 0).all()
    assert share[GENRES.index("Drama")] == pytest.approx(4361 / 9742, abs=0.001)  # of movies.csv
