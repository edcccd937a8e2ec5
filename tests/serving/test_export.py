from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.serving import export_litert, export_onnx, export_saved_model, load_scorer
from recsys_lib.serving.scorers import count_ids

KINDS = ("dot_product", "matrix_factorization", "two_tower", "mlp_ranker", "neumf")
NUM_USERS, NUM_ITEMS = 300, 200
# Largest difference to Keras, in standard deviations of the scores.
TOLERANCES = {None: 1e-5, "float16": 5e-3, "dynamic": 0.12, "int8": 0.15, "int16x8": 0.1}


def make_model(kind: str, keras=None):
    bias = 3.5 if kind == "matrix_factorization" else 0.0
    config = RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, 16, global_bias=bias)
    model = build_rating_model(config, keras)
    random = np.random.default_rng(0)
    model.set_weights([w + random.normal(size=w.shape) * 0.2 for w in model.get_weights()])
    return model


def make_pairs(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.integers(0, NUM_USERS, count), random.integers(0, NUM_ITEMS, count)


def keras_scores(model, users, items) -> np.ndarray:
    return np.asarray(model([users.astype(np.int32), items.astype(np.int32)]))


def open_file(path):
    """A function of ids, for a file or a SavedModel."""
    if path.is_file():
        return load_scorer(path).score
    import tensorflow as tf

    module = tf.saved_model.load(str(path))
    serve = module.signatures["serving_default"]

    def score(users, items, module=module):
        ids = {"user_ids": users, "item_ids": items}
        ids = {name: tf.constant(values.astype(np.int32)) for name, values in ids.items()}
        return serve(**ids)["logits"].numpy()

    return score


def assert_close(given, expected, tolerance):
    assert given.dtype == np.float32 and given.shape == expected.shape
    assert np.abs(given - expected).max() <= tolerance * expected.std()


@pytest.mark.parametrize("kind", KINDS)
def test_litert_scores_are_those_of_keras(kind, tmp_path):
    model, (users, items) = make_model(kind), make_pairs()
    expected = keras_scores(model, users, items)
    for quantization in TOLERANCES:
        path = tmp_path / f"{quantization}.tflite"
        export_litert(model, path, quantization, (users, items))
        scorer = load_scorer(path)
        assert (scorer.num_users, scorer.num_items) == (NUM_USERS, NUM_ITEMS)
        assert_close(scorer.score(users, items), expected, TOLERANCES[quantization])
        assert_close(scorer.score(users[:3], items[:3]), scorer.score(users, items)[:3], 1e-5)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        f"{quantization}.tflite" for quantization in TOLERANCES
    )


@pytest.mark.parametrize("kind", [*KINDS, "two_tower of tf_keras", "neumf of tf_keras"])
@pytest.mark.parametrize("export", [export_litert, export_onnx, export_saved_model])
def test_float_formats_score_as_keras(kind, export, tmp_path):
    import tf_keras

    name, _, other = kind.partition(" of ")
    model, (users, items) = make_model(name, tf_keras if other else None), make_pairs()
    export(model, tmp_path / "ranker")
    scores = open_file(tmp_path / "ranker")(users, items)
    assert_close(scores, keras_scores(model, users, items), 1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["ranker"]


def test_export_leaves_the_model_alone(tmp_path):
    model = make_model("mlp_ranker")
    before, layers = model.get_weights(), [id(layer) for layer in model.layers]
    export_litert(model, tmp_path / "a", "int8", make_pairs())
    assert [id(layer) for layer in model.layers] == layers
    for own, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(own, earlier)
    assert count_ids(model) == (NUM_USERS, NUM_ITEMS)  # no layer was called on something else


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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("quantization", "integer"), [("int8", "int8"), ("int16x8", "int16")])
def test_integer_files_hold_no_float_kernel(kind, quantization, integer, tmp_path):
    export_litert(make_model(kind), tmp_path / "a", quantization, make_pairs())
    found = operations(tmp_path / "a")
    border = {"DEQUANTIZE"}
    assert found and {name for name, _ in found} & {"FULLY_CONNECTED", "BATCH_MATMUL"}
    for name, types in found:
        assert name in border or not types & {"float32", "float16"}, (name, types)
        if name in {"FULLY_CONNECTED", "BATCH_MATMUL", "GATHER"}:
            assert types & {integer}, (name, types)


def test_files_shrink_as_the_numbers_in_them(tmp_path):
    config = RatingModelConfig("mlp_ranker", 3000, 2000, 32)
    model, pairs = build_rating_model(config), make_pairs()
    sizes = {}
    for quantization in TOLERANCES:
        export_litert(model, tmp_path / "a", quantization, pairs)
        sizes[quantization] = (tmp_path / "a").stat().st_size
    assert 3.5 < sizes[None] / sizes["int8"] < 4.1
    assert 3.5 < sizes[None] / sizes["dynamic"] < 4.1
    assert 1.9 < sizes[None] / sizes["float16"] < 2.1
    assert 1.8 < sizes[None] / sizes["int16x8"] < 2.1  # tables are looked up in 16 bits


def test_calibration_with_interactions_pairs_users_with_random_items_too(tmp_path):
    """Positives alone would teach the file that every score is high."""
    model = make_model("dot_product")
    users, items = make_pairs(3000)
    scores = keras_scores(model, users, items)
    best = np.argsort(-scores)[:100]  # what users like: the highest scores only
    liked = Interactions(users[best], items[best], num_users=NUM_USERS, num_items=NUM_ITEMS)
    export_litert(model, tmp_path / "pairs", "int8", (users[best], items[best]))
    export_litert(model, tmp_path / "interactions", "int8", liked)
    errors = {
        name: np.abs(load_scorer(tmp_path / name).score(users, items) - scores).max()
        for name in ("pairs", "interactions")
    }
    assert errors["interactions"] < errors["pairs"] / 2


@pytest.mark.parametrize(
    ("calibration", "error", "match"),
    [
        (None, TypeError, "type NoneType"),
        (([], []), ValueError, "at least one"),
        (([0, 1], [0]), ValueError, "equally many"),
        (([NUM_USERS], [0]), ValueError, "calibration user_ids holds 300"),
        (([0], [-1]), ValueError, "calibration item_ids holds -1"),
        (([0.5], [0]), TypeError, "integers"),
        ("ids", TypeError, "type str"),
    ],
)
def test_calibration_is_checked_before_any_work(calibration, error, match, tmp_path, monkeypatch):
    model = make_model("dot_product")
    monkeypatch.setattr("recsys_lib.serving.export._write_saved_model", lambda *_: pytest.fail())
    with pytest.raises(error, match=match):
        export_litert(model, tmp_path / "a", "int8", calibration)
    assert not list(tmp_path.iterdir())


def test_arguments_are_checked(tmp_path):
    import keras

    model = make_model("dot_product")
    with pytest.raises(ValueError, match="quantization is 'int4'"):
        export_litert(model, tmp_path / "a", "int4")
    with pytest.raises(FileNotFoundError, match="existing folder"):
        export_onnx(model, tmp_path / "no" / "a")
    with pytest.raises(TypeError, match="type str"):
        export_saved_model("model", tmp_path / "a")
    with pytest.raises(TypeError, match="inputs user_ids and item_ids"):
        export_onnx(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), tmp_path / "a")
    two = [keras.Input((3,)), keras.Input((3,))]
    with pytest.raises(ValueError, match="input_dim"):
        export_onnx(keras.Model(two, keras.layers.Add()(two)), tmp_path / "a")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("kept")
    for export in (export_saved_model, export_onnx, export_litert):
        with pytest.raises(FileExistsError, match="no SavedModel"):
            export(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "kept"


def test_a_failing_export_leaves_the_old_file(tmp_path, monkeypatch):
    import tensorflow as tf

    model, path = make_model("dot_product"), tmp_path / "a"
    export_saved_model(model, path)
    before = {file.name: file.stat().st_mtime_ns for file in path.rglob("*")}

    def fail(module, folder, **options):
        (tmp_path / folder).mkdir()
        raise OSError("full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="full"):
        export_saved_model(model, path)
    assert {file.name: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_exports_replace_each_other(tmp_path):
    first, second = make_model("dot_product"), make_model("neumf")
    users, items = make_pairs(5)
    order = (export_saved_model, export_saved_model, export_litert, export_saved_model, export_onnx)
    for model, export in zip((first, second) * 3, order, strict=False):
        export(model, tmp_path / "a")
        scores = open_file(tmp_path / "a")(users, items)
        assert_close(scores, keras_scores(model, users, items), 1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
