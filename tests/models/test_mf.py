"""Matrix factorisation by gradient descent: each step by hand, and what it learns."""

import numpy as np
import pytest

from recsys_lib.data import Interactions, load_split
from recsys_lib.evaluation import evaluate_full_ranking, evaluate_ratings
from recsys_lib.models import ALS, MF, Popularity


@pytest.fixture(scope="module")
def ratings():
    return load_split("ml-100k", fallback="synthetic")


def test_a_step_is_the_gradient_of_the_squared_error():
    random = np.random.default_rng(1)
    random.permutation(1)
    user, item = (np.append(random.normal(0.0, 0.5, (1, 3))[0, :2], 0) for _ in range(2))
    error = 0.0 - user @ item  # the only rating is the mean, and biases start at 0
    new_user = user + 0.1 * (error * np.append(item[:2], 1) - 0.2 * user)
    new_item = item + 0.1 * (error * np.append(user[:2], 1) - 0.2 * item)
    model = MF(2, epochs=1, learning_rate=0.1, l2=0.2, init_std=0.5, seed=1)
    model.fit(Interactions([0], [0], ratings=[4.0]))
    assert model.global_mean == 4.0
    assert np.allclose(np.append(model.user_vectors, model.user_biases), new_user, atol=1e-6)
    assert np.allclose(np.append(model.item_vectors, model.item_biases), new_item, atol=1e-6)
    assert abs(new_user[-1]) > 1e-3


def test_a_step_is_the_gradient_of_the_cross_entropy():
    """One item: the positive pair and then the negative one are both (0, 0)."""
    keras = pytest.importorskip("keras")
    random = np.random.default_rng(3)
    random.permutation(1)
    user, item = (random.normal(0.0, 0.5, (1, 3)) for _ in range(2))
    user[:, -1] = item[:, -1] = 0
    variables = [keras.Variable(v.astype("float32")) for v in (user, item)]
    import tensorflow as tf

    for label in (1.0, 0.0):
        with tf.GradientTape() as tape:
            u, i = (v.value for v in variables)
            logit = tf.reduce_sum(u[:, :2] * i[:, :2]) + u[0, 2] + i[0, 2]
            loss = tf.nn.sigmoid_cross_entropy_with_logits(label, logit)
            loss += 0.2 * (tf.nn.l2_loss(u) + tf.nn.l2_loss(i))
        for variable, gradient in zip(variables, tape.gradient(loss, [u, i]), strict=True):
            variable.assign_sub(0.1 * gradient)
    settings = {"loss": "logistic", "negatives": 1, "init_std": 0.5, "seed": 3}
    model = MF(2, epochs=1, learning_rate=0.1, l2=0.2, **settings).fit(Interactions([0], [0]))
    np.testing.assert_allclose(model.user_vectors[0], variables[0].numpy()[0, :2], rtol=1e-4)
    np.testing.assert_allclose(model.item_vectors[0], variables[1].numpy()[0, :2], rtol=1e-4)
    assert model.item_biases[0] == pytest.approx(float(variables[1].numpy()[0, 2]), rel=1e-3)


def test_it_predicts_ratings_about_as_well_as_least_squares(ratings):
    train, test = ratings.train.split_random(0.1)
    ours = evaluate_ratings(MF().fit(train), test).rmse
    mean = float(np.std(test.ratings))
    assert ours < 0.97 * mean
    assert ours < evaluate_ratings(ALS().fit(train), test).rmse + 0.06


def test_the_logistic_loss_ranks_above_popularity():
    split = load_split("ncf-ml-1m", fallback="synthetic")
    keep = split.train.user_ids < 1500
    parts = [part.user_ids < 1500 for part in (split.train, split.test)]
    train, test = (
        Interactions(p.user_ids[k], p.item_ids[k], num_users=1500, num_items=split.num_items)
        for p, k in zip((split.train, split.test), parts, strict=True)
    )
    assert keep.any()
    model = MF(16, epochs=20, learning_rate=0.02, l2=0.005, loss="logistic", init_std=0.1)
    ndcg = evaluate_full_ranking(model.fit(train), train, test).ndcg
    assert ndcg > 1.1 * evaluate_full_ranking(Popularity().fit(train), train, test).ndcg


def test_a_run_repeats_itself_and_more_threads_learn_the_same(ratings):
    train, test = ratings.train.split_random(0.1)
    models = [MF(8, epochs=5, num_threads=n).fit(train) for n in (1, 3, 3)]
    assert np.array_equal(models[1].item_vectors, models[2].item_vectors)
    errors = [evaluate_ratings(model, test).rmse for model in models]
    assert errors[1] == pytest.approx(errors[0], rel=0.01)


def test_without_ratings_a_user_or_item_has_only_what_is_known_of_the_other_side():
    data = Interactions([0, 0], [0, 1], ratings=[5.0, 3.0], num_users=2, num_items=3)
    model = MF(2, epochs=3).fit(data)
    assert model.score([1], [2]).tolist() == [4.0]


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: MF(0), ValueError, "embedding_dim"),
        (lambda: MF(learning_rate=0), ValueError, "learning_rate"),
        (lambda: MF(loss="hinge"), ValueError, "loss"),
        (lambda: MF(negatives=0), ValueError, "negatives"),
        (lambda: MF().fit(Interactions([0], [0])), ValueError, "ratings"),
        (
            lambda: MF(learning_rate=100.0).fit(Interactions([0, 1], [0, 1], ratings=[1.0, 5.0])),
            ValueError,
            "learning_rate",
        ),
    ],
)
def test_refuses(call, error, word):
    with pytest.raises(error, match=word):
        call()
