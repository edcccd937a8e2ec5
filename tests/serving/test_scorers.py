"""Whatever scores pairs scores them as Keras does, or is refused; no export leaves a wrong file."""

from __future__ import annotations

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.serving import (
    CandidateScorer,
    export_litert,
    export_onnx,
    export_saved_model,
    load_scorer,
)
from recsys_lib.serving.scorers import count_ids

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 34  # fewer pairs than calibrate
USERS, ITEMS = np.indices((NUM_USERS, NUM_ITEMS)).reshape(2, -1)
# Largest difference to Keras, in standard deviations of the scores.
TOLERANCES = {None: 1e-5, "float16": 5e-3, "dynamic": 0.12, "int8": 0.2, "int16x8": 0.2}
EXPORTS = {"litert": export_litert, "onnx": export_onnx}
every_format = pytest.mark.parametrize("name", EXPORTS)
# One kind in each run of `make check`, the others in `make test`.
every_kind = pytest.mark.parametrize(
    "kind", ["neumf", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:-1])]
)


def make_model(kind: str, keras=None, scale=0.2, **changes):
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    settings = {"embedding_dim": 16, "global_bias": bias} | changes
    model = build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, **settings), keras)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(size=w.shape) * scale for w in model.get_weights()])
    return model


def keras_scores(model) -> np.ndarray:
    return np.asarray(model([USERS.astype(np.int32), ITEMS.astype(np.int32)]))


def check(scorer, model, tolerance: float) -> None:
    """Every method, for numbers of pairs around what goes through the layers at once."""
    table = keras_scores(model).reshape(NUM_USERS, NUM_ITEMS)

    def close(scores, expected):
        assert scores.dtype == np.float32 and scores.shape == expected.shape
        np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance * table.std())

    assert (scorer.num_users, scorer.num_items) == table.shape
    random = np.random.default_rng(2)
    for count in (0, 1, 2, 1, 15, 16, 17, 100, 1500):
        users, items = random.integers(0, NUM_USERS, count), random.integers(0, NUM_ITEMS, count)
        close(scorer.score(users, items), table[users, items])
        close(scorer.score_candidates(7, items), table[7, items])
    close(scorer.score_candidates(59), table[59])
    close(scorer.score_all_items([3, 0, 3]), table[[3, 0, 3]])


@pytest.fixture(scope="module")
def model():
    return make_model("mlp_ranker", hidden_units=(8, 4))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name, export in EXPORTS.items():
        export(model, folder / name)
    return folder


@pytest.fixture(params=["float32", "int8", "litert", "onnx"])
def scorer(request, model, exported):
    if request.param in EXPORTS:
        return load_scorer(exported / request.param, np.int64(1))
    return CandidateScorer(model, precision=request.param)


@pytest.mark.parametrize(
    ("kind", "changes", "namespace"),
    [
        *((kind, {}, "keras") for kind in KINDS),
        *(("neumf", {"activation": name}, "keras") for name in ("tanh", "sigmoid", "linear")),
        *((kind, {}, "tf_keras") for kind in ("two_tower", "mlp_ranker")),
    ],
)
def test_float_scores_are_those_of_keras(kind, changes, namespace):
    model = make_model(kind, importlib.import_module(namespace), **changes)
    check(CandidateScorer(model), model, 1e-5)


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf"])
@pytest.mark.parametrize("units", [(64,), (20,), (30, 20), (130, 70, 20), (256, 128, 64)])
def test_int8_scores_are_near_those_of_keras(kind, units):
    model = make_model(kind, hidden_units=units)
    check(CandidateScorer(model, precision="int8"), model, 0.1)


def test_compiled_layers_compute_what_the_definition_says():
    from recsys_lib.serving.ranker_int8 import add_scores, pack_layers

    random = np.random.default_rng(0)
    shapes = ((50, 70), (2, 70), (70, 130), (130,), (130, 10), (10,), (10,))
    half, user_halves, *layers, last = (random.normal(size=s).astype(np.float32) for s in shapes)
    layers = [tuple(layers[:2]), tuple(layers[2:])]
    rows, items = np.arange(37) % 2, random.integers(0, 50, 37)
    scores = np.ones(37, np.float32)
    add_scores(scores, half, items, user_halves, rows, *pack_layers(layers), last)
    # The definition, in NumPy: codes of 8 bits, exact sums, a scale for each row and output.
    values = np.maximum(half[items] + user_halves[rows], 0)
    for kernel, bias in layers:
        scale = np.abs(kernel).max(0) / 127
        step = values.max(1, keepdims=True) / 255
        sums = np.floor(values / step + 0.5) @ np.rint(kernel / scale)
        values = np.maximum(sums * step * scale + bias, 0)
    np.testing.assert_allclose(scores - 1, values @ last, rtol=1e-2, atol=1e-2 * scores.std())


def test_an_item_without_activations_scores_the_biases():
    """All ReLUs shut: the largest value of the row is 0, and nothing may be divided by it."""
    model = make_model("mlp_ranker", hidden_units=(8, 4))
    weights = model.get_weights()
    weights[3] = np.full_like(weights[3], -1e3)  # bias of the first layer
    model.set_weights(weights)
    expected = keras_scores(model)[:NUM_ITEMS]
    assert np.ptp(expected) == 0
    for precision in ("float32", "int8"):
        scores = CandidateScorer(model, precision=precision).score_candidates(0)
        np.testing.assert_allclose(scores, expected, rtol=1e-2, atol=1e-5)


def test_scorers_are_copies_that_threads_may_share(scorer, model, monkeypatch):
    check(scorer, model, 0.1 if getattr(scorer, "precision", "") == "int8" else 1e-5)
    monkeypatch.setattr("recsys_lib.serving.scorers._PAIRS_PER_CALL", 500)
    expected, weights = scorer.score(USERS, ITEMS), model.get_weights()
    kept = expected.copy()
    model.set_weights([w * 0 for w in weights])
    counts = [3, 50, 700] * 20
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda count: scorer.score(USERS[:count], ITEMS[:count]), counts)
        for count, scores in zip(counts, found, strict=True):
            np.testing.assert_allclose(scores, expected[:count], rtol=1e-4, atol=1e-5)
    model.set_weights(weights)
    np.testing.assert_array_equal(expected, kept)  # results do not share memory


def test_ids_are_checked(scorer):
    for users, items, error, message in (
        ([60], [0], ValueError, "user_ids holds 60"),
        ([0], [-1], ValueError, "item_ids holds -1"),
        ([0.0], [1], TypeError, "user_ids"),
        ([0, 1], [0], ValueError, "item_ids has shape"),
    ):
        with pytest.raises(error, match=message):
            scorer.score(users, items)
    with pytest.raises(ValueError, match="user_id holds 60"):
        scorer.score_candidates(60, [0])


def swapped(layers):
    """Same names of layers, but the towers' embeddings swapped in the concatenation."""
    import keras

    ids = [keras.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    names = ("user_embedding", "item_embedding")
    tables = [layers.Embedding(9, 4, name=name)(x) for name, x in zip(names, ids, strict=True)]
    joined = layers.Concatenate(name="concatenate")(tables[::-1])
    hidden = layers.Dense(8, "relu", name="dense_0")(joined)
    model = keras.Model(ids, layers.Reshape(())(layers.Dense(1, name="score")(hidden)))
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("make", "precision", "message"),
    [
        (swapped, "float32", "off by"),
        (lambda _: make_model("mlp_ranker", scale=np.nan), "float32", "user_embedding.* NaN"),
        (lambda _: make_model("mlp_ranker", activation="gelu"), "float32", "gelu"),
        (lambda _: make_model("mlp_ranker", activation="tanh"), "int8", "with relu"),
        (lambda _: make_model("two_tower"), "int8", "mlp_ranker or neumf"),
        (lambda _: make_model("mlp_ranker"), "int4", "precision is 'int4'"),
    ],
)
def test_models_that_cannot_be_served_are_refused(make, precision, message):
    import keras

    with pytest.raises(ValueError, match=message):
        CandidateScorer(make(keras.layers), precision=precision)


def operations(path) -> list[tuple[str, set[str]]]:
    """Name and input types of each operation, without XNNPACK's grouping."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path),  # with the facts behind, which a runtime does not look at
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    types = {x["index"]: x["dtype"].__name__ for x in interpreter.get_tensor_details()}
    return [
        (op["op_name"], {types[index] for index in op["inputs"] if index in types})
        for op in interpreter._get_ops_details()
    ]


@every_kind
@pytest.mark.parametrize("quantization", TOLERANCES)
def test_litert_scores_are_those_of_keras(kind, quantization, tmp_path):
    model = make_model(kind)
    before, layers = model.get_weights(), [id(layer) for layer in model.layers]
    export_litert(model, tmp_path / "a", quantization, (USERS, ITEMS))
    assert [id(layer) for layer in model.layers] == layers
    np.testing.assert_equal(model.get_weights(), before)
    assert count_ids(model) == (NUM_USERS, NUM_ITEMS)  # no layer was called on something else
    check(load_scorer(tmp_path / "a"), model, TOLERANCES[quantization])
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    integer = {"int8": "int8", "int16x8": "int16"}.get(quantization)
    for name, types in operations(tmp_path / "a") if integer else ():
        assert name == "DEQUANTIZE" or not types & {"float32", "float16"}, (name, types)
        if name in {"FULLY_CONNECTED", "BATCH_MATMUL", "GATHER"}:
            assert types & {integer}, (name, types)


@every_kind
@pytest.mark.parametrize("namespace", ["keras", "tf_keras"])
def test_onnx_and_saved_models_score_as_keras(kind, namespace, tmp_path):
    import tensorflow as tf

    model = make_model(kind, importlib.import_module(namespace))
    for name, export in (EXPORTS | {"saved": export_saved_model}).items():
        export(model, tmp_path / name)
    for name in EXPORTS:
        check(load_scorer(tmp_path / name), model, 1e-5)
    ids = {"user_ids": USERS, "item_ids": ITEMS}
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    serve = loaded.signatures["serving_default"]
    scores = serve(**{name: tf.constant(values, tf.int32) for name, values in ids.items()})
    np.testing.assert_allclose(scores["logits"], keras_scores(model), atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_files_shrink_as_the_numbers_in_them(tmp_path):
    model = build_rating_model(RatingModelConfig("mlp_ranker", 3000, 2000, 32))
    sizes = {}
    for quantization in TOLERANCES:
        export_litert(model, tmp_path / "a", quantization, (USERS[::50], ITEMS[::50]))
        sizes[quantization] = (tmp_path / "a").stat().st_size
    assert 3.5 < sizes[None] / sizes["int8"] < 4.1
    assert 3.5 < sizes[None] / sizes["dynamic"] < 4.1
    assert 1.9 < sizes[None] / sizes["float16"] < 2.1
    assert 1.8 < sizes[None] / sizes["int16x8"] < 2.1  # tables are looked up in 16 bits


def test_calibration_with_interactions_pairs_users_with_random_items_too(tmp_path):
    """Positives alone would teach the file that every score is high."""
    model = make_model("dot_product")
    scores = keras_scores(model)
    best = np.argsort(-scores)[:100]  # what users like: the highest scores only
    liked = Interactions(USERS[best], ITEMS[best], num_users=NUM_USERS, num_items=NUM_ITEMS)
    errors = []
    for calibration in (liked, (USERS[best], ITEMS[best])):
        export_litert(model, tmp_path / "a", "int8", calibration)
        errors.append(np.abs(load_scorer(tmp_path / "a").score(USERS, ITEMS) - scores).max())
    assert errors[0] < errors[1] / 2


@every_format
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "mixed_bfloat16", "float64"])
def test_models_of_other_precisions_are_exported_in_float32(name, policy, tmp_path):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model("mlp_ranker", hidden_units=(8,))
    finally:
        keras.config.set_dtype_policy(before)
    EXPORTS[name](model, tmp_path / "a")
    check(load_scorer(tmp_path / "a"), model, 0.05)


def test_what_a_format_cannot_hold_leaves_no_file_and_names_the_layer(tmp_path, monkeypatch):
    gelu = make_model("mlp_ranker", activation="gelu")
    with pytest.raises(ValueError, match=r"dense_0'\].*Erfc"):
        export_onnx(gelu, tmp_path / "a")
    export_litert(gelu, tmp_path / "lite")  # has an operation for it
    other, path = make_model("dot_product"), tmp_path / "lite"
    before = path.read_bytes()
    monkeypatch.setattr("recsys_lib.serving.export.plain_lookups", lambda model: other)
    with pytest.raises(ValueError, match="off by"):  # what was written scores something else
        export_litert(gelu, path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["lite"]


def test_weights_of_nan_are_refused(tmp_path):
    model = make_model("mlp_ranker", hidden_units=(8, 4))
    kernel, bias = model.get_layer("dense_1").get_weights()
    model.get_layer("dense_1").set_weights([kernel * np.nan, bias])
    for export in (export_litert, export_onnx, export_saved_model):
        with pytest.raises(ValueError, match=r"dense_1.* NaN"):
            export(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_arguments_are_checked_before_any_work(model, tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr("recsys_lib.serving.export._write_saved_model", lambda *_: pytest.fail())
    one, two = keras.Input((3,)), [keras.Input((3,)), keras.Input((3,))]
    for calibration, error, match in (
        (None, TypeError, "calibration is of type NoneType"),
        (([], []), ValueError, "calibration is empty"),
        (([0, 1], [0]), ValueError, "calibration item_ids has shape"),
        (([NUM_USERS], [0]), ValueError, "calibration user_ids holds 60"),
        (([0.5], [0]), TypeError, "calibration user_ids"),
    ):
        with pytest.raises(error, match=match):
            export_litert(model, tmp_path / "a", "int8", calibration)
    with pytest.raises(ValueError, match="quantization is 'int4'"):
        export_litert(model, tmp_path / "a", "int4")
    for wrong, error, match in (
        ("model", TypeError, "model is a str"),
        (keras.Model(one, keras.layers.Dense(1)(one)), TypeError, "user_ids and item_ids"),
        (keras.Model(two, keras.layers.Add()(two)), ValueError, "input_dim"),
    ):
        with pytest.raises(error, match=match):
            export_saved_model(wrong, tmp_path / "a")
    for export in (export_saved_model, export_onnx, export_litert):
        with pytest.raises(FileNotFoundError, match="existing folder"):
            export(model, tmp_path / "no" / "a")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="mine"):
        export_saved_model(model, tmp_path / "mine")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_failing_or_killed_export_leaves_nothing(model, tmp_path, monkeypatch):
    import tensorflow as tf

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f".a.{ended.pid}-1.tmp").mkdir()  # of an export that was killed

    def fail(module, folder, **options):
        Path(folder).mkdir()
        raise OSError("full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="full"):
        export_saved_model(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@every_format
def test_a_cut_or_changed_file_is_a_clear_error(name, exported, tmp_path):
    content = (exported / name).read_bytes()
    broken = [content[: int(len(content) * share)] for share in (0.0, 0.001, 0.3, 0.9, 0.999)]
    for place in (len(content) // 2, content.rindex(b"num_users") + 12):
        changed = bytearray(content)
        changed[place] ^= 1
        broken.append(bytes(changed))
    for damaged in broken:
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(ValueError, match="expected"):
            load_scorer(tmp_path / "a")


def test_foreign_and_newer_files_are_clear_errors(exported, tmp_path):
    import onnx

    (tmp_path / "text").write_text("user,item\n1,2\n")
    loaded = onnx.load(exported / "onnx")
    del loaded.metadata_props[:]
    onnx.save(loaded, tmp_path / "theirs.onnx")
    content = (exported / "litert").read_bytes()
    (tmp_path / "theirs.tflite").write_bytes(content[: content.rindex(b'{"format"')])
    newer = content.replace(b'"format_version": 2', b'"format_version": 3')
    (tmp_path / "version 3").write_bytes(newer)
    for name in ("text", "theirs.onnx", "theirs.tflite", "version 3"):
        with pytest.raises(ValueError, match=f"{name}.*expected"):
            load_scorer(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_scorer(tmp_path / "nothing")
    with pytest.raises(ValueError, match="num_threads is 0"):
        load_scorer(exported / "onnx", num_threads=0)
