"""A bad line is an error that names the file, what came and what was expected."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from recsys_lib.data import DataError
from recsys_lib.data.files import CorruptFileError
from recsys_lib.data.tables import read_columns, read_numbers

PACKED = gzip.compress(b"1\t2\t3\n" * 1000, mtime=0)


@pytest.fixture
def write(tmp_path):
    def write(content, name="table"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_tables(write):
    assert read_numbers(write("1\t2\t3\n4\t5\t6\n")).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert read_numbers(write("1\t2\r\n")).tolist() == [[1, 2]]
    packed = write(gzip.compress(b"user,item,rating\n1,2,.5\n"), "table.gz")
    table = read_numbers(packed, delimiter=",", header=True, dtype=np.float64)
    assert table.tolist() == [[1, 2, 0.5]]
    text = 'id,name\n1,"a, ""b"""\n2,NA\n'
    assert read_columns(write(text), ("id", "name")) == [["1", "2"], ['a, "b"', "NA"]]
    path = write('1|"a\n2|b\n')
    options = {"delimiter": "|", "header": False, "quoted": False}
    assert read_columns(path, ("id", "name"), **options) == [["1", "2"], ['"a', "b"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\t2\t3\n4\t5\n", "table: .* columns changed from 3 to 2"),
        ("1\t2\t3\n4\tfive\t6\n", "table: .*'five'"),
        ("1\t2\t3\n4\t\t6\n", "table: .*row 1, column 2"),
        ("1\t2\t6.5\n", "table: .*6.5"),
        ("1\t2\t99999999999999999999\n", "table: .*9999"),
        ("", "table is empty"),
        (b"1\t2\t\xe9\n", "not utf-8 text"),
        (PACKED[:-20], "no whole gzip file"),
        (b"1f", "no whole gzip file"),
    ],
)
def test_bad_numbers(write, content, message):
    with pytest.raises(CorruptFileError, match=message):
        read_numbers(write(content, "table.gz" if "gzip" in message else "table"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,name\n1,a,b\n", "has columns .*expected"),
        ("id,name\n1,a\n1,a,b\n", "line 3, saw 3"),
        ('id,name\n1,"a\n', "EOF inside string"),
        ("id,title\n1,2\n", r"columns \['id', 'title'\]: expected \['id', 'name'\]"),
        ("id,name\n1,\xe9\n".encode("latin-1"), "not utf-8 text"),
    ],
)
def test_bad_columns(write, text, message):
    with pytest.raises(CorruptFileError, match=message):
        read_columns(write(text), ("id", "name"))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_numbers(tmp_path / "missing")
