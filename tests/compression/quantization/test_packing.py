"""Codes of a few bits, stored without gaps."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_lib.compression.quantization import pack_bits, unpack_bits


@given(
    st.integers(1, 8).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1))))
)
@settings(max_examples=100, deadline=None)
def test_packing_and_unpacking_is_the_identity(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    packed = pack_bits(np.array(codes, np.int64), bits)
    assert packed.nbytes == -(-len(codes) * bits // 8)
    assert unpack_bits(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits_lie_as_numpy_packs_them(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, 1001).astype(np.uint8)
    each = np.unpackbits(codes[:, None], axis=1, bitorder="little", count=bits)
    expected = np.packbits(each.reshape(-1), bitorder="little")
    np.testing.assert_array_equal(pack_bits(codes, bits), expected)


def test_many_codes_cross_the_pieces_and_do_not_take_long() -> None:
    codes = np.random.default_rng(0).integers(0, 8, 6_000_001).astype(np.uint8)
    start = time.perf_counter()
    again = unpack_bits(pack_bits(codes, 3), 3, len(codes))
    seconds = time.perf_counter() - start
    np.testing.assert_array_equal(again, codes)
    assert seconds < 5  # a loop in Python takes more


def test_codes_of_any_shape_are_taken_in_order() -> None:
    codes = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(pack_bits(codes.T, 4), pack_bits(codes.T.ravel(), 4))


@pytest.mark.parametrize(
    ("codes", "bits", "error", "message"),
    [
        ([4], 2, ValueError, "codes reach from 4 to 4"),
        ([-1], 2, ValueError, "codes reach from -1 to -1"),
        ([0.5], 2, TypeError, "codes is of type float64"),
        ([0], 9, ValueError, "bits is 9"),
        ([0], 0, ValueError, "bits is 0"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, bits, error, message) -> None:
    with pytest.raises(error, match=message):
        pack_bits(codes, bits)


def test_another_number_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 bytes for 5 codes of 3 bits"):
        unpack_bits(np.zeros(3, np.uint8), 3, 5)
