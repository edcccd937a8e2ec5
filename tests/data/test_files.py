"""A bad line is an error that names the file, what came and what was expected."""

import gzip

import numpy as np
import pytest

from recsys_lib.data import DataError
from recsys_lib.data.files import CorruptFileError, read_columns, read_numbers

PACKED = gzip.compress(b"1\t2\t3\n" * 1000, mtime=0)
NAMES = ("id", "name")


@pytest.fixture
def read(write):
    def read(content, *columns, file="table", **options):
        path = write(content, file)
        return read_columns(path, columns, **options) if columns else read_numbers(path, **options)

    return read


def test_tables(read, tmp_path):
    assert read("1\t2\t3\n4\t5\t6\n").tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read("1\t2\r\n").tolist() == [[1, 2]]
    options = {"file": "table.gz", "delimiter": ",", "header": True, "dtype": np.float64}
    assert read("user,item,rating\n1,2,.5\n", **options).tolist() == [[1, 2, 0.5]]
    assert read('id,name\n1,"a, ""b"""\n2,NA\n', *NAMES) == [["1", "2"], ['a, "b"', "NA"]]
    options = {"delimiter": "|", "header": False, "quoted": False}
    assert read('1|"a\n2|b\n', *NAMES, **options) == [["1", "2"], ['"a', "b"]]
    with pytest.raises(DataError, match="cannot be read"):
        read_numbers(tmp_path / "missing")


REFUSED = [
    ("1\t2\t3\n4\t5\n", (), "table: .* from 3 to 2"),
    ("1\t2\t3\n4\tfive\t6\n", (), "table: .*'five'"),
    ("1\t2\t3\n4\t\t6\n", (), "table: .*row 1, column 2"),
    ("1\t2\t6.5\n", (), "table: .*6.5"),
    ("1\t2\t99999999999999999999\n", (), "table: .*9999"),
    ("", (), "empty"),
    (b"1\t2\t\xe9\n", (), "not utf-8"),
    (PACKED[:-20], (), "gzip"),
    (b"1f", (), "gzip"),
    ("id,name\n1,a,b\n", NAMES, "has columns"),
    ("id,name\n1,a\n1,a,b\n", NAMES, "line 3, saw 3"),
    ('id,name\n1,"a\n', NAMES, "EOF inside string"),
    ("id,title\n1,2\n", NAMES, r"\['id', 'title'\]: expected \['id', 'name'\]"),
    (b"id,name\n1,\xe9\n", NAMES, "not utf-8"),
]


@pytest.mark.parametrize("content, columns, word", REFUSED)
def test_refuses(read, content, columns, word):
    with pytest.raises(CorruptFileError, match=word):
        read(content, *columns, file="table.gz" if word == "gzip" else "table")
