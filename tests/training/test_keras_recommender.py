"""A trained Keras model behind the protocol of all recommenders."""

import copy
import multiprocessing
import pickle

import keras
import numpy as np
import pytest

from recsys_lib.compression.quantization import quantize_dynamic
from recsys_lib.data import Interactions
from recsys_lib.evaluation import evaluate_leave_one_out, evaluate_ratings
from recsys_lib.models import EASE, RatingModelConfig, build_rating_model, load_model
from recsys_lib.training import KerasRecommender, KerasScorer, fit

ROWS = np.arange(18)
DATA = Interactions(ROWS // 3, ROWS % 8, ROWS % 5 + 1.0, num_items=8)
OPTIONS = {"epochs": np.int64(3), "batch_size": np.int16(4), "progress": False}


def config(kind="matrix_factorization", **changes):
    return RatingModelConfig(kind, 6, 8, embedding_dim=4, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["matrix_factorization", "two_tower", "mlp_ranker", "neumf"])
def test_copies_score_the_same(tmp_path, kind):
    model = KerasRecommender(config(kind), **OPTIONS).fit(DATA)
    model.save(tmp_path / "model")
    users, items = np.repeat(np.arange(6), 8), np.tile(np.arange(8), 6)
    scores, lists = model.score(users, items), model.recommend([2, 0], k=3, exclude=DATA)
    table = model.score_all_items(np.arange(6))
    np.testing.assert_allclose(table.ravel(), scores, rtol=1e-5, atol=1e-6)
    pickled = pickle.loads(pickle.dumps(model))
    for other in (load_model(tmp_path / "model"), pickled, copy.deepcopy(model)):
        assert isinstance(other, KerasRecommender) and other is not model
        assert (other.config, other.options) == (model.config, OPTIONS)
        np.testing.assert_array_equal(other.score(users, items), scores)
        np.testing.assert_array_equal(other.recommend([2, 0], k=3, exclude=DATA), lists)
    assert pickled.history == model.history
    np.testing.assert_array_equal(other.fit(DATA).score(users, items), scores)


def test_a_model_that_cannot_be_built_anew_is_not_saved(tmp_path):
    model = KerasRecommender(config("mlp_ranker"), **OPTIONS).fit(DATA)
    model.save(tmp_path / "model")
    before, quantized = (tmp_path / "model").read_bytes(), quantize_dynamic(model).model
    for call in (lambda: quantized.save(tmp_path / "model"), lambda: pickle.dumps(quantized)):
        with pytest.raises(TypeError, match="layer 'dense_0' is a quantized DynamicDense"):
            call()
    assert (tmp_path / "model").read_bytes() == before


def test_a_forked_child_says_that_it_needs_spawn():
    model = KerasRecommender(config("mlp_ranker"), **OPTIONS).fit(DATA)
    calls = [lambda: model.score([0], [0]), lambda: model.score_all_items([0])]
    calls += [lambda: fit(model.keras_model, DATA), lambda: build_rating_model(config())]

    def child(answers):
        for call in calls:
            try:
                answers.put(call())
            except RuntimeError as error:
                answers.put(str(error))

    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    assert all("spawn" in answers.get(timeout=20) for _ in calls)
    process.join(20)


def test_mean_rating_is_the_start_of_each_fit(tmp_path):
    still = {"objective": "squared_error", "optimizer": keras.optimizers.SGD(0.0), "l2": 0.1}
    model = KerasRecommender(config(init_std=1e-6), **OPTIONS)
    model.options |= still
    for shift in (0.0, 1.0):
        data = Interactions(DATA.user_ids, DATA.item_ids, DATA.ratings + shift, num_items=8)
        scores = model.fit(data).score([0], [0])
        assert scores[0] == pytest.approx(data.ratings.mean(), abs=1e-5)
    assert model.config.global_bias == 0.0
    model.save(tmp_path / "model.npz")
    for loaded in (KerasRecommender.load(tmp_path / "model.npz"), copy.deepcopy(model)):
        np.testing.assert_array_equal(loaded.score([0], [0]), scores)
        with pytest.raises(RuntimeError, match="optimizer cannot be saved"):
            loaded.fit(DATA)
    model = KerasRecommender(config(global_bias=2.0, init_std=1e-6), **OPTIONS)
    model.options |= still
    assert model.fit(DATA).score([0], [0])[0] == pytest.approx(2.0, abs=1e-5)


def test_refuses(tmp_path):
    scorer = KerasScorer(build_rating_model(config()))
    for users in ([-1], [6], [[0]], [0, 1], [0.0], [True], ["0"]):
        with pytest.raises((TypeError, ValueError), match="_ids"):
            scorer.score(users, [0])
    assert scorer.score(np.array([5], np.uint8), [7]).shape == (1,)
    assert scorer.score([], np.empty(0, int)).shape == (0,)
    model = copy.deepcopy(KerasRecommender(config(), **OPTIONS))
    EASE(1.0).fit(DATA).save(tmp_path / "ease")
    for error, name, call in [
        (TypeError, "RatingModelConfig", lambda: KerasRecommender({"kind": "dot_product"})),
        (TypeError, "'epoch'", lambda: KerasRecommender(config(), epoch=3)),
        (RuntimeError, "not fitted", lambda: model.score([0], [0])),
        (ValueError, "interactions counts 6", lambda: model.fit(Interactions([5], [8]))),
        (TypeError, "histories", lambda: model.fit(DATA).recommend(histories=[[1, 2]])),
        (ValueError, "expected Keras", lambda: KerasRecommender.load(tmp_path / "ease")),
    ]:
        with pytest.raises(error, match=name):
            call()
    before = model.score([0, 1], [1, 2])
    model.options["objective"] = "squared_error"
    with pytest.raises(ValueError, match="no ratings"):
        model.fit(Interactions([5], [7]))
    np.testing.assert_array_equal(model.score([0, 1], [1, 2]), before)  # the last model stays


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
