"""Entropy coding loses nothing, comes near the entropy, and notices damage."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression.quantization import (
    CodebookQuantization,
    EntropyCoding,
    ProductQuantization,
    UniformQuantization,
    entropy_bits,
    quantize,
)
from recsys_lib.compression.quantization.entropy import fit_spread
from recsys_lib.compression.quantization.transform import SteppedTensor
from recsys_lib.compression.tensors import DenseTensor, read_tensor

RANDOM = np.random.default_rng(0)


def table(rows=400, columns=12):
    return (RANDOM.normal(size=(rows, columns)) * np.geomspace(1, 0.1, columns)).astype(np.float32)


def through_bytes(tensor):
    header = json.loads(json.dumps(tensor.header()))
    again = read_tensor(tensor.kind, header, {n: a.copy() for n, a in tensor.arrays().items()})
    assert again.nbytes == tensor.nbytes
    return again


def geometric(rows, columns):
    """Draw two-sided geometric numbers of given mean size; and their entropy in bits."""
    mean = rows[:, None] * columns
    t = (np.sqrt(1 + mean**2) - 1) / mean
    numbers = RANDOM.geometric(1 - t) - RANDOM.geometric(1 - t)
    zero = (1 - t) / (1 + t)
    return numbers, float(-(np.log2(zero) + mean * np.log2(t)).sum())


def stepped(numbers):
    return SteppedTensor(numbers, np.ones(numbers.shape[1]))


@pytest.mark.parametrize("contexts", ["tensor", "column", "smallest"])
@pytest.mark.parametrize(
    "config", [UniformQuantization(4), CodebookQuantization(3, 1), ProductQuantization(4, 5)]
)
def test_a_coded_tensor_decodes_as_before_from_its_parts(config, contexts):
    inner = quantize(table(), config)
    coded = EntropyCoding(contexts).encode(inner)
    for one in (coded, through_bytes(coded)):
        np.testing.assert_array_equal(one.decode(), inner.decode())
        np.testing.assert_array_equal(one.decode_codes(), inner.codes)
    assert "codes" not in coded.arrays()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_signed_numbers_come_back_bit_by_bit(rows, columns, top, seed):
    rng = np.random.default_rng(seed)
    whole = rng.integers(-top, top + 1, (rows, columns)) * (rng.random((rows, columns)) < 0.3)
    inner = SteppedTensor(whole, rng.uniform(0.1, 1, columns))
    np.testing.assert_array_equal(inner.whole, whole)
    for contexts in ("tensor", "column", "size"):
        again = through_bytes(EntropyCoding(contexts).encode(inner))
        np.testing.assert_array_equal(again.decode(), inner.decode())


def test_the_entropy_is_shannons():
    assert entropy_bits([0, 1] * 8) == 16
    assert entropy_bits(np.zeros(9, int)) == 0
    codes = np.array([[0, 5], [0, 5], [0, 6]])
    assert entropy_bits(codes, "column") == pytest.approx(3 * np.log2(3) - 2)


def test_columns_as_contexts_pay_where_columns_differ():
    inner = quantize(table(3000), UniformQuantization(4, granularity="tensor"))
    tensor, column, smallest = (
        EntropyCoding(name).encode(inner).nbytes for name in ("tensor", "column", "smallest")
    )
    assert column == smallest < 0.93 * tensor
    same = quantize(table(40, 16), CodebookQuantization(4, 1))
    assert EntropyCoding().encode(same).contexts == "tensor"


def test_stored_bytes_with_tables_are_near_the_entropy_and_below_general_coders():
    inner = quantize(table(20_000, 8), CodebookQuantization(3))
    coded, bits = EntropyCoding("column").encode(inner), entropy_bits(inner.codes, "column")
    assert 8 * coded.arrays()["coded"].nbytes <= 1.002 * bits + 64
    assert 8 * coded.nbytes <= 1.02 * bits
    for data in (inner.arrays()["codes"].tobytes(), inner.codes.tobytes()):
        general = min(len(zlib.compress(data, 9)), len(lzma.compress(data)))
        assert coded.nbytes < 0.95 * general


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 4])
def test_codes_of_a_real_model_are_within_a_thousandth_of_their_entropy(published_ials, bits):
    _, model, _ = published_ials
    for vectors in (model.user_vectors, model.item_vectors):
        inner = quantize(vectors, UniformQuantization(bits, scale_search="mse"))
        for contexts in ("tensor", "column"):
            coded = EntropyCoding(contexts).encode(inner).arrays()["coded"]
            assert 8 * coded.nbytes <= 1.001 * entropy_bits(inner.codes, contexts)


def test_sizes_as_contexts_come_within_a_few_percent_of_the_law():
    numbers, bits = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), 2.0 ** RANDOM.uniform(-3, 1, 64))
    by_size, by_column = (
        EntropyCoding(name).encode(stepped(numbers)).nbytes for name in ("size", "column")
    )
    assert bits / 8 < by_size < 1.08 * bits / 8  # row levels included
    assert by_size < 0.9 * by_column


@pytest.mark.parametrize(("octaves", "columns", "expected"), [(0, 4, False), (4, 32, True)])
def test_row_levels_are_left_out_where_they_do_not_pay(octaves, columns, expected):
    rows = 2.0 ** RANDOM.uniform(-octaves, octaves, 3000)
    numbers, _ = geometric(rows, np.full(columns, 0.5))
    coded = EntropyCoding("size").encode(stepped(numbers))
    assert ("coded_rows" in coded.arrays()) == expected


def test_spread_finds_the_factors_of_rows_and_columns():
    rows, columns = 2.0 ** RANDOM.uniform(-1, 2, 50), 2.0 ** RANDOM.uniform(-1, 2, 400)
    found = fit_spread(geometric(rows, columns)[0])
    assert np.corrcoef(np.log(found.rows), np.log(rows))[0, 1] > 0.95
    assert np.corrcoef(np.log(found.columns), np.log(columns))[0, 1] > 0.9
    assert (fit_spread(np.zeros((3, 2))).columns > 0).all()


@pytest.mark.parametrize("contexts", ["column", "size"])
def test_damage_is_an_error_or_another_table_and_never_a_hang(contexts):
    numbers, _ = geometric(np.ones(500), np.full(8, 3.0))
    tensor = EntropyCoding(contexts).encode(stepped(numbers))
    refused = 0
    for name, array in tensor.arrays().items():
        for damaged in (array[:-1], np.r_[array, array[:2]], array[::-1].copy()):
            try:
                read_tensor("entropy", tensor.header(), tensor.arrays() | {name: damaged}).decode()
            except (ValueError, IndexError):
                refused += 1
    assert refused > 2 * len(tensor.arrays())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: EntropyCoding("row"), ValueError, "contexts is 'row'"),
        (lambda: EntropyCoding().encode(DenseTensor(np.ones(3))), TypeError, "'dense'"),
        (lambda: EntropyCoding("size").encode(quantize(table(), UniformQuantization())), TypeError,
         "expected signed numbers"),
        (lambda: stepped(np.full((2, 2), -2001)), ValueError, "whole reaches 2001"),
    ],
)  # fmt: skip
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_reading_needs_no_tensorflow():
    code = (
        "import sys, numpy as np\n"
        "from recsys_lib.compression.quantization.entropy import EntropyCoding\n"
        "from recsys_lib.compression.quantization.transform import SteppedTensor\n"
        "from recsys_lib.compression.tensors import read_tensor\n"
        "t = EntropyCoding('size').encode(SteppedTensor(np.arange(12).reshape(4, 3), np.ones(3)))\n"
        "t = read_tensor(t.kind, t.header(), t.arrays())\n"
        "print(int(t.decode().sum()), {'tensorflow', 'keras'} & set(sys.modules))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert out.strip() == "66 set()"
