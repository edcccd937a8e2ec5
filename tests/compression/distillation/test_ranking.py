"""Losses on ranked lists against values by hand, plain NumPy loops, and counted draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf

from recsys_lib.compression.distillation.ranking import (
    draw_by_rank,
    draw_outside,
    pair_keys,
    place_weights,
    relaxed_ranking_loss,
    weighted_positives_loss,
)

RNG = np.random.default_rng(0)


def rrd_by_loops(interesting, uninteresting):
    """The likelihood of equation 8 of Kang et al., one factor after the other, in float64."""
    losses = []
    for s, z in zip(interesting, uninteresting, strict=True):
        likelihood = 1.0
        for k in range(len(s)):
            rest = sum(math.exp(x) for x in s[k:]) + sum(math.exp(x) for x in z)
            likelihood *= math.exp(s[k]) / rest
        losses.append(-math.log(likelihood))
    return losses


def test_relaxed_ranking_loss_by_hand():
    # First place: e^1 of e^1 + e^0 + e^0; second: e^0 of e^0 + e^0.
    expected = -math.log(math.e / (math.e + 2)) - math.log(1 / 2)
    assert expected == pytest.approx(1.244592, abs=1e-6)
    got = relaxed_ranking_loss([[1.0, 0.0]], [[0.0]])
    np.testing.assert_allclose(got, [expected], rtol=1e-6)


def test_relaxed_ranking_loss_equals_loops():
    s, z = RNG.normal(0, 2, (5, 4)), RNG.normal(0, 2, (5, 7))
    got = relaxed_ranking_loss(s.astype(np.float32), z.astype(np.float32))
    np.testing.assert_allclose(got, rrd_by_loops(s, z), rtol=1e-5)


def test_relaxed_ranking_gradient_equals_differences():
    s, z, step = RNG.normal(0, 1, (1, 3)), RNG.normal(0, 1, (1, 2)), 1e-6
    at = tf.constant(s, tf.float32), tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(at)
        loss = tf.reduce_sum(relaxed_ranking_loss(*at))
    for number, gradient in enumerate(tape.gradient(loss, at)):
        for column in range(gradient.shape[1]):
            moved = [[s.copy(), z.copy()] for _ in range(2)]
            moved[0][number][0, column] -= step
            moved[1][number][0, column] += step
            slope = (rrd_by_loops(*moved[1])[0] - rrd_by_loops(*moved[0])[0]) / (2 * step)
            assert float(gradient[0, column]) == pytest.approx(slope, abs=1e-4)


def test_relaxed_ranking_loss_ignores_the_order_of_the_uninteresting_and_does_not_overflow():
    s, z = np.float32([[90.0, 80.0]]), np.float32([[100.0, -200.0, 70.0]])
    loss = float(relaxed_ranking_loss(s, z)[0])
    assert np.isfinite(loss)
    assert loss == pytest.approx(float(relaxed_ranking_loss(s, z[:, ::-1])[0]), rel=1e-6)
    assert loss < float(relaxed_ranking_loss(s[:, ::-1], z)[0])  # the order of the others counts


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((3,), (3, 2)), ((2, 3), (2, 0))])
def test_relaxed_ranking_loss_refuses_shapes(shapes):
    with pytest.raises(ValueError, match="expected"):
        relaxed_ranking_loss(*(np.zeros(shape, np.float32) for shape in shapes))


def test_weighted_positives_by_hand():
    loss = weighted_positives_loss([[0.0, math.log(3)]], [0.25, 0.75])
    expected = 0.25 * math.log(2) + 0.75 * math.log(4 / 3)
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)
    with pytest.raises(ValueError, match=r"weights \(3,\)"):
        weighted_positives_loss([[0.0, 1.0]], [0.1, 0.2, 0.7])


def test_place_weights_fall_by_e_in_so_many_ranks():
    weights = place_weights(30, decay=10.0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[10] / weights[0] == pytest.approx(math.exp(-1), rel=1e-5)


def test_draws_by_rank_have_the_probabilities_of_drawing_one_after_the_other():
    drawn = draw_by_rank(np.random.default_rng(1), 40_000, pool=3, count=2, decay=1.0)
    p = np.exp(-np.arange(3.0))
    p /= p.sum()
    for pair in ((0, 1), (0, 2), (1, 2)):
        a, b = pair
        expected = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
        seen = (drawn == pair).all(axis=1).mean()
        assert seen == pytest.approx(expected, abs=4 * math.sqrt(0.25 / len(drawn)))


def test_draws_outside_are_uniform_and_never_excluded():
    excluded = pair_keys(5, np.array([0, 0, 1, 1]), np.array([0, 3, 4, 4]))
    drawn = draw_outside(np.random.default_rng(2), 5, 30_000, excluded)
    assert drawn.shape == (2, 30_000)
    for row, allowed in zip(drawn, ([1, 2, 4], [0, 1, 2, 3]), strict=True):
        items, counts = np.unique(row, return_counts=True)
        assert items.tolist() == allowed
        np.testing.assert_allclose(counts / len(row), 1 / len(allowed), atol=0.015)
