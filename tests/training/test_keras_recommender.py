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
from recsys_lib.training.automatic import automatic

ROWS = np.arange(18)
DATA = Interactions(ROWS // 3, ROWS % 8, ROWS % 5 + 1.0, num_items=8)
OPTIONS = {"epochs": np.int64(3), "batch_size": np.int16(4), "progress": False}
Adam = keras.optimizers.Adam


def recommender(kind="matrix_factorization", **changes):
    return KerasRecommender(RatingModelConfig(kind, 6, 8, embedding_dim=4, **changes), **OPTIONS)


def test_copies_keep_options_and_history(tmp_path):
    """That copies of all kinds score the same is in tests/test_conversions.py."""
    model = recommender().fit(DATA)
    model.save(tmp_path / "model")
    pickled, lists = pickle.loads(pickle.dumps(model)), model.recommend([2, 0], k=3, exclude=DATA)
    for other in (load_model(tmp_path / "model"), copy.deepcopy(model), pickled):
        assert (other.config, other.options) == (model.config, OPTIONS) and other is not model
        np.testing.assert_array_equal(other.recommend([2, 0], k=3, exclude=DATA), lists)
    assert pickled.history == model.history
    again = pickled.fit(DATA).score_all_items(np.arange(6))
    np.testing.assert_array_equal(again, model.score_all_items(np.arange(6)))


def test_a_model_that_cannot_be_built_anew_is_not_saved(tmp_path):
    model, path = recommender("mlp_ranker").fit(DATA), tmp_path / "model"
    model.save(path)
    before, quantized = path.read_bytes(), quantize_dynamic(model).model
    for call in (lambda: quantized.save(path), lambda: pickle.dumps(quantized)):
        with pytest.raises(TypeError, match="layer 'dense_0' is a quantized DynamicDense"):
            call()
    assert path.read_bytes() == before


def test_a_forked_child_says_that_it_needs_spawn():
    model = recommender("mlp_ranker").fit(DATA)
    calls = [lambda: model.score([0], [0]), lambda: model.score_all_items([0])]
    calls += [lambda: fit(model.keras_model, DATA), lambda: build_rating_model(model.config)]

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


@pytest.mark.slow
@pytest.mark.parametrize("given, shift", [(0.0, 0.0), (0.0, 1.0), (2.0, 0.0)])
def test_mean_rating_is_the_start_of_each_fit_unless_given(tmp_path, given, shift):
    model = recommender(global_bias=given, init_std=1e-6)
    model.options |= {"objective": "squared_error", "optimizer": keras.optimizers.SGD(0.0)}
    ratings = DATA.ratings + shift
    model.fit(DATA).fit(Interactions(DATA.user_ids, DATA.item_ids, ratings, num_items=8))
    scores = model.score([0], [0])
    assert scores[0] == pytest.approx(given or ratings.mean(), abs=1e-5)
    assert model.config.global_bias == given
    model.save(tmp_path / "model.npz")
    for loaded in (KerasRecommender.load(tmp_path / "model.npz"), copy.deepcopy(model)):
        np.testing.assert_array_equal(loaded.score([0], [0]), scores)
        with pytest.raises(RuntimeError, match="optimizer cannot be saved"):
            loaded.fit(DATA)


def test_ids_as_users_have_them():
    scorer = KerasScorer(recommender().fit(DATA).keras_model)
    for users in ([-1], [6], [[0]], [0, 1], [0.0], [True], ["0"]):
        with pytest.raises((TypeError, ValueError), match="_ids"):
            scorer.score(users, [0])
    assert scorer.score(np.array([5], np.uint8), [7]).shape == (1,)
    assert scorer.score([], np.empty(0, int)).shape == (0,)


def test_refuses_and_keeps_the_last_model(tmp_path):
    model = copy.deepcopy(recommender())
    EASE(1.0).fit(DATA).save(tmp_path / "ease")
    for error, name, call in [
        (TypeError, "RatingModelConfig", lambda: KerasRecommender({"kind": "dot_product"})),
        (TypeError, "'epoch'", lambda: KerasRecommender(model.config, epoch=3)),
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
    np.testing.assert_array_equal(model.score([0, 1], [1, 2]), before)


def fitted(train, config=(), **options):
    sizes = train.num_users, train.num_items, 64
    config = RatingModelConfig("matrix_factorization", *sizes, **dict(config))
    return KerasRecommender(config, **{"epochs": 20, "progress": False} | options).fit(train)


def test_who_or_what_occurs_often_is_shrunk_less_each_time():
    model = build_rating_model(RatingModelConfig("dot_product", 400, 400, 2))
    ids = np.arange(400)
    found = {}
    for name, users, items in (("rare", 4, 4), ("users", 100, 100), ("items", 4, 400)):
        pairs = np.repeat(ids[: 400 // users * 4], users), np.arange(400 // users * 4 * users)
        data = Interactions(pairs[0], pairs[1] % (len(pairs[0]) // items), None, None, 400, 400)
        found[name] = automatic(model, data, {"seed": 0}).options["l2"]
    assert found == {"rare": 0.015, "users": pytest.approx(0.006), "items": pytest.approx(0.004)}


@pytest.mark.slow
def test_cross_entropy_on_ncf_ml_1m(real_data):
    split = real_data("ncf-ml-1m")
    updates = 10 * -(-len(split.train) // 8192)
    options = {"l2": 0.005, "negatives_per_positive": 8, "batch_size": 8192, "epochs": 10}
    options["optimizer"] = Adam(keras.optimizers.schedules.CosineDecay(0.015, updates))
    assert evaluate_leave_one_out(fitted(split.train, **options), split).ndcg >= 0.43


@pytest.mark.slow
def test_squared_error_on_ml_100k(real_data):
    options, rmse = {"objective": "squared_error", "l2": 0.2, "batch_size": 1024}, []
    for train, test in list(real_data("ml-100k").split_folds(5, seed=0))[:2]:
        model = fitted(train, {"init_std": 0.01}, optimizer=Adam(0.003), **options)
        rmse.append(evaluate_ratings(model, test).rmse)
    assert np.mean(rmse) <= 0.91  # published: SVD .934, SVD++ .919
