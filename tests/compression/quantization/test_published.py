"""Row-wise tables of iALS on MovieLens 1M: what Guan et al. 2019 report for their tables."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from recsys_lib.compression.quantization import UniformQuantization, quantize
from recsys_lib.evaluation import evaluate_leave_one_out


@pytest.fixture(scope="module")
def fitted(published_ials):
    split, model, _ = published_ials
    result = evaluate_leave_one_out(model, split, k=10)
    assert result.ndcg >= 0.453
    return split, model, result.ndcg


@pytest.mark.slow
def test_four_bits_lose_at_most_three_tenths_of_a_percent(fitted):
    split, model, ndcg = fitted
    small = quantize(model, UniformQuantization(bits=4, scale_search="mse"))
    assert small.nbytes <= 0.14 * small.report.bytes_before
    assert evaluate_leave_one_out(small, split, k=10).ndcg >= 0.997 * ndcg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "smaller", "change", "tolerance"),
    [
        (8, 3.9, 0.001, 0.003),
        (4, 7.7, -0.002, 0.004),
        (3, 10.1, -0.009, 0.006),
        (2, 14.8, -0.075, 0.02),
    ],
)
def test_the_curve_of_minmax_ranges(fitted, bits, smaller, change, tolerance):
    split, model, ndcg = fitted
    small = quantize(model, UniformQuantization(bits=bits))
    assert small.report.ratio == pytest.approx(smaller, abs=0.05)
    changed = evaluate_leave_one_out(small, split, k=10).ndcg / ndcg - 1
    assert changed == pytest.approx(change, abs=tolerance)


@pytest.mark.slow
def test_the_search_for_the_range_halves_the_loss_at_two_bits(fitted):
    split, model, ndcg = fitted
    lost = {}
    for search in ("minmax", "mse"):
        small = quantize(model, UniformQuantization(bits=2, scale_search=search))
        lost[search] = 1 - evaluate_leave_one_out(small, split, k=10).ndcg / ndcg
    assert lost["mse"] < lost["minmax"] / 2


@pytest.mark.slow
def test_users_folded_in_from_quantized_items_need_no_table(fitted):
    split, model, ndcg = fitted
    matrix = split.train.to_csr()
    histories = np.split(matrix.indices, matrix.indptr[1:-1])
    small = quantize(model, {"item_vectors": UniformQuantization(bits=4)})
    served = copy.copy(small.model)
    with threadpool_limits(1):
        served.user_vectors = small.model.fold_in(histories)
    assert small.report.bytes_before / small.tensors["item_vectors"].nbytes > 20
    assert evaluate_leave_one_out(served, split, k=10).ndcg >= 0.995 * ndcg
