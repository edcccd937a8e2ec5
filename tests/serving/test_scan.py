"""Codes and the bounds of their errors, decoded here by hand from the bytes."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from recsys_lib.serving import simd
from recsys_lib.serving.scan import encode_items


def decode(codes, dim):
    """Undo the layout and the rounding: (num_blocks * 16, d)."""
    num_blocks = len(codes.bounds)
    groups = codes.blocks.reshape(num_blocks, -1, 16, 4)
    whole = groups.transpose(0, 2, 1, 3).reshape(num_blocks, 16, -1)[:, :, :dim]
    scale = codes.bounds[:, 0].astype(np.float64)[:, None, None]
    return ((whole - 127.5) * scale).reshape(num_blocks * 16, -1)


@pytest.mark.parametrize("shape", [(1, 1), (16, 8), (50, 13), (20_000, 24)])
def test_bounds_hold_for_every_item(shape):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=shape) * rng.lognormal(size=(shape[0], 1))).astype(np.float32)
    codes = encode_items(rows)
    decoded = decode(codes, shape[1])[: len(rows)]
    block = np.arange(len(rows)) // 16
    for column, lengths in (
        (1, np.linalg.norm(rows - decoded, axis=1)),
        (2, np.linalg.norm(decoded, axis=1)),
        (3, np.linalg.norm(rows.astype(np.float64), axis=1)),
    ):
        assert (lengths <= codes.bounds[block, column]).all()
        largest = np.zeros(len(codes.bounds))
        np.maximum.at(largest, block, lengths)
        full = np.bincount(block) == 16
        assert (codes.bounds[full, column] <= largest[full] * 1.01 + 1e-6).all()  # and are close
    assert np.mean(codes.bounds[:, 1] / codes.bounds[:, 3]) < 0.01  # as 8 bits can be


@pytest.mark.parametrize("emit", ["dot4_portable", "dot4_vnni"])
def test_byte_dot_product_both_ways(emit):
    if emit == "dot4_vnni" and not simd.has_byte_dot_product():
        pytest.skip("this processor has no AVX-512 VNNI")
    dot4 = simd.make_dot4(getattr(simd, emit))
    zeros, load, splat, at_least = simd.zeros, simd.load_bytes, simd.splat4, simd.at_least
    store = simd.store

    @numba.njit
    def reach(codes, query, bound, result):
        sums = dot4(zeros(), load(codes, 0), splat(query, 0))
        store(sums, result, 2)
        return at_least(sums, np.int32(bound))

    codes = np.random.default_rng(0).integers(0, 256, 64).astype(np.uint8)
    codes[:8] = 255
    for query in ([-128] * 4, [127] * 4, [-1, 5, 0, 99]):
        signed, stored = np.array(query, np.int8), np.zeros(20, np.int32)
        sums = codes.reshape(16, 4).astype(int) @ signed.astype(int)
        for bound in (*sums[:3], sums.min(), sums.max() + 1):
            bits = reach(codes, signed, bound, stored)
            assert [(bits >> lane) & 1 for lane in range(16)] == (sums >= bound).tolist()
            np.testing.assert_array_equal(stored, [0, 0, *sums, 0, 0])
