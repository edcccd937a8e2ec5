"""One bit a number and sums of codewords: against faiss and against their formulas."""

import numpy as np
import pytest

from recsys_lib.compression.quantization import (
    ResidualQuantization,
    SignQuantization,
    UniformQuantization,
)


def table(rows=600, columns=32, seed=0):
    rng = np.random.default_rng(seed)
    scales = np.linspace(2, 0.2, columns)
    return (rng.normal(size=(rows, columns)) * scales + 0.3).astype(np.float32)


def test_one_bit_scores_are_those_of_faiss_rabitq():
    faiss = pytest.importorskip("faiss")
    rows, queries = table(), table(5, seed=1)
    stored = SignQuantization(rotation="none").encode(rows)
    index = faiss.IndexRaBitQ(rows.shape[1], faiss.METRIC_INNER_PRODUCT)
    index.qb = 0  # the query stays in floats
    index.train(rows)
    index.add(rows)
    theirs = np.empty((5, len(rows)), np.float32)
    found, ids = index.search(queries, len(rows))
    np.put_along_axis(theirs, ids, found, axis=1)
    decoded, mean = stored.decode(), rows.mean(axis=0)
    # They keep one more number a row, its exact product with the mean.
    ours = queries @ decoded.T + (rows - decoded) @ mean
    apart = np.abs(ours - theirs) / np.abs(theirs).max()  # float16 scales and mean, here
    assert np.quantile(apart, 0.99) < 1e-3 and np.mean(apart > 1e-3) < 0.01  # a sign of about 0
    assert stored.nbytes < 0.6 * index.ntotal * index.code_size  # they keep float32 factors


def test_unbiased_scales_keep_scores_where_least_squares_shrinks_them():
    rows, rng = table(200), np.random.default_rng(2)
    queries = rows[:50] + rng.normal(size=(50, 32)).astype(np.float32)
    exact = queries @ rows.T
    slopes = {}
    for scale in ("unbiased", "least squares"):
        codes = [SignQuantization("random", False, scale, seed=s).encode(rows) for s in range(30)]
        mean = np.mean([queries @ one.decode().T for one in codes], axis=0)
        slopes[scale] = float((mean * exact).sum() / (exact**2).sum())
    assert abs(slopes["unbiased"] - 1) < 0.02
    assert abs(slopes["least squares"] - 2 / np.pi) < 0.05  # of Gaussian directions


def test_a_copy_to_rank_again_counts_and_is_what_is_decoded():
    rows, copy = table(), UniformQuantization(8)
    bits, both = SignQuantization().encode(rows), SignQuantization(rerank=copy).encode(rows)
    alone = copy.encode(rows)
    assert (both.decode() == alone.decode()).all()
    assert (both.shortlist_vectors() == bits.decode()).all()
    assert both.nbytes > alone.nbytes + rows.size / 8
    assert np.abs(bits.decode() - rows).mean() > 5 * np.abs(both.decode() - rows).mean()


@pytest.mark.slow
def test_residual_error_is_that_of_faiss_and_falls_with_stages():
    faiss, rows = pytest.importorskip("faiss"), table()
    errors = []
    for stages in (2, 4, 8):
        ours = ResidualQuantization(stages, bits=4, dtype="float32").encode(rows).decode()
        peer = faiss.ResidualQuantizer(rows.shape[1], stages, 4)
        peer.train(rows)
        theirs = peer.decode(peer.compute_codes(rows))
        errors.append(((rows - ours) ** 2).sum())
        assert errors[-1] < 1.05 * ((rows - theirs) ** 2).sum()
    assert errors[0] > 1.2 * errors[1] > 1.4 * errors[2]


def test_a_beam_finds_better_sums_than_the_nearest_codeword():
    greedy, wide = (ResidualQuantization(6, beam=b).encode(table()).decode() for b in (1, 8))
    assert ((table() - wide) ** 2).sum() < 0.985 * ((table() - greedy) ** 2).sum()
