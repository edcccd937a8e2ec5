"""Matrix factorisation by gradient descent: each step by hand, and what it learns."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys_lib.data import Interactions, load_split
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_leave_one_out, evaluate_ratings
from recsys_lib.models import ALS, MF, Popularity

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ratings():
    return load_split("ml-100k", fallback="synthetic").train.split_random(0.1)


def start_and_step(data, **settings):
    """Vectors with their bias, of user 0 and all items: before the first step, and after it."""
    found = []
    for rate in (1e-30, 0.1):
        model = MF(2, epochs=1, learning_rate=rate, l2=0.2, init_std=0.5, **settings).fit(data)
        found.append(np.append(model.user_vectors[0], model.user_biases[0]))
        found.append(np.column_stack([model.item_vectors, model.item_biases]))
    return found


def test_a_step_is_the_gradient_of_the_squared_error():
    data = Interactions([0], [0], ratings=[4.0])
    user, items, new_user, new_items = start_and_step(data, seed=1)
    error = 0.0 - user[:2] @ items[0, :2]  # the only rating is the mean, and biases start at 0
    expected_user = user + 0.1 * (error * np.append(items[0, :2], 1) - 0.2 * user)
    expected_item = items[0] + 0.1 * (error * np.append(user[:2], 1) - 0.2 * items[0])
    np.testing.assert_allclose(new_user, expected_user, atol=1e-6)
    np.testing.assert_allclose(new_items[0], expected_item, atol=1e-6)
    assert abs(new_user[-1]) > 1e-3


def test_a_step_is_the_gradient_of_the_cross_entropy():
    """Item 0 is met, and the only drawn item is 1: both gradients are taken at the start."""
    pytest.importorskip("keras")
    import tensorflow as tf

    data, settings = Interactions([0], [0], num_items=2), {"loss": "logistic", "negatives": 1}
    steps = (start_and_step(data, seed=seed, **settings) for seed in range(20))
    # The bias of item 1 moved: it was drawn.
    user, items, new_user, new_items = next(step for step in steps if step[3][1, -1])
    tables = [tf.Variable(table) for table in (user, items)]
    with tf.GradientTape() as tape:
        u, i = tables
        logits = tf.linalg.matvec(i[:, :2], u[:2]) + u[2] + i[:, 2]
        loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits([1.0, 0.0], logits))
        loss += 0.2 * (2 * tf.nn.l2_loss(u) + tf.nn.l2_loss(i))  # the user's, once for each pair
    expected = [x - 0.1 * g for x, g in zip(tables, tape.gradient(loss, tables), strict=True)]
    np.testing.assert_allclose(new_user, expected[0], rtol=1e-4)
    np.testing.assert_allclose(new_items, expected[1], rtol=1e-4)


def test_it_predicts_ratings_about_as_well_as_least_squares(ratings):
    train, test = ratings
    ours, theirs = (evaluate_ratings(model.fit(train), test).rmse for model in (MF(), ALS()))
    assert ours < 0.97 * np.std(test.ratings) and ours < theirs + 0.06


def test_the_logistic_loss_ranks_above_popularity():
    split = load_split("ncf-ml-1m", fallback="synthetic")
    train, test = (part.take(part.user_ids < 1500) for part in (split.train, split.test))
    ours = MF(16, epochs=20, learning_rate=0.02, l2=0.005, loss="logistic", init_std=0.1)
    found, popular = (
        evaluate_full_ranking(model.fit(train), train, test).ndcg for model in (ours, Popularity())
    )
    assert found > 1.1 * popular


def test_a_run_repeats_itself_and_more_threads_learn_the_same(ratings):
    train, test = ratings
    models = [MF(8, epochs=5, num_threads=n).fit(train) for n in (1, 3, 3)]
    assert np.array_equal(models[1].item_vectors, models[2].item_vectors)
    errors = [evaluate_ratings(model, test).rmse for model in models]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


@pytest.mark.slow
def test_the_published_run(real_data):
    """The stored long runs are at the published figure; their first eighth is run again."""
    stored = pd.read_csv(ROOT / "benchmarks/results/mf_long_run.csv").groupby("epochs")
    published = [0.7294, 0.4523]  # Rendle et al. 2020
    runs = stored.get_group(256)
    assert runs["seed"].nunique() == 3 and runs["seconds"].max() < 120
    assert runs[["hit_rate", "ndcg"]].mean().tolist() == pytest.approx(published, abs=0.002)
    split = real_data("ncf-ml-1m")
    settings = {"learning_rate": 0.002, "l2": 0.005, "negatives": 8, "init_std": 0.1}
    model = MF(191, epochs=32, loss="logistic", num_threads=2, **settings).fit(split.train)
    result = evaluate_leave_one_out(model, split, k=10)
    expected = stored.get_group(32)[["hit_rate", "ndcg"]].mean().tolist()
    # Another processor rounds otherwise; seeds differ by .008 and .006 here.
    assert [result.hit_rate, result.ndcg] == pytest.approx(expected, abs=0.01)


def test_without_ratings_a_user_or_item_has_only_what_is_known_of_the_other_side():
    data = Interactions([0, 0], [0, 1], ratings=[5.0, 3.0], num_users=2, num_items=3)
    assert MF(2, epochs=3).fit(data).score([1], [2]).tolist() == [4.0]


UNRATED, FAR = Interactions([0], [0]), Interactions([0, 1], [0, 1], ratings=[1.0, 5.0])
REFUSED = [
    (lambda: MF(0), "embedding_dim"),
    (lambda: MF(learning_rate=0), "learning_rate"),
    (lambda: MF(loss="hinge"), "loss"),
    (lambda: MF(negatives=0), "negatives"),
    (lambda: MF().fit(UNRATED), "ratings"),
    (lambda: MF(learning_rate=100.0).fit(FAR), "learning_rate"),
]


@pytest.mark.parametrize("call, word", REFUSED)
def test_refuses(call, word):
    with pytest.raises(ValueError, match=word):
        call()
