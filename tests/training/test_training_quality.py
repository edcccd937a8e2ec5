"""What gradient descent reaches on real data, in minutes."""

import keras
import numpy as np
import pytest

from recsys_lib.evaluation import evaluate_leave_one_out, evaluate_ratings
from recsys_lib.models import RatingModelConfig
from recsys_lib.training import KerasRecommender


def fitted(train, config, **options):
    return KerasRecommender(config, epochs=20, progress=False, **options).fit(train)


@pytest.mark.slow
def test_cross_entropy_on_ncf_ml_1m(real_data):
    split, batch_size = real_data("ncf-ml-1m"), 8192
    config = RatingModelConfig("matrix_factorization", split.num_users, split.num_items, 64)
    updates = 20 * -(-len(split.train) // batch_size)
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, updates))
    options = {"l2": 0.005, "negatives_per_positive": 8, "batch_size": batch_size}
    model = fitted(split.train, config, optimizer=adam, **options)
    assert evaluate_leave_one_out(model, split).ndcg >= 0.435


@pytest.mark.slow
def test_squared_error_on_ml_100k(real_data):
    config, rmse = RatingModelConfig("matrix_factorization", 943, 1682, 64, init_std=0.01), []
    options = {"objective": "squared_error", "l2": 0.2, "batch_size": 1024}
    for train, test in real_data("ml-100k").split_folds(5, seed=0):
        model = fitted(train, config, optimizer=keras.optimizers.Adam(0.003), **options)
        rmse.append(evaluate_ratings(model, test).rmse)
    assert np.mean(rmse) <= 0.91  # published: SVD .934, SVD++ .919
