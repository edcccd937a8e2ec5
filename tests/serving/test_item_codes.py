"""Codes and the bounds of their errors, decoded here by hand from the bytes."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.serving.item_codes import encode_items, zero_point


def decode(codes):
    """Undo the layout and the rounding: (num_blocks * 16, d)."""
    num_blocks = len(codes.bounds)
    groups = codes.blocks.reshape(num_blocks, -1, 16, 4)
    if codes.bits == 4:
        halves = np.stack([groups & 15, groups >> 4], axis=2)  # (blocks, pairs, 2, 16, 4)
        groups = halves.reshape(num_blocks, -1, 16, 4)
    whole = groups.transpose(0, 2, 1, 3).reshape(num_blocks, 16, -1)[:, :, : codes.embedding_dim]
    scale = codes.bounds[:, 0].astype(np.float64)[:, None, None]
    return ((whole - zero_point(codes.bits)) * scale).reshape(num_blocks * 16, -1)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(1, 1), (16, 8), (50, 13), (20_000, 24)])
def test_bounds_hold_for_every_item(bits, shape):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=shape) * rng.lognormal(size=(shape[0], 1))).astype(np.float32)
    codes = encode_items(rows, bits)
    decoded = decode(codes)[: len(rows)]
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


@pytest.mark.parametrize(("bits", "low", "high"), [(8, 0.005, 0.01), (4, 0.08, 0.15)])
def test_errors_are_of_the_size_that_the_bits_allow(bits, low, high):
    rows = np.random.default_rng(0).normal(size=(1600, 64)).astype(np.float32)
    bounds = encode_items(rows, bits).bounds
    assert low < np.mean(bounds[:, 1] / bounds[:, 3]) < high


def test_bytes():
    rows = np.ones((160, 64), np.float32)
    assert encode_items(rows, 8).nbytes == 160 * 64 + 10 * 16
    assert encode_items(rows, 4).nbytes == 160 * 32 + 10 * 16


def test_a_hand_made_block():
    rows = np.full((16, 8), 7.5, np.float32)
    rows[0] = np.array([1, -1, -1, 1, -1, -1, 1, 1]) * 7.5
    codes = encode_items(rows, 4)
    assert codes.bounds[0, 0] == pytest.approx(1.0)
    # lower halves hold dimensions 0 to 3 of item 0, upper halves dimensions 4 to 7
    np.testing.assert_array_equal(codes.blocks[:4] & 15, [15, 0, 0, 15])
    np.testing.assert_array_equal(codes.blocks[:4] >> 4, [0, 0, 15, 15])
    assert (codes.blocks[4:] == 255).all()


def test_nothing_to_encode():
    codes = encode_items(np.empty((0, 8), np.float32), 4)
    assert (codes.blocks.size, codes.bounds.shape, codes.nbytes) == (0, (0, 4), 0)


@pytest.mark.parametrize("emit", ["dot4_portable", "dot4_vnni"])
def test_byte_dot_product_both_ways(emit):
    numba = pytest.importorskip("numba")
    from recsys_lib.serving import simd

    if emit == "dot4_vnni" and not simd.has_byte_dot_product():
        pytest.skip("this processor has no AVX-512 VNNI")
    dot4 = simd.make_dot4(getattr(simd, emit))
    zeros, load, splat, at_least = simd.zeros, simd.load_bytes, simd.splat4, simd.at_least

    @numba.njit
    def reach(codes, query, bound):
        return at_least(dot4(zeros(), load(codes, 0), splat(query, 0)), np.int32(bound))

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, 64).astype(np.uint8)
    codes[:8] = 255
    for query in ([-128] * 4, [127] * 4, [-1, 5, 0, 99]):
        signed = np.array(query, np.int8)
        sums = codes.reshape(16, 4).astype(int) @ signed.astype(int)
        for bound in (*sums[:3], sums.min(), sums.max() + 1):
            bits = reach(codes, signed, bound)
            assert [(bits >> lane) & 1 for lane in range(16)] == (sums >= bound).tolist()
