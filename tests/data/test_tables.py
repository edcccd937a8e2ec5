"""A bad line is an error that names the file, the line, what came and what was expected."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from recsys_lib.data import DataError
from recsys_lib.data.files import CorruptFileError
from recsys_lib.data.tables import convert, positions, read_columns, read_numbers

COLUMNS = ("user", "item", "rating")
PACKED = gzip.compress(b"1\t2\t3\n" * 1000)


@pytest.fixture
def write(tmp_path):
    def write(content, name="table"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_tables(write, tmp_path):
    assert read_numbers(write("1\t2\t3\n4\t5\t6\n"), COLUMNS).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read_numbers(write("1\t2\t3"), COLUMNS).tolist() == [[1, 2, 3]]
    assert read_numbers(write("1\t2\r\n"), COLUMNS, optional=1).tolist() == [[1, 2]]
    packed = write(gzip.compress(b"user,item,rating\n1,2,.5\n"), "table.gz")
    table = read_numbers(packed, COLUMNS, delimiter=",", header=True, dtype=np.float64)
    assert table.tolist() == [[1, 2, 0.5]]
    text = 'id,name\n1,"a, ""b"""\n2,c\n'
    assert read_columns(write(text), ("id", "name")) == [["1", "2"], ['a, "b"', "c"]]
    path = write('1|"a\n2|b\n')
    options = {"delimiter": "|", "header": False, "quoted": False}
    assert read_columns(path, ("id", "name"), **options) == [["1", "2"], ['"a', "b"]]
    assert convert(path, "id", ["1", "2"], np.int64).tolist() == [1, 2]
    assert positions(path, "id", np.array([9, 2]), np.array([2, 5, 9])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\t3\n4\t5\n", r"table, line 2: 2 values came \('4 \| 5'\): expected 3 \(user, item"),
        ("1\t2\t3\n4\t5\t6\t7\n", "table, line 2: 4 values came"),
        ("1\t2\t3\n4\tfive\t6\n", "table, line 2: item is 'five'"),
        ("1\t2\t3\n4\t\t6\n", "table, line 2: item is ''"),
        ("1\t2\t3\n4\t5\t6.5\n", "table, line 2: rating is '6.5'"),
        ("1 2 3\n", "table, line 1: 1 values came"),
        ("1\t2\t99999999999999999999\n", "line 1: rating is '9999"),
        ("", "table is empty"),
        ("\n\n", "table holds no rows"),
        (b"1\t2\t\xe9\n", "not utf-8 text"),
    ],
)
def test_bad_numbers(write, text, message):
    for optional in (0, 1):  # columns are missing in all lines or in none
        with pytest.raises(CorruptFileError, match=message.split(": expected")[0]):
            read_numbers(write(text), COLUMNS, optional=optional)


@pytest.mark.parametrize("value", ["nan", "inf", "x"])
def test_numbers_are_finite(write, value):
    path = write(f"user,item,rating\n1,2,3\n1,2,{value}\n")
    with pytest.raises(CorruptFileError, match=f"line 3: rating is '{value}'"):
        read_numbers(path, COLUMNS, delimiter=",", header=True, dtype=np.float64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n1,a\n2\n", "line 3: 1 values came .'2'.: expected 2 .id, name"),
        ("id,name\n1,a,b\n", "line 2: 3 values came"),
        ('id,name\n1,"a\n', "line 2: unexpected end of data"),
        ("id,name\n", "holds no rows"),
        ("id,title\n1,2\n", r"line 1: the header is 'id \| title': expected id, name"),
        ("id,name\n1,\xe9\n".encode("latin-1"), "not utf-8 text"),
    ],
)
def test_bad_columns(write, text, message):
    with pytest.raises(CorruptFileError, match=message):
        read_columns(write(text), ("id", "name"))


def test_bad_files(write, tmp_path):
    for content in (PACKED[:-20], b"1\t2\t3\n"):
        with pytest.raises(CorruptFileError, match="no whole gzip file"):
            read_numbers(write(content, "table.gz"), COLUMNS)
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="cannot be read"):
            read_numbers(path, COLUMNS)
    with pytest.raises(CorruptFileError, match="line 1: the header is"):
        read_numbers(write("a,b\n1,2\n"), ("user", "item"), delimiter=",", header=True)


def test_bad_values(tmp_path):
    path = tmp_path / "table"
    with pytest.raises(CorruptFileError, match="table, line 3: when is 'noon'"):
        convert(path, "when", ["2020-01-01 00:00:00", "noon"], "datetime64[s]")
    with pytest.raises(CorruptFileError, match="table, line 1: id is ''"):
        convert(path, "id", [""], np.int64, header=False)
    for unknown in (1, 6, 10):
        with pytest.raises(CorruptFileError, match=f"line 3: id is {unknown}"):
            positions(path, "id", np.array([2, unknown]), np.array([2, 5, 9]))
