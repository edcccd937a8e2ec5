"""The published statistics of every data set, counted again in the files."""

import numpy as np
import pytest

from recsys_lib.data import DATASETS, Interactions, Split, load_dataset, load_frame, load_split
from recsys_lib.data.movielens import GENRES, item_genres, texts_without_tags
from recsys_lib.data.synthetic import make_synthetic


def distinct(ids):
    return len(np.unique(ids))


@pytest.mark.parametrize("name", DATASETS)
def test_counts(real_data, name):
    counts, data = DATASETS[name].statistics, real_data(name)
    assert (data.name, data.is_synthetic) == (name, False)
    assert data.num_users == counts.get("users", data.num_users)
    assert data.num_items == counts.get("items", data.num_items)
    if isinstance(data, Split):
        parts = {"train": data.train, "validation": data.validation, "test": data.test}
        parts = {part: rows for part, rows in parts.items() if rows is not None}
        for rows in list(parts.values())[1:]:
            assert data.train.to_csr()[rows.user_ids, rows.item_ids].sum() == 0
        sizes = {part: len(rows) for part, rows in parts.items()}
        assert sizes == {part: counts[part] for part in sizes}
        assert len(load_dataset(name)) == sum(sizes.values())
        users = {f"{part}_users": distinct(rows.user_ids) for part, rows in parts.items()}
        assert users == {part: counts.get(part, number) for part, number in users.items()}
    else:
        rows = counts.get("ratings", counts.get("listening_counts", len(data)))
        items = counts.get("rated_items", data.num_items)
        found = len(data), distinct(data.user_ids), distinct(data.item_ids)
        assert found == (rows, data.num_users, items)


FIRST_ROWS = {  # user, item, rating, seconds of the first line; and an item, its name, more text
    "ml-100k": ((196, 242, 3, 881_250_949), 1, "Toy Story (1995)", " Animation Children's Comedy"),
    "ml-latest-small": ((1, 1, 4, 964_982_703), 1, "Toy Story (1995)", " Adventure Animation Ch"),
    "lastfm-hetrec2011-2k": ((2, 51, 13_883), 1, "MALICE MIZER", " j-rock visual kei"),
    "online-retail": (None, "85123A", "WHITE HANGING HEART T-LIGHT HOLDER", ""),
}


@pytest.mark.parametrize("name", FIRST_ROWS)
def test_first_rows_and_texts(real_data, name):
    data, (first, item, title, text) = real_data(name), FIRST_ROWS[name]
    at = data.item_vocabulary.tolist().index(item)
    assert data.item_names[at] == title and data.item_texts[at].startswith(title + text)
    row = data.user_vocabulary[data.user_ids[0]], data.item_vocabulary[data.item_ids[0]]
    more = tuple(c[0] for c in (data.ratings, data.timestamps) if c is not None)
    assert first is None or row + more == first
    assert name != "ml-100k" or data.item_names[542] == "Misérables, Les (1995)"
    assert data.timestamps is None or data.time_unit == "s"


def test_ncf_ml_1m(real_data):
    split, counts = real_data("ncf-ml-1m"), DATASETS["ncf-ml-1m"].statistics
    assert split.negatives.shape == (counts["test"], counts["negatives_per_user"])
    assert distinct(split.train.item_ids) == counts["items_in_train"]
    assert split.test.user_ids.tolist() == list(range(counts["users"]))
    doubled = (split.negatives == split.test.item_ids[:, None]).any(axis=1)
    assert doubled.sum() == counts["negative_lists_with_test_item"]
    assert (split.test.item_ids[0], split.test.ratings[0]) == (25, 5)
    assert split.negatives[0, :3].tolist() == [1064, 174, 2791]


def test_ml_100k_folds(real_data):
    def pairs(part):
        return set((part.user_ids * part.num_items + part.item_ids).tolist())

    whole, tested = pairs(real_data("ml-100k")), set()
    for fold in range(1, 6):
        split = load_split("ml-100k", fold=fold)
        assert (len(split.train), len(split.test)) == (80_000, 20_000)
        assert pairs(split.train) | pairs(split.test) == whole
        tested |= pairs(split.test)
    assert tested == whole  # and so the folds are disjoint


def test_online_retail(real_data):
    data, frame = real_data("online-retail"), load_frame("online-retail")  # counts itself
    dates = frame["InvoiceDate"]
    assert (str(dates.min()), str(dates.max())) == ("2010-12-01 08:26:00", "2011-12-09 12:50:00")
    # The purchases among them.
    assert (len(data), data.num_users, data.num_items) == (396_370, 4_335, 3_659)
    assert data.ratings.min() >= 1
    assert not set(data.item_vocabulary) & {"POST", "M", "D", "DOT", "C2", "BANK CHARGES"}
    assert data.timestamps.min() == np.datetime64("2010-12-01T08:26").astype("M8[s]").astype(int)


def test_genres_end_where_tags_begin(real_data):
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
    share = item_genres(real_data("ml-latest-small")).mean(axis=0)
    assert (share[:19] > 0).all()
    assert share[GENRES.index("Drama")] == pytest.approx(4361 / 9742, abs=0.001)  # of movies.csv
