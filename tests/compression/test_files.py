"""A file gives back what was written, runs no code, needs no TensorFlow, and says what is wrong."""

import subprocess
import sys

import numpy as np
import pytest

from recsys_lib.compression import load_compressed, save_compressed, store_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.embedding_tables import Hashing, LowRank
from recsys_lib.compression.pruning import WeightPruning, prune
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.files import read_file, write_file
from recsys_lib.models import ALS, EASE, IALS, as_factors

DATA = make_synthetic(SyntheticConfig("video", num_users=300, num_items=400))
GROUPS = {"item_vectors": q.frequency_groups(np.bincount(DATA.item_ids, minlength=400), (0.2, 0.8))}
UNIFORM, PIECES = q.UniformQuantization(4, symmetric=True), q.ProductQuantization(6, bits=4)
NEAR = [
    *("float16", q.UniformQuantization(3), {"item_vectors": q.UniformQuantization(4)}),
    *(q.UniformQuantization(8, symmetric=True, granularity="column"), q.CodebookQuantization(3)),
    *(PIECES, q.TransformCoding(0.1), q.TransformCoding(0.1, contexts="size")),
    q.MixedPrecision({"item_vectors[0]": 4, "item_vectors[1]": 2, "user_vectors": 16}, GROUPS),
]
FAR = [
    *(q.RateDistortion(embedding_dim=12, epochs=2), LowRank(4), Hashing(50)),
    *(q.SignQuantization(), q.SignQuantization(rerank=UNIFORM), q.ResidualQuantization(4)),
]


@pytest.fixture(scope="module")
def model():
    return IALS(embedding_dim=24, epochs=3).fit(DATA)


@pytest.fixture(scope="module")
def rated():
    rng = np.random.default_rng(0)
    stars = 3.0 + rng.normal(size=len(DATA)) + rng.normal(size=400)[DATA.item_ids]
    data = Interactions(DATA.user_ids, DATA.item_ids, ratings=stars, num_users=300, num_items=400)
    return ALS(embedding_dim=24, epochs=2).fit(data)


def coded(model, config):
    small = q.quantize(model, config)
    tensors = {name: q.EntropyCoding().encode(tensor) for name, tensor in small.tensors.items()}
    return store_weights("entropy coding", config, small.model, tensors)


@pytest.mark.parametrize("config", [*NEAR, *FAR], ids=lambda config: type(config).__name__)
def test_what_is_read_scores_as_what_was_written(model, rated, config, through_bytes, tmp_path):
    users = np.arange(20)
    for given in (model, rated):
        compressed = q.quantize(given, config, train=DATA)
        size = save_compressed(tmp_path / "m", compressed)
        assert size == (tmp_path / "m").stat().st_size
        parts = sum(len(tensor.arrays()) for tensor in compressed.tensors.values())
        assert abs(size - compressed.nbytes) < 400 + 90 * parts  # names and types of arrays
        exact, loaded = compressed.score_all_items(users), load_compressed(tmp_path / "m")
        np.testing.assert_array_equal(loaded.score_all_items(users), exact)
        if config in NEAR:
            plain = given.score_all_items(users)
            assert np.corrcoef(exact.ravel(), plain.ravel())[0, 1] > 0.7
        for tensor in map(through_bytes, compressed.tensors.values()):
            with pytest.raises(ValueError, match=r"'shiny'.*newer"):
                read_tensor(tensor.kind, tensor.header() | {"shiny": 1}, tensor.arrays())
    if not isinstance(config, q.RateDistortion):  # there, they become one more dimension
        np.testing.assert_array_equal(loaded.user_biases, rated.user_biases)
        np.testing.assert_array_equal(loaded.item_biases, rated.item_biases)


def test_the_file_of_items_folds_its_users_in(model, tmp_path):
    compressed = q.quantize(model, q.UniformQuantization(4))
    whole = save_compressed(tmp_path / "whole", compressed)
    assert save_compressed(tmp_path / "m", compressed, account="items") < 0.75 * whole
    loaded = load_compressed(tmp_path / "m")
    assert loaded.user_vectors is None and loaded.num_users == 0
    folded = [m.fold_in([[1, 2, 3], [5]]) for m in (loaded, compressed.model)]
    np.testing.assert_allclose(*folded, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="user_ids"):
        loaded.score([0], [0])


def test_sparse_and_coded_forms_and_float32(model, tmp_path):
    sparse = prune(as_factors(model), WeightPruning(0.6))
    for form in (model, sparse, coded(model, UNIFORM), coded(model, PIECES)):
        save_compressed(tmp_path / "m", form)
        expected = getattr(form, "model", form).item_vectors
        np.testing.assert_array_equal(load_compressed(tmp_path / "m").item_vectors, expected)


def test_reading_and_scoring_needs_no_tensorflow(model, tmp_path):
    save_compressed(tmp_path / "m", coded(model, q.UniformQuantization(4)))
    code = f"""import sys
from recsys_lib.compression import load_compressed
model = load_compressed({str(tmp_path / "m")!r})
print(model.recommend([3], k=5).tolist(), model.fold_in([[1]]).shape)
print({{'tensorflow', 'keras', 'tf_keras', 'numba', 'torch'}} & set(sys.modules))"""
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    found = load_compressed(tmp_path / "m").recommend([3], k=5).tolist()
    assert lines == [f"{found} (1, 24)", "set()"]


def test_a_forged_header_is_an_error_and_no_code(model, tmp_path):
    """With a right checksum, but with parts of other sizes, settings or kinds."""
    path = tmp_path / "m"
    save_compressed(path, coded(model, q.UniformQuantization(4)))
    kind, settings, arrays = read_file(path)
    (name, form, header), *others = settings["tensors"]
    changes = ({"shape": [2, 2]}, {"shiny": True}, {"bits": 3})
    inner = [header | {"inner_header": header["inner_header"] | change} for change in changes]
    for forged in (("eval", header), ("dense", header), (form, {}), *((form, i) for i in inner)):
        write_file(path, kind, settings | {"tensors": [[name, *forged], *others]}, arrays)
        with pytest.raises(ValueError, match="cannot be read"):
            load_compressed(path)


def test_a_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError("disk full")

    save_compressed(tmp_path / "m", model)
    before = (tmp_path / "m").read_bytes()
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_compressed(tmp_path / "m", q.quantize(model, UNIFORM))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("m", before)]


def test_refuses(model, rated, tmp_path, refuses):
    path, ease = tmp_path / "m", EASE().fit(DATA)
    refuses(
        ("account is 'items'", lambda: save_compressed(path, rated, account="items")),
        ("account is 'users'", lambda: save_compressed(path, model, account="users")),
        ("folder", lambda: save_compressed(path / "none" / "m", model)),
        ("EASE", lambda: save_compressed(path, ease)),
        (str(path), lambda: load_compressed(path)),
    )
