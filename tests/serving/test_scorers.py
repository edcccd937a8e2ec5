"""Whatever scores pairs scores them as Keras does, or is refused; no export leaves a wrong file."""

import importlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.serving import CandidateScorer, export_litert, export_onnx, export_saved_model
from recsys_lib.serving.scorers import count_ids, load_scorer

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 60, 34  # fewer pairs than calibrate
USERS, ITEMS = np.indices((NUM_USERS, NUM_ITEMS)).reshape(2, -1)
# Largest difference to Keras, in standard deviations of the scores.
TOLERANCES = {None: 1e-5, "float16": 5e-3, "dynamic": 0.12, "int8": 0.2, "int16x8": 0.2}
EXPORTS = {"litert": export_litert, "onnx": export_onnx}
every_export = export_litert, export_onnx, export_saved_model
every_format = pytest.mark.parametrize("name", EXPORTS)
# One kind in each run of `make check`, the others in `make test`.
every_kind = pytest.mark.parametrize(
    "kind", ["neumf", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[:-1])]
)


def make_model(kind, keras=None, scale=0.2, **changes):
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    settings = {"embedding_dim": 16, "global_bias": bias} | changes
    model = build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, **settings), keras)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(size=w.shape) * scale for w in model.get_weights()])
    return model


def keras_scores(model):
    return np.asarray(model([USERS.astype(np.int32), ITEMS.astype(np.int32)]))


def check(scorer, model, tolerance):
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
    for score, bad, word in (
        (scorer.score, ([0], [-1]), "item_ids holds -1"),
        (scorer.score, ([0, 1], [0]), "item_ids has shape"),
        (scorer.score_candidates, (60, [0]), "user_id holds 60"),
    ):
        with pytest.raises(ValueError, match=word):
            score(*bad)


@pytest.fixture(scope="module")
def model():
    return make_model("mlp_ranker", hidden_units=(8, 4))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name, export in EXPORTS.items():
        export(model, folder / name)
    return folder


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


def test_an_item_without_activations_scores_the_biases():
    """All ReLUs shut: the largest value of the row is 0, and nothing may be divided by it."""
    model = make_model("mlp_ranker", hidden_units=(8, 4))
    weights = model.get_weights()
    weights[3] = np.full_like(weights[3], -1e3)  # bias of the first layer
    model.set_weights(weights)
    expected = keras_scores(model)[:NUM_ITEMS]
    for precision in ("float32", "int8"):
        scores = CandidateScorer(model, precision=precision).score_candidates(0)
        np.testing.assert_allclose(scores, expected, rtol=1e-2, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "int8", *EXPORTS])
def test_scorers_are_copies_that_threads_may_share(kind, model, exported, monkeypatch):
    opens = kind in EXPORTS
    scorer = load_scorer(exported / kind) if opens else CandidateScorer(model, precision=kind)
    check(scorer, model, 0.1 if kind == "int8" else 1e-5)
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


def swapped(layers):
    """Same names of layers, but the towers' embeddings swapped in the concatenation."""
    ids = [layers.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [layers.Embedding(9, 4, name=x.name[:4] + "_embedding")(x) for x in ids]
    joined = layers.Concatenate(name="concatenate")(tables[::-1])
    hidden = layers.Dense(8, "relu", name="dense_0")(joined)
    model = keras.Model(ids, layers.Reshape(())(layers.Dense(1, name="score")(hidden)))
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    return model


def test_refuses_models_that_cannot_be_served():
    for make, precision, word in (
        (lambda: swapped(keras.layers), "float32", "off by"),
        (lambda: make_model("mlp_ranker", scale=np.nan), "float32", "user_embedding.* NaN"),
        (lambda: make_model("mlp_ranker", activation="gelu"), "float32", "gelu"),
        (lambda: make_model("two_tower"), "int8", "mlp_ranker or neumf"),
        (lambda: make_model("mlp_ranker"), "int4", "precision is 'int4'"),
    ):
        with pytest.raises(ValueError, match=word):
            CandidateScorer(make(), precision=precision)


def operations(path):
    """Name and input types of each operation, without XNNPACK's grouping."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    types = {x["index"]: x["dtype"].__name__ for x in interpreter.get_tensor_details()}
    for op in interpreter._get_ops_details():
        yield op["op_name"], {types[index] for index in op["inputs"] if index in types}


@pytest.mark.slow
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


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize("namespace", ["keras", "tf_keras"])
def test_onnx_and_saved_models_score_as_keras(kind, namespace, tmp_path):
    model = make_model(kind, importlib.import_module(namespace))
    for name, export in (EXPORTS | {"saved": export_saved_model}).items():
        export(model, tmp_path / name)
    for name in EXPORTS:
        check(load_scorer(tmp_path / name), model, 1e-5)
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    scores = serve(user_ids=tf.constant(USERS, tf.int32), item_ids=tf.constant(ITEMS, tf.int32))
    np.testing.assert_allclose(scores["logits"], keras_scores(model), atol=1e-5)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.slow
def test_files_shrink_as_the_numbers_in_them(tmp_path):
    model = build_rating_model(RatingModelConfig("mlp_ranker", 3000, 2000, 32))
    sizes = {}
    for quantization in TOLERANCES:
        export_litert(model, tmp_path / "a", quantization, (USERS[::50], ITEMS[::50]))
        sizes[quantization] = (tmp_path / "a").stat().st_size
    expected = {None: 1, "float16": 2, "dynamic": 4, "int8": 4, "int16x8": 2}  # its tables: 16 bits
    ratios = {name: sizes[None] / size for name, size in sizes.items()}
    assert ratios == pytest.approx(expected, rel=0.125)


@pytest.mark.slow
def test_calibration_with_interactions_pairs_users_with_random_items_too(tmp_path):
    """Positives alone would teach the file that every score is high."""
    model, errors = make_model("dot_product"), []
    scores = keras_scores(model)
    best = np.argsort(-scores)[:100]  # what users like: the highest scores only
    liked = Interactions(USERS[best], ITEMS[best], num_users=NUM_USERS, num_items=NUM_ITEMS)
    for calibration in (liked, (USERS[best], ITEMS[best])):
        export_litert(model, tmp_path / "a", "int8", calibration)
        errors.append(np.abs(load_scorer(tmp_path / "a").score(USERS, ITEMS) - scores).max())
    assert errors[0] < errors[1] / 2


@pytest.mark.slow
@every_format
@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "mixed_bfloat16", "float64"])
def test_models_of_other_precisions_are_exported_in_float32(name, policy, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model("mlp_ranker", hidden_units=(8,))
    finally:
        keras.config.set_dtype_policy(before)
    EXPORTS[name](model, tmp_path / "a")
    check(load_scorer(tmp_path / "a"), model, 0.05)


ACTIVATIONS = ["elu", "gelu", "hard_sigmoid", "leaky_relu", "mish", "relu6", "selu", "sigmoid"]
ACTIVATIONS += ["silu", "softplus", "softsign", "swish", "tanh"]


@pytest.mark.slow
@every_format
@pytest.mark.parametrize("namespace", ["keras", "tf_keras"])
def test_activations(name, namespace, tmp_path):
    """All of them side by side (in a row, each would enlarge the rounding of those before it);
    gelu both exactly and by tanh."""
    own = importlib.import_module(namespace)
    chosen = [activation for activation in ACTIVATIONS if hasattr(own.activations, activation)]
    inputs = [own.Input((), dtype="int32", name=name) for name in ("user_ids", "item_ids")]
    tables = [own.layers.Embedding(n, 8)(x) for n, x in zip((60, 34), inputs, strict=True)]
    hidden = own.layers.LayerNormalization(scale=False)(own.layers.Concatenate()(tables))
    branches = [own.layers.Dense(16, activation)(hidden) for activation in chosen]
    if namespace == "keras":
        branches.append(own.ops.gelu(own.layers.Dense(16)(hidden), approximate=True))
    hidden = own.layers.Concatenate()(branches)
    model = own.Model(inputs, own.layers.Reshape(())(own.layers.Dense(1)(hidden)))
    EXPORTS[name](model, tmp_path / "a")
    check(load_scorer(tmp_path / "a"), model, 5e-5)


@pytest.mark.slow
def test_what_a_format_cannot_hold_leaves_no_file_and_names_the_layer(tmp_path, monkeypatch):
    broken, celu = (make_model("mlp_ranker", activation=name) for name in ("relu", "celu"))
    layer = broken.get_layer("dense_1")
    layer.set_weights([w * np.nan for w in layer.get_weights()])
    for export in every_export:
        with pytest.raises(ValueError, match=r"dense_1.* NaN"):
            export(broken, tmp_path / "a")
    with pytest.raises(ValueError, match=r"for its layers .*dense_0"):
        export_onnx(celu, tmp_path / "a")
    other, path = make_model("dot_product"), tmp_path / "lite"
    export_litert(celu, path)  # has operations for it
    before = path.read_bytes()
    monkeypatch.setattr("recsys_lib.serving.export.plain_lookups", lambda model: other)
    with pytest.raises(ValueError, match="off by"):  # what was written scores something else
        export_litert(celu, path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["lite"]


def test_refuses_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr("recsys_lib.serving.export._write_saved_model", lambda *_: pytest.fail())
    one, two = keras.Input((3,)), [keras.Input((3,)), keras.Input((3,))]
    dense, add = keras.Model(one, keras.layers.Dense(1)(one)), keras.Model(two, two[0] + two[1])
    (tmp_path / "mine").mkdir()
    for export, arguments, error, word in (
        (export_litert, (model, "a", "int8", None), TypeError, "calibration is of type NoneType"),
        (export_litert, (model, "a", "int8", ([], [])), ValueError, "calibration has"),
        (export_litert, (model, "a", "int8", ([60], [0])), ValueError, "user_ids holds 60"),
        (export_litert, (model, "a", "int8", ([0.5], [0])), TypeError, "calibration user_ids"),
        (export_litert, (model, "a", "int4"), ValueError, "quantization is 'int4'"),
        (export_saved_model, ("model", "a"), TypeError, "model is a str"),
        (export_saved_model, (dense, "a"), TypeError, "user_ids and item_ids"),
        (export_saved_model, (add, "a"), ValueError, "input_dim"),
        *((f, (model, "no/a"), FileNotFoundError, "existing folder") for f in every_export),
        (export_saved_model, (model, "mine"), FileExistsError, "mine"),
    ):
        with pytest.raises(error, match=word):
            export(arguments[0], tmp_path / arguments[1], *arguments[2:])
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_a_failing_or_killed_export_leaves_nothing(model, tmp_path, monkeypatch):
    ended = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout.strip()
    (tmp_path / f".a.{ended}-1.tmp").mkdir()  # of an export that was killed

    def fail(module, folder, **options):
        Path(folder).mkdir()
        raise OSError("full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="full"):
        export_saved_model(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_foreign_and_newer_files_are_clear_errors(exported, tmp_path):
    theirs, content = onnx.load(exported / "onnx"), (exported / "litert").read_bytes()
    del theirs.metadata_props[:]
    newer = content.replace(b'"format_version": 2', b'"format_version": 3')
    without_facts = content[: content.rindex(b'{"format"')]
    for foreign in (b"user,item\n1,2\n", theirs.SerializeToString(), without_facts, newer):
        (tmp_path / "a").write_bytes(foreign)
        with pytest.raises(ValueError, match="expected"):
            load_scorer(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        load_scorer(tmp_path / "nothing")
    with pytest.raises(ValueError, match="num_threads is 0"):
        load_scorer(exported / "onnx", num_threads=0)
