"""A model that is converted, copied, stored or taken apart scores as it did, and loses no part."""

import copy
import functools
import json
import pickle

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from recsys_lib import models as m
from recsys_lib.compression import (
    load_compressed,
    named_weights,
    save_compressed,
    store_weights,
    with_weights,
)
from recsys_lib.compression.distillation import start_from_teacher
from recsys_lib.compression.quantization import UniformQuantization, quantize
from recsys_lib.data import Interactions, Split
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import Factors, RatingModelConfig, as_factors, load_model
from recsys_lib.models.factors import FoldIn
from recsys_lib.recipe import Quantize, compress
from recsys_lib.training import KerasRecommender

USERS, ITEMS = 12, 9
RNG = np.random.default_rng(0)
PAIRS = np.argwhere(RNG.random((USERS, ITEMS)) < 0.5)
DATA = Interactions(*PAIRS.T, RNG.integers(1, 6, len(PAIRS)), num_users=USERS, num_items=ITEMS)
SPLIT = Split(*DATA.split_random(0.3, seed=0))
KERAS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")


def tables(seed, biases=True, **options):
    """Return Factors of random numbers."""
    rng = np.random.default_rng(seed)
    users, items = (rng.normal(size=(n, 3)) for n in (USERS, ITEMS))
    if biases:
        options |= {"user_biases": users[:, 0] + 1, "item_biases": items[:, 1] - 2}
    return Factors(items, users, **options)


def trained(kind):
    config = RatingModelConfig(kind, USERS, ITEMS, 4, **({} if kind in KERAS[:2] else TOWERS))
    options = {"objective": "squared_error"} if kind == "matrix_factorization" else {}
    model = KerasRecommender(config, epochs=3, batch_size=8, progress=False, **options).fit(DATA)
    rng = np.random.default_rng(0)
    for weight in model.keras_model.weights:
        weight.assign_add(rng.normal(size=weight.shape) * 0.3)
    return model


TOWERS = {"hidden_units": (6, 5)}
FACTORS = {
    "IALS": lambda: m.IALS(4, epochs=3).fit(DATA),
    "ALS": lambda: m.ALS(4, epochs=3).fit(DATA),
    "MF": lambda: m.MF(4, epochs=3, learning_rate=0.05).fit(DATA),
    "biases": lambda: tables(1, global_mean=3.5),
    "mean": lambda: tables(2, biases=False, global_mean=-2.0),
    "fold-in and mean": lambda: tables(3, biases=False, global_mean=1.5, fold_in=FoldIn(0.1, 0.2)),
    **{kind: lambda kind=kind: trained(kind) for kind in KERAS[:3]},
}
OTHERS = {
    "Popularity": lambda: m.Popularity().fit(DATA),
    "EASE": lambda: m.EASE(2.0).fit(DATA),
    **{kind: lambda kind=kind: trained(kind) for kind in KERAS[3:]},
}


@functools.cache
def made(name):
    return (FACTORS | OTHERS)[name]()


def scores(model):
    """Return all scores, and check that all ways to ask for them agree."""
    if not hasattr(model, "score_all_items"):  # a Keras model
        ids = np.indices((USERS, ITEMS), np.int32).reshape(2, -1)
        return np.asarray(model(list(ids))).reshape(USERS, ITEMS)
    table = model.score_all_items(np.arange(USERS))
    pairs = model.score(*np.indices((USERS, ITEMS)).reshape(2, -1)).reshape(USERS, ITEMS)
    close(pairs, table)
    return table


def close(found, expected, error=0.0):
    scale = max(float(np.abs(expected).max()), 1e-30)
    np.testing.assert_array_less(np.abs(found - expected), error + 1e-5 * scale)


def largest_error(model, compressed):
    """Bound the error of each score by half a step of every number that it is made of."""
    names = ("user_vectors", "item_vectors")  # biases stay as they are
    users, items = (np.abs(getattr(model, name)) for name in names)
    du, di = (0.5 * np.float32(compressed.tensors[name].scale) for name in names)  # (rows, 1)
    bound = users.sum(1)[:, None] * di.T + du * items.sum(1) + users.shape[1] * du * di.T
    return 1.01 * bound


def conversions_of(model, folder):
    """Yield what a model of an inner product can become, with the error that it may have."""
    factors = as_factors(model)
    yield factors, 0
    vectors = m.inner_product_vectors(getattr(model, "keras_model", model))
    yield Factors(vectors[1], vectors[0]), 0
    save_compressed(folder / "m", model if isinstance(model, Factors) else factors)
    yield load_compressed(folder / "m"), 0
    yield with_weights(model, {}), 0
    yield store_weights("nothing", None, model, {}), 0
    for kind in KERAS[:2]:
        yield start_from_teacher(model, RatingModelConfig(kind, USERS, ITEMS, 9)), 0
    rounded = quantize(factors, UniformQuantization(8))
    yield rounded, largest_error(factors, rounded)
    size = save_compressed(folder / "m", rounded)
    yield load_compressed(folder / "m"), largest_error(factors, rounded)
    check_bytes(factors, rounded)
    assert size == (folder / "m").stat().st_size


def check_bytes(model, compressed):
    before = sum(weights.nbytes for weights in named_weights(model).values())
    parts = sum(a.nbytes for t in compressed.tensors.values() for a in t.arrays().values())
    assert compressed.report.bytes_before == before
    headers = sum(len(json.dumps(tensor.header())) for tensor in compressed.tensors.values())
    assert compressed.nbytes == compressed.report.bytes_after == parts + headers


def copies_of(model, folder):
    model.save(folder / "a")
    yield from (load_model(folder / "a"), type(model).load(folder / "a"))
    yield from (copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FACTORS, *OTHERS])
def test_copies_score_the_same(name, tmp_path):
    model = made(name)
    expected = scores(model)
    for same in copies_of(model, tmp_path):
        np.testing.assert_array_equal(scores(same), expected)
        if name in ("IALS", "EASE", "fold-in and mean"):
            lists = [[1, 2], [0, 3, 4]]
            np.testing.assert_array_equal(same.score_histories(lists), model.score_histories(lists))
    if name == "fold-in and mean":
        folded = model.with_folded_users(Interactions([0, 0], [1, 2], num_items=ITEMS))
        by_history = model.score_histories([[1, 2]])
        np.testing.assert_allclose(folded.score_all_items([0]), by_history, rtol=1e-5)


@pytest.mark.parametrize("name", FACTORS)
def test_what_a_model_becomes_scores_as_it_did(name, tmp_path):
    model = made(name)
    expected = scores(model)
    for found, error in conversions_of(model, tmp_path):
        close(scores(found), expected, error)
    start = compress(model, [Quantize(UniformQuantization(8))], SPLIT, None, k=3)
    whole = evaluate_full_ranking(model, SPLIT.train, SPLIT.test, k=3)
    assert start.stages[0].ndcg == pytest.approx(whole.ndcg, abs=1e-6)
    close(scores(start.factors), expected, largest_error(as_factors(model), start.compressed))
    np.testing.assert_array_equal(scores(model), expected)  # it is as it was


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**32 - 1),
    scales=st.tuples(*[st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e4])] * 3),
    mean=st.sampled_from([0.0, 3.5, -1e3]),
    given_biases=st.sets(st.sampled_from(["user_biases", "item_biases"])),
    constant=st.booleans(),
)
@pytest.mark.slow
def test_tables_of_every_kind(tmp_path_factory, seed, scales, mean, given_biases, constant):
    """Zeros, tiny and large numbers, equal rows, one bias without the other."""
    rng, counts = np.random.default_rng(seed), {"user_biases": USERS, "item_biases": ITEMS}
    users, items = rng.normal(size=(USERS, 3)) * scales[0], rng.normal(size=(ITEMS, 3)) * scales[1]
    if constant:
        items[:] = items[0, 0]
    biases = {name: rng.normal(size=counts[name]) * scales[2] for name in sorted(given_biases)}
    model = Factors(items, users, global_mean=mean, **biases)
    for found, error in conversions_of(model, tmp_path_factory.mktemp("tables")):
        close(scores(found), scores(model), error)


@pytest.mark.parametrize("kind", KERAS)
def test_weights_of_keras_models_in_8_bits(kind):
    model = m.build_rating_model(RatingModelConfig(kind, USERS, ITEMS, 4))
    rounded = quantize(model, UniformQuantization(8))
    check_bytes(model, rounded)
    for name, weights in named_weights(model).items():
        stored = rounded.tensors[name]
        step = stored.scale.astype(np.float32) if stored.kind == "uniform" else 0.0  # or a bias
        assert (np.abs(stored.decode() - weights) <= 0.51 * step + 1e-7 * (step > 0)).all(), name
