"""Product quantization against faiss, and what rotations and score weights gain."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.compression import CompressedModel
from recsys_lib.compression.quantization import ProductQuantization, quantize
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.models import Factors

faiss = pytest.importorskip("faiss")


def correlated(rows: int = 2000, columns: int = 16, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(rows, columns)) @ random.normal(size=(columns, columns))
    return mixed.astype(np.float32)


def error(table: np.ndarray, config: ProductQuantization) -> float:
    stored = quantize(table, config)
    return float(((stored.decode() - table) ** 2).sum() / (table**2).sum())


@pytest.mark.parametrize(("pieces", "bits"), [(4, 5), (8, 4), (2, 4)])
def test_error_no_larger_than_that_of_faiss(pieces: int, bits: int) -> None:
    table = correlated()
    theirs = faiss.ProductQuantizer(table.shape[1], pieces, bits)
    theirs.train(table)
    decoded = theirs.decode(theirs.compute_codes(table))
    reference = ((decoded - table) ** 2).sum() / (table**2).sum()
    ours = [
        error(table, ProductQuantization(pieces, bits, dtype="float32", iterations=25, seed=seed))
        for seed in range(3)
    ]
    assert np.mean(ours) <= 1.02 * reference  # both start at random


def test_the_rotation_gains_as_much_as_the_one_that_faiss_learns() -> None:
    table = correlated(800)
    pieces, bits = 8, 4
    matrix = faiss.OPQMatrix(16, pieces)
    quantizer = faiss.ProductQuantizer(16, pieces, bits)
    matrix.niter, matrix.pq = 20, quantizer
    matrix.train(table)
    turned = matrix.apply(table)
    quantizer.train(turned)
    decoded = quantizer.decode(quantizer.compute_codes(turned))
    learned = ((decoded - turned) ** 2).sum() / (table**2).sum()
    plain, principal = (
        error(table, ProductQuantization(pieces, bits, rotation, "float32"))
        for rotation in ("none", "principal")
    )
    assert principal < 0.8 * plain
    assert principal < 1.05 * learned


def test_score_weights_gain_what_they_promise() -> None:
    spread = np.float32([9, 5, 3, 2, 1, 1, 0.5, 0.1])
    model = Factors(correlated(1000, 8, seed=1), correlated(500, 8, seed=2) * spread)
    config, users = ProductQuantization(4, 4), np.arange(500)

    def score_error(stored: CompressedModel) -> float:
        off = stored.score_all_items(users) - model.score_all_items(users)
        return float((off**2).sum())

    plain, weighted = (quantize(model, config, weighting=one) for one in ("none", "scores"))
    assert score_error(weighted) < 0.8 * score_error(plain)
    assert weighted.nbytes == plain.nbytes  # the weights go into the centroids


def test_rows_that_count_more_are_met_better() -> None:
    table = correlated(1000, 8)
    weights = np.where(np.arange(1000) < 50, 100, 1).astype(np.float32)
    config = ProductQuantization(4, 3)
    plain, weighted = (
        ((quantize(table, config, counts=w).decode() - table)[:50] ** 2).sum()
        for w in (None, weights)
    )
    assert weighted < 0.7 * plain


@pytest.mark.parametrize("rotation", ["none", "principal"])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_parts_make_the_same_tensor_again(rotation: str, bits: int) -> None:
    table = correlated(50, 6)
    stored = quantize(table, ProductQuantization(3, bits, rotation))
    again = read_tensor(stored.kind, stored.header(), stored.arrays())
    np.testing.assert_array_equal(again.decode(), stored.decode())
    books = 3 * (1 << bits) * 2 * 2
    back = 0 if rotation == "none" else 6 * 6 * 2
    assert sum(a.nbytes for a in stored.arrays().values()) == -(-50 * 3 * bits // 8) + books + back


def test_no_more_rows_than_centroids_is_exact_and_costs_more_than_it_saves() -> None:
    table = correlated(200, 8)
    stored = quantize(table, ProductQuantization(4, 8, dtype="float32"))
    np.testing.assert_allclose(stored.decode(), table, rtol=1e-6)
    assert stored.nbytes > table.nbytes


def test_rows_of_zeros_and_constant_tables() -> None:
    zeros = np.zeros((30, 4), np.float32)
    for rotation in ("none", "principal"):
        stored = quantize(zeros, ProductQuantization(2, 2, rotation))
        assert (stored.decode() == 0).all()


def test_bad_input_is_named() -> None:
    table, config = correlated(20, 6), ProductQuantization(2)
    for options in ({"bits": 9}, {"rotation": "pca"}, {"num_subspaces": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
            ProductQuantization(**{"num_subspaces": 2, **options})
    with pytest.raises(ValueError, match="num_subspaces is 4: expected a divisor"):
        quantize(table, ProductQuantization(4))
    with pytest.raises(ValueError, match="expected 2 dimensions"):
        quantize(table[0], config)
    with pytest.raises(ValueError, match="NaN"):
        quantize(table * np.nan, config)
    for counts in (np.ones(3), -np.ones(20)):
        with pytest.raises(ValueError, match="counts"):
            quantize(table, config, counts=counts)
    with pytest.raises(ValueError, match="weighting is 'scores'"):
        quantize(Factors(table, table), "float16", weighting="scores")
