"""Schemes: rows by hand, the same in NumPy and Keras, truly stored, and nearest to a table."""

import numpy as np
import pytest

from recsys_lib.compression import embedding_tables as e
from recsys_lib.compression.tensors import read_tensor

ROWS, DIM = 37, 8
COUNTS = np.random.default_rng(0).zipf(1.5, ROWS)
SCHEMES = [
    e.Hashing(np.int64(10)),  # NumPy's numbers are fine, and stored as plain ones
    e.QuotientRemainder(6),
    e.LowRank(3),
    e.MixedDimension(3, np.float32(0.5)),
    e.MixedDimension(1, 0.0),
    e.RowwiseBits(np.int8(4)),
]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=repr)


def table(rows=ROWS, dim=DIM):
    return np.random.default_rng(0).normal(size=(rows, dim)).astype(np.float32)


def rows_of(scheme, parts, num_rows=ROWS):
    return scheme.lookup(np, parts, np.arange(num_rows))


@every_scheme
@pytest.mark.parametrize("start", ["start", "approximate"])
def test_rows_are_the_same_in_keras_in_numpy_and_from_the_stored_form(scheme, start):
    from recsys_lib.compression.embedding_tables.layers import CompressedEmbedding

    parts = scheme.start(ROWS, DIM, std=1.0, seed=3, counts=COUNTS)
    if start == "approximate":
        drawn, parts = rows_of(scheme, parts), scheme.approximate(table(), COUNTS)
        stored = scheme.encode(table(), COUNTS).decode()
        np.testing.assert_array_equal(stored, scheme.store(parts, ROWS).decode())
        assert ((stored - table()) ** 2).sum() < 0.9 * ((drawn - table()) ** 2).sum()
    expected = rows_of(scheme, parts)
    assert expected.shape == (ROWS, DIM) and np.isfinite(expected).all()
    shapes = {name: part.shape for name, part in parts.items() if part.dtype.kind == "f"}
    fixed = {name: part for name, part in parts.items() if name not in shapes}
    layer = CompressedEmbedding(scheme, ROWS, DIM, shapes, fixed)
    layer.set_parts(parts)
    np.testing.assert_allclose(layer(np.arange(ROWS)), expected, atol=1e-5)
    again = CompressedEmbedding.from_config(layer.get_config())
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(np.arange(ROWS)), layer(np.arange(ROWS)))
    stored = scheme.store(parts, ROWS)
    np.testing.assert_allclose(stored.decode(), expected, rtol=1e-2, atol=1e-2)
    copy = read_tensor(stored.kind, stored.header(), stored.arrays())
    np.testing.assert_array_equal(copy.decode(), stored.decode())


@every_scheme
def test_a_start_has_the_spread_asked_for_and_is_a_table_that_can_be_met(scheme):
    drawn = [
        rows_of(scheme, scheme.start(2000, 16, std=0.2, seed=s, counts=np.ones(2000)), 2000)
        for s in (0, 0, 1)
    ]
    assert 0.12 < drawn[0].std() < 0.3
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    made = rows_of(scheme, scheme.start(ROWS, DIM, std=1.0, seed=5, counts=COUNTS))
    again = rows_of(scheme, scheme.approximate(made, COUNTS))
    loose = 0.05 if isinstance(scheme, (e.QuotientRemainder, e.RowwiseBits)) else 1e-6
    assert ((again - made) ** 2).sum() <= loose * (made**2).sum()


def test_bytes_are_those_of_the_parts_and_ids_are_told_apart():
    for scheme, expected in (
        (e.Hashing(100), 100 * 16 * 2),
        (e.QuotientRemainder(32), (32 + 32) * 16 * 2),
        (e.LowRank(2), (1000 * 2 + 2 * 16) * 2),
        (e.RowwiseBits(4), 1000 * (8 + 4)),
    ):
        arrays = scheme.store(scheme.start(1000, 16), 1000).arrays()
        assert sum(array.nbytes for array in arrays.values()) == expected
    for scheme, least, most in ((e.QuotientRemainder(6), ROWS, ROWS), (e.Hashing(12), 2, 12)):
        drawn = rows_of(scheme, scheme.start(ROWS, DIM))
        assert least <= len(np.unique(drawn, axis=0)) <= most


@pytest.mark.parametrize(("num_rows", "buckets"), [(1000, 50), (3706, 926)])
def test_over_many_draws_ids_collide_no_more_than_by_chance(num_rows, buckets):
    """What Carter and Wegman promise: of one pair, on average over draws. One draw can be bad."""
    drawn = [e.Hashing(buckets, seed).bucket(np, np.arange(num_rows)) for seed in range(200)]
    sizes = np.array([np.bincount(ids, minlength=buckets) for ids in drawn])
    assert sizes.shape == (200, buckets)
    pairs, by_chance = (sizes * (sizes - 1)).sum(1).mean(), num_rows * (num_rows - 1) / buckets
    assert 0.9 * by_chance < pairs < 1.1 * by_chance


def test_large_ids_do_not_overflow():
    from keras import ops

    scheme, ids = e.Hashing(1000, seed=1), np.array([0, 2**31 - 1, 2**31 - 2])
    python = [scheme.bucket(np, np.array([i]))[0] for i in ids]
    np.testing.assert_array_equal(ops.convert_to_numpy(scheme.bucket(ops, ids)), python)
    assert all(0 <= bucket < 1000 for bucket in python)


def test_tables_are_met_as_well_as_can_be():
    parts = e.Hashing(1).approximate(np.float32([[1.0], [3.0]]), np.array([3, 1]))
    np.testing.assert_allclose(parts["rows"], [[1.5]])  # the weighted mean of a bucket
    singular = np.linalg.svd(table(), compute_uv=False)
    left = table() - rows_of(e.LowRank(3), e.LowRank(3).approximate(table()))
    np.testing.assert_allclose((left**2).sum(), (singular[3:] ** 2).sum(), rtol=1e-4)


def test_popular_ids_get_long_vectors():
    scheme, values = e.MixedDimension(4, 0.5), table(5000, 32)
    counts = np.random.default_rng(0).zipf(1.3, 5000).clip(max=10**6)
    sizes, lengths = zip(*scheme.blocks(counts, 32), strict=True)
    assert sum(sizes) == 5000 and lengths[0] == 32
    assert list(lengths) == sorted(lengths, reverse=True) and lengths[-1] < 8
    parts = scheme.approximate(values, counts)
    assert parts["position"].dtype == np.uint16
    error = ((rows_of(scheme, parts, 5000) - values) ** 2).sum(axis=1)
    popular = np.argsort(-counts, kind="stable")
    np.testing.assert_allclose(error[popular[: sizes[0]]], 0, atol=1e-9)
    assert error[popular[sizes[0] :]].mean() > 1


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_row_wise_bits_round_to_the_nearest_level_and_pass_gradients(bits):
    import tensorflow as tf
    from keras import ops

    values = np.vstack([table(), np.zeros((1, DIM)), np.full((1, DIM), 0.3)]).astype(np.float32)
    scheme = e.RowwiseBits(bits)
    rounded = scheme.lookup(np, {"rows": values}, np.arange(len(values)))
    step = np.ptp(values, axis=1, keepdims=True) / (2**bits - 1)
    assert (np.abs(rounded - values) <= 0.51 * step + 2e-3).all()  # scales are float16
    variable = tf.Variable(values)
    with tf.GradientTape() as tape:
        rows = scheme.lookup(ops, {"rows": tf.convert_to_tensor(variable)}, np.arange(2))
        total = tf.reduce_sum(rows * 3)
    gradient = tf.convert_to_tensor(tape.gradient(total, variable)).numpy()
    assert (gradient[:2] == 3).all() and (gradient[2:] == 0).all()


def test_refuses():
    nan, negative, from_dict = np.full((2, 2), np.nan), -np.ones(ROWS), e.TableScheme.from_dict
    mixed, three = e.MixedDimension(), np.ones(3)
    for message, call in (
        ("rank is 9.* 8", lambda: e.LowRank(9).start(10, 8)),
        ("rank is 9.* 8", lambda: e.LowRank(9).encode(table())),
        ("counts is None", lambda: mixed.encode(table())),
        (r"counts has shape \(3,\)", lambda: mixed.start(4, 2, counts=three)),
        ("counts .* none negative", lambda: e.Hashing(3).encode(table(), negative)),
        ("NaN", lambda: e.LowRank(1).encode(nan)),
        (r"table has shape \(3,\)", lambda: e.LowRank(1).encode(three)),
        ("scheme is 'magic'", lambda: from_dict({"scheme": "magic"})),
        ("newer", lambda: from_dict({"scheme": "low_rank", "rank": 2, "new": 1})),
    ):
        with pytest.raises(ValueError, match=message):
            call()
