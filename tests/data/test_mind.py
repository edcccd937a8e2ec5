"""News in the MIND format: a sample written by hand, with the faults of cut and foreign files."""

import pandas as pd
import pytest

from recsys_lib.data import DataError, read_mind

NEWS = [
    "N2\tsports\tgolf\tA hole in one\tHe did it.\thttps://a/2\t[]\t[]",
    'N1\tnews\tworld\tThe "quoted" title\t\thttps://a/1\t[]\t[]',
    "N3\tfood\tcake\tBake",
]
SEEN = [
    "1\tU2\t11/15/2019 8:55:22 AM\tN3 N1\tN1-0 N2-1",
    "2\tU1\t11/15/2019 9:00:00 PM\t\tN3-1 N2-0 N1-1",
    "3\tU2\t11/16/2019 8:00:00 AM\tN3 N1\tN3-0",
]


@pytest.fixture
def mind(write, tmp_path):
    def read(news=NEWS, seen=SEEN, end="", encoding="utf-8"):
        for name, lines in (("news.tsv", news), ("behaviors.tsv", seen)):
            write("".join(f"{line}\r\n" for line in lines), name + end, encoding)
        return read_mind(tmp_path)

    return read


@pytest.mark.parametrize("end", ["", ".gz"])
def test_sample(mind, end):
    found = mind(end=end)
    assert found.clicks.to_frame().values.tolist() == [
        ["U2", "N2", pd.Timestamp("2019-11-15 08:55:22")],
        ["U1", "N3", pd.Timestamp("2019-11-15 21:00:00")],
        ["U1", "N1", pd.Timestamp("2019-11-15 21:00:00")],
    ]
    assert found.clicks.item_names == ('The "quoted" title', "A hole in one", "Bake")
    assert found.clicks.item_texts[1] == "A hole in one He did it."
    assert found.news["category"].tolist() == ["news", "sports", "food"]
    assert found.impressions["item"].tolist() == [0, 1, 2, 1, 0, 2]
    assert found.impressions["clicked"].tolist() == [False, True, True, False, True, False]
    assert found.history.values.tolist() == [["U2", 2], ["U2", 0]]
    assert found.report.to_dict()["kept"] == 3


BAD = {
    "4\t\t11/15/2019 8:55:22 AM\t\tN1-1": "no user",
    "4\tU3\t2019-11-15\t\tN1-1": "no time",
    "4\tU3": "no time",  # cut
    "4\tU3\t11/15/2019 8:55:22 AM\tN1": "nothing shown",
    "4\tU3\t11/15/2019 8:55:22 AM\t\tN9-1 N8-0": "only unknown news",
    "": "no user",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_goes_for_its_reason(mind, line):
    found = mind(seen=[*SEEN, line])
    assert found.report[found.report > 0].to_dict() == {BAD[line]: 1, "kept": 3}
    assert (len(found.clicks), len(found.impressions)) == (3, 6)


def test_unknown_and_repeated_news_and_a_test_part(mind):
    news = [*NEWS, NEWS[0].replace("hole", "goal"), "\tx\ty\tNo id", "N7\tx\ty\t"]
    found = mind(news, [*SEEN, "4\tU9\t11/17/2019 8:00:00 AM\tN9 N1\tN9 N1 N7"])
    assert found.clicks.item_vocabulary.tolist() == ["N1", "N2", "N3"]
    assert found.clicks.item_names[1] == "A hole in one"
    last = found.impressions[found.impressions["user"] == "U9"]
    assert last["item"].tolist() == [0] and last["clicked"].isna().all()
    assert found.history.values.tolist()[-1] == ["U9", 0]


REFUSED = [
    ({"seen": []}, DataError, "is empty"),
    ({"seen": ["1\tU2"]}, ValueError, "no row is left"),
    ({"seen": ["1\tU2\t11/15/2019 8:55:22 AM\t\tN1-0"]}, ValueError, "user_ids is empty"),
    ({"encoding": "utf-16"}, DataError, "is not utf-8 text"),
]


@pytest.mark.parametrize("options, kind, message", REFUSED)
def test_what_is_refused(mind, options, kind, message, tmp_path):
    with pytest.raises(DataError, match=r"news\.tsv cannot be read"):
        read_mind(tmp_path)
    with pytest.raises(kind, match=message):
        mind(**options)
