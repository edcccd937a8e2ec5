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
from recsys_lib.compression.quantization.entropy import EntropyCodedTensor, fit_spread
from recsys_lib.compression.quantization.transform import SteppedTensor
from recsys_lib.compression.tensors import DenseTensor, read_tensor

RANDOM = np.random.default_rng(0)


def table(rows: int = 400, columns: int = 12) -> np.ndarray:
    spread = np.geomspace(1, 0.1, columns)
    return (RANDOM.normal(size=(rows, columns)) * spread).astype(np.float32)


def through_bytes(tensor: EntropyCodedTensor) -> EntropyCodedTensor:
    header = json.loads(json.dumps(tensor.header()))
    again = read_tensor(tensor.kind, header, {n: a.copy() for n, a in tensor.arrays().items()})
    assert isinstance(again, EntropyCodedTensor) and again.nbytes == tensor.nbytes
    return again


def geometric(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, float]:
    """Draw two-sided geometric numbers of given mean size; and their entropy in bits."""
    mean = rows[:, None] * columns
    t = (np.sqrt(1 + mean**2) - 1) / mean
    numbers = RANDOM.geometric(1 - t) - RANDOM.geometric(1 - t)
    zero = (1 - t) / (1 + t)
    return numbers, float(-(np.log2(zero) + mean * np.log2(t)).sum())


@pytest.mark.parametrize("contexts", ["tensor", "column", "smallest"])
@pytest.mark.parametrize(
    "config", [UniformQuantization(4), CodebookQuantization(3, 1), ProductQuantization(4, 5)]
)
def test_a_coded_tensor_decodes_as_before_from_its_parts(config: object, contexts: str) -> None:
    inner = quantize(table(), config)
    coded = EntropyCoding(contexts).encode(inner)
    np.testing.assert_array_equal(coded.decode(), inner.decode())
    np.testing.assert_array_equal(coded.decode_codes(), inner.codes)
    np.testing.assert_array_equal(through_bytes(coded).decode(), inner.decode())
    assert "codes" not in coded.arrays()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2000), st.integers(0, 2**32 - 1))
def test_signed_numbers_come_back_bit_by_bit(rows: int, columns: int, top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = rng.integers(-top, top + 1, (rows, columns)) * (rng.random((rows, columns)) < 0.3)
    inner = SteppedTensor(whole, rng.uniform(0.1, 1, columns))
    np.testing.assert_array_equal(inner.whole, whole)
    for contexts in ("tensor", "column", "size"):
        again = through_bytes(EntropyCoding(contexts).encode(inner))
        np.testing.assert_array_equal(again.decode(), inner.decode())


def test_the_entropy_is_shannons() -> None:
    assert entropy_bits([0, 1] * 8) == 16
    assert entropy_bits(np.zeros(9, int)) == 0
    codes = np.array([[0, 5], [0, 5], [0, 6]])
    assert entropy_bits(codes, "column") == pytest.approx(3 * np.log2(3) - 2)


def test_columns_as_contexts_pay_where_columns_differ() -> None:
    inner = quantize(table(3000), UniformQuantization(4, granularity="tensor"))
    tensor, column, smallest = (
        EntropyCoding(contexts).encode(inner).nbytes
        for contexts in ("tensor", "column", "smallest")
    )
    assert column == smallest < 0.93 * tensor
    same = quantize(table(40, 16), CodebookQuantization(4, 1))
    assert EntropyCoding().encode(same).contexts == "tensor"


def test_stored_bytes_with_tables_are_near_the_entropy_and_below_general_coders() -> None:
    inner = quantize(table(20_000, 8), CodebookQuantization(3))
    coded = EntropyCoding("column").encode(inner)
    assert 8 * coded.arrays()["coded"].nbytes <= 1.002 * entropy_bits(inner.codes, "column") + 64
    assert 8 * coded.nbytes <= 1.02 * entropy_bits(inner.codes, "column")
    packed, loose = inner.arrays()["codes"].tobytes(), inner.codes.tobytes()
    general = min(
        len(compress(data))
        for data in (packed, loose)
        for compress in (lambda x: zlib.compress(x, 9), lzma.compress)
    )
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


def test_sizes_as_contexts_come_within_a_few_percent_of_the_law() -> None:
    numbers, bits = geometric(2.0 ** RANDOM.uniform(-3, 3, 4000), 2.0 ** RANDOM.uniform(-3, 1, 64))
    inner = SteppedTensor(numbers, np.ones(64))
    by_size, by_column = (EntropyCoding(c).encode(inner).nbytes for c in ("size", "column"))
    assert bits / 8 < by_size < 1.08 * bits / 8  # row levels included
    assert by_size < 0.9 * by_column


def test_row_levels_are_left_out_where_they_do_not_pay() -> None:
    even, _ = geometric(np.ones(3000), np.full(4, 0.5))
    uneven, _ = geometric(2.0 ** RANDOM.uniform(-4, 4, 3000), np.full(32, 0.5))
    for numbers, expected in ((even, False), (uneven, True)):
        coded = EntropyCoding("size").encode(SteppedTensor(numbers, np.ones(numbers.shape[1])))
        assert ("coded_rows" in coded.arrays()) == expected


def test_spread_finds_the_factors_of_rows_and_columns() -> None:
    rows, columns = 2.0 ** RANDOM.uniform(-1, 2, 50), 2.0 ** RANDOM.uniform(-1, 2, 400)
    numbers, _ = geometric(rows, columns)
    found = fit_spread(numbers)
    assert np.corrcoef(np.log(found.rows), np.log(rows))[0, 1] > 0.95
    assert np.corrcoef(np.log(found.columns), np.log(columns))[0, 1] > 0.9
    assert (fit_spread(np.zeros((3, 2))).columns > 0).all()


@pytest.mark.parametrize("contexts", ["column", "size"])
def test_damage_is_an_error_or_another_table_and_never_a_hang(contexts: str) -> None:
    numbers, _ = geometric(np.ones(500), np.full(8, 3.0))
    tensor = EntropyCoding(contexts).encode(SteppedTensor(numbers, np.ones(8)))
    refused = 0
    for name, array in tensor.arrays().items():
        for damaged in (array[:-1], np.r_[array, array[:2]], array[::-1].copy()):
            try:
                read_tensor("entropy", tensor.header(), tensor.arrays() | {name: damaged}).decode()
            except (ValueError, IndexError):
                refused += 1
    assert refused > 2 * len(tensor.arrays())


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="contexts is 'row'"):
        EntropyCoding("row")
    with pytest.raises(TypeError, match="stored as 'dense'"):
        EntropyCoding().encode(DenseTensor(np.ones(3)))
    with pytest.raises(TypeError, match="expected signed numbers"):
        EntropyCoding("size").encode(quantize(table(), UniformQuantization()))
    with pytest.raises(ValueError, match="whole reaches 2001"):
        SteppedTensor(np.full((2, 2), -2001), np.ones(2))


def test_reading_needs_no_tensorflow() -> None:
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
