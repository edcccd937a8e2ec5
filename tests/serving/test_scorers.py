from __future__ import annotations

import threading

import numpy as np
import pytest

from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.serving import export_litert, export_onnx, load_scorer

EXPORTS = {"litert": export_litert, "onnx": export_onnx}
every_format = pytest.mark.parametrize("name", EXPORTS)


@pytest.fixture(scope="module")
def model():
    return build_rating_model(RatingModelConfig("mlp_ranker", 40, 30, 8, seed=3))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name, export in EXPORTS.items():
        export(model, folder / name)
    return folder


@every_format
def test_ids_are_checked(name, exported):
    scorer = load_scorer(exported / name)
    assert scorer.runtime == name and repr(scorer) == f"ExportedScorer({name}, 40 users, 30 items)"
    for users, items, error in (
        ([40], [0], ValueError),
        ([0], [-1], ValueError),
        ([0.0], [1], TypeError),
        ([0], [1, 2], ValueError),
        ([[0]], [[1]], ValueError),
    ):
        with pytest.raises(error, match="_ids"):
            scorer.score(users, items)


@every_format
def test_any_number_of_pairs(name, exported, model, monkeypatch):
    scorer = load_scorer(exported / name)
    users, items = np.indices((40, 30)).reshape(2, -1)
    expected = np.asarray(model([users.astype(np.int32), items.astype(np.int32)]))
    assert scorer.score([], []).shape == (0,)
    for count in (1, 7, 1, 1200):
        scores = scorer.score(users[:count], items[:count])
        np.testing.assert_allclose(scores, expected[:count], rtol=1e-4, atol=1e-6)
    monkeypatch.setattr("recsys_lib.serving.scorers._PAIRS_PER_CALL", 500)
    np.testing.assert_allclose(scorer.score(users, items), expected, rtol=1e-4, atol=1e-6)
    table = expected.reshape(40, 30)
    np.testing.assert_allclose(scorer.score_all_items([3, 0]), table[[3, 0]], rtol=1e-4, atol=1e-6)
    chosen = scorer.score_candidates(5, [29, 2])
    np.testing.assert_allclose(chosen, table[5, [29, 2]], rtol=1e-4, atol=1e-6)
    first = scorer.score([0], [0])
    kept = first.copy()
    scorer.score([1], [1])
    np.testing.assert_array_equal(first, kept)  # results do not share memory


@every_format
def test_threads_may_share_a_scorer(name, exported):
    scorer = load_scorer(exported / name)
    users, items = np.indices((40, 30)).reshape(2, -1)
    expected = scorer.score(users, items)
    results: dict[int, np.ndarray] = {}

    def run(count: int) -> None:
        for _ in range(20):
            results[count] = scorer.score(users[:count], items[:count])

    threads = [threading.Thread(target=run, args=(count,)) for count in (3, 50, 700)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for count, scores in results.items():
        np.testing.assert_allclose(scores, expected[:count], rtol=1e-5, atol=1e-6)


@every_format
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_a_clear_error(name, share, exported, tmp_path):
    content = (exported / name).read_bytes()
    (tmp_path / "a").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="expected"):
        load_scorer(tmp_path / "a")


@every_format
def test_a_changed_file_is_a_clear_error(name, exported, tmp_path):
    content = bytearray((exported / name).read_bytes())
    for place in (len(content) // 2, content.rindex(b"num_users") + 12):
        changed = content.copy()
        changed[place] ^= 1
        (tmp_path / "a").write_bytes(changed)
        with pytest.raises(ValueError, match="expected"):
            load_scorer(tmp_path / "a")


def test_foreign_files_are_clear_errors(exported, tmp_path):
    import onnx
    import tensorflow as tf

    (tmp_path / "text").write_text("user,item\n1,2\n")
    loaded = onnx.load(exported / "onnx")
    del loaded.metadata_props[:]
    onnx.save(loaded, tmp_path / "theirs.onnx")
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path / "theirs"))
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "theirs"))
    (tmp_path / "theirs.tflite").write_bytes(converter.convert())
    for name in ("text", "theirs.onnx", "theirs.tflite"):
        with pytest.raises(ValueError, match=f"{name}.*expected"):
            load_scorer(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_scorer(tmp_path / "nothing")
    with pytest.raises(ValueError, match="num_threads is 0"):
        load_scorer(exported / "onnx", num_threads=0)


def test_a_file_of_a_newer_format_says_so(exported, tmp_path):
    content = (exported / "litert").read_bytes()
    assert b'"format_version": 2' in content
    (tmp_path / "a").write_bytes(content.replace(b'"format_version": 2', b'"format_version": 3'))
    with pytest.raises(ValueError, match="format version 3"):
        load_scorer(tmp_path / "a")
