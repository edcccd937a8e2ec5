import dataclasses
import json
from functools import partial

import keras
import numpy as np
import pytest
import tf_keras

from recsys_lib.models import RatingModelConfig, build_rating_model, inner_product_vectors

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
every_kind = pytest.mark.parametrize("kind", KINDS)
PAIRS = list(np.indices((7, 11)).reshape(2, -1).astype(np.int32))


def make_config(kind, **changes):
    hidden = (6, 5) if kind in ("two_tower", "mlp_ranker", "neumf") else None
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    settings = {"num_users": 7, "num_items": 11, "embedding_dim": 4, "hidden_units": hidden}
    return RatingModelConfig(kind, **settings | {"global_bias": bias} | changes)


def shaken(kind, build=keras):
    """Move every weight away from its start, so that zero biases cannot hide a mistake."""
    model, random = build_rating_model(make_config(kind), build), np.random.default_rng(0)
    model.set_weights([w + random.normal(size=w.shape) * 0.3 for w in model.get_weights()])
    return model


def weights_by_name(model):
    return {layer.name: layer.get_weights() for layer in model.layers if layer.get_weights()}


@every_kind
def test_output_is_one_float32_logit_per_pair_in_any_precision(kind, tmp_path, request):
    model = shaken(kind)
    inputs = [("user_ids", "int32"), ("item_ids", "int32")]
    assert [(x.name, x.dtype) for x in model.inputs] == inputs
    assert tuple(model.output_shape) == (None,) and model.name == kind and not model.losses
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(PAIRS), again(PAIRS))
    request.addfinalizer(partial(keras.config.set_dtype_policy, keras.config.dtype_policy()))
    keras.config.set_dtype_policy("mixed_bfloat16")
    logits = build_rating_model(make_config(kind))(PAIRS)
    assert logits.dtype == "float32" and tuple(logits.shape) == (77,)


@every_kind
def test_twin_is_equal_to_the_bit_and_inner_products_are_the_scores(kind):
    model, twin = (shaken(kind, build) for build in (keras, tf_keras))
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)  # as they had the same start
    np.testing.assert_array_equal(np.asarray(model(PAIRS)), np.asarray(twin(PAIRS)))
    assert list(weights_by_name(model)) == list(weights_by_name(twin))
    for vectors in map(inner_product_vectors, (model, twin)):
        assert (vectors is None) == (kind in ("mlp_ranker", "neumf"))
        if vectors is not None:
            products = np.einsum("nd,nd->n", vectors[0][PAIRS[0]], vectors[1][PAIRS[1]])
            np.testing.assert_allclose(products, model(PAIRS), rtol=1e-4, atol=1e-5)
            assert vectors[0].dtype == vectors[1].dtype == np.float32
    assert inner_product_vectors(keras.Sequential([keras.layers.Dense(2)])) is None


@every_kind
def test_config_and_seed_decide_the_start(kind):
    first, same, other = (
        build_rating_model(make_config(kind, seed=seed)).get_weights() for seed in (3, 3, 4)
    )
    assert all(map(np.array_equal, first, same))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True) if a.any())
    assert len({table.tobytes() for table in first if table.any()}) == sum(t.any() for t in first)
    users = build_rating_model(make_config(kind, num_users=4000, init_std=0.25)).get_weights()[0]
    assert users.std() == pytest.approx(0.25, rel=0.02) and abs(users.mean()) < 0.01


@every_kind
def test_scores_equal_the_formulas(kind):
    model, (users, items) = shaken(kind), PAIRS
    w = weights_by_name(model)
    u, i = w["user_embedding"][0][users], w["item_embedding"][0][items]
    if kind == "dot_product":
        expected = (u * i).sum(1)
    elif kind == "matrix_factorization":
        biases = w["user_bias"][0][users, 0] + w["item_bias"][0][items, 0]
        expected = 3.5 + biases + (u * i).sum(1)
    elif kind == "two_tower":
        towers = []
        for side, x in (("user", u), ("item", i)):
            (w0, b0), (w1, b1) = w[f"{side}_dense_0"], w[f"{side}_dense_1"]
            towers.append(np.maximum(x @ w0 + b0, 0) @ w1 + b1)
        expected = (towers[0] * towers[1]).sum(1)
    else:
        x = np.hstack([u, i])
        for layer in ("dense_0", "dense_1"):
            x = np.maximum(x @ w[layer][0] + w[layer][1], 0)
        if kind == "neumf":
            gmf = w["user_gmf_embedding"][0][users] * w["item_gmf_embedding"][0][items]
            x = np.hstack([gmf, x])
        expected = (x @ w["score"][0] + w["score"][1])[:, 0]
    np.testing.assert_allclose(model(PAIRS), expected, rtol=1e-4, atol=1e-5)


def test_config_survives_json():
    config = make_config("neumf")
    again = RatingModelConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config and hash(again) == hash(config)
    numpy_scalars = RatingModelConfig("neumf", np.int64(7), np.int32(3), init_std=np.float32(0.5))
    json.dumps(dataclasses.asdict(numpy_scalars))


WRONG = [{"activation": None}, {"init_std": 0}, {"num_items": 2.0}, {"hidden_units": (8,)}]
WRONG += [{"hidden_units": (), "kind": "two_tower"}, {"hidden_units": 8, "kind": "neumf"}]


@pytest.mark.parametrize("changes", WRONG)
def test_refuses(changes):
    settings = {"kind": "dot_product", "num_users": 2, "num_items": 3} | changes
    with pytest.raises((TypeError, ValueError), match=next(iter(changes))):
        RatingModelConfig(**settings)
    with pytest.raises(TypeError, match="config"):
        build_rating_model(settings)
