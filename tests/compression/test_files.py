"""A file gives back what was written, runs no code, needs no TensorFlow, and says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys_lib.compression import CompressedModel, load_compressed, save_compressed, store_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.embedding_tables import Hashing, LowRank
from recsys_lib.compression.pruning import WeightPruning, prune
from recsys_lib.compression.tensors import read_tensor
from recsys_lib.data import Interactions, make_synthetic
from recsys_lib.data.synthetic import SyntheticConfig
from recsys_lib.files import read_file, write_file
from recsys_lib.models import ALS, EASE, IALS, as_factors

DATA = make_synthetic(SyntheticConfig("video", num_users=300, num_items=400))
USERS = np.arange(20)
GROUPS = {"item_vectors": q.frequency_groups(np.bincount(DATA.item_ids, minlength=400), (0.2, 0.8))}
MIXED = q.MixedPrecision({"item_vectors[0]": 4, "item_vectors[1]": 2, "user_vectors": 16}, GROUPS)
CONFIGS: list[Any] = [
    "float16",
    q.UniformQuantization(3),
    q.UniformQuantization(8, symmetric=True, granularity="column"),
    q.CodebookQuantization(3),
    q.ProductQuantization(6, bits=4),
    MIXED,
    q.TransformCoding(0.1),
    q.TransformCoding(0.1, contexts="size"),
    q.RateDistortion(embedding_dim=12, epochs=2),
    LowRank(4),
    Hashing(50),
    {"item_vectors": q.UniformQuantization(4)},
]


@pytest.fixture(scope="module")
def model() -> IALS:
    return IALS(embedding_dim=24, epochs=3).fit(DATA)


@pytest.fixture(scope="module")
def rated() -> ALS:
    rng = np.random.default_rng(0)
    stars = 3.0 + rng.normal(size=len(DATA)) + rng.normal(size=400)[DATA.item_ids]
    data = Interactions(DATA.user_ids, DATA.item_ids, ratings=stars, num_users=300, num_items=400)
    return ALS(embedding_dim=24, epochs=2).fit(data)


def coded(model: Any, config: Any) -> CompressedModel:
    small = q.quantize(model, config)
    tensors = {name: q.EntropyCoding().encode(tensor) for name, tensor in small.tensors.items()}
    return store_weights("entropy coding", config, small.model, tensors)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_what_is_read_scores_as_what_was_written(
    model: IALS, rated: ALS, config: Any, tmp_path: Path
) -> None:
    for given in (model, rated):
        train = {"train": DATA} if isinstance(config, q.RateDistortion) else {}
        compressed = q.quantize(given, config, **train)
        size = save_compressed(tmp_path / "m", compressed)
        assert size == (tmp_path / "m").stat().st_size
        parts = sum(len(tensor.arrays()) for tensor in compressed.tensors.values())
        assert abs(size - compressed.nbytes) < 400 + 90 * parts  # names and types of arrays
        exact = compressed.score_all_items(USERS)
        found = load_compressed(tmp_path / "m").score_all_items(USERS)
        np.testing.assert_array_equal(found, exact)
        if not isinstance(config, q.RateDistortion | LowRank | Hashing):
            plain = given.score_all_items(USERS)
            assert np.corrcoef(exact.ravel(), plain.ravel())[0, 1] > 0.7


def test_the_file_of_items_folds_its_users_in(model: IALS, tmp_path: Path) -> None:
    compressed = q.quantize(model, q.UniformQuantization(4))
    whole = save_compressed(tmp_path / "whole", compressed)
    size = save_compressed(tmp_path / "m", compressed, account="items")
    assert size < 0.75 * whole
    loaded = load_compressed(tmp_path / "m")
    assert loaded.user_vectors is None and loaded.num_users == 0
    folded = [m.fold_in([[1, 2, 3], [5]]) for m in (loaded, compressed.model)]
    np.testing.assert_allclose(*folded, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="user_ids"):
        loaded.score([0], [0])


def test_sparse_and_coded_forms_and_float32(model: IALS, tmp_path: Path) -> None:
    forms = [model, prune(as_factors(model), WeightPruning(0.6))]
    for config in (q.UniformQuantization(4, symmetric=True), q.ProductQuantization(6, bits=4)):
        forms.append(coded(model, config))
    for form in forms:
        save_compressed(tmp_path / "m", form)
        expected = getattr(form, "model", form).item_vectors
        np.testing.assert_array_equal(load_compressed(tmp_path / "m").item_vectors, expected)


def test_reading_and_scoring_needs_no_tensorflow(model: IALS, tmp_path: Path) -> None:
    save_compressed(tmp_path / "m", coded(model, q.UniformQuantization(4)))
    code = (
        "import sys\n"
        "from recsys_lib.compression import load_compressed\n"
        f"model = load_compressed({str(tmp_path / 'm')!r})\n"
        "print(model.recommend([3], k=5).tolist(), model.fold_in([[1]]).shape)\n"
        "print({'tensorflow', 'keras', 'tf_keras', 'numba', 'torch'} & set(sys.modules))\n"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    found = load_compressed(tmp_path / "m").recommend([3], k=5).tolist()
    assert lines == [f"{found} (1, 24)", "set()"]


def test_a_forged_header_is_an_error_and_no_code(model: IALS, tmp_path: Path) -> None:
    """With a right checksum, but with parts of other sizes, settings or kinds."""
    path = tmp_path / "m"
    save_compressed(path, coded(model, q.UniformQuantization(4)))
    kind, settings, arrays = read_file(path)
    name, form, header = settings["tensors"][0]
    changes = ({"shape": [2, 2]}, {"shiny": True}, {"bits": 3})
    inner = [header | {"inner_header": header["inner_header"] | change} for change in changes]
    forms = [("eval", header), ("dense", header), (form, {}), *((form, i) for i in inner)]
    for other, new in forms:
        tensors = [[name, other, new], *settings["tensors"][1:]]
        write_file(path, kind, settings | {"tensors": tensors}, arrays)
        with pytest.raises(ValueError, match="cannot be read"):
            load_compressed(path)


def test_a_failed_write_leaves_the_old_file(
    model: IALS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m"
    save_compressed(path, model)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_compressed(path, q.quantize(model, q.UniformQuantization(4)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_refuses(model: IALS, rated: ALS, tmp_path: Path) -> None:
    path = tmp_path / "m"
    for error, message, call in (
        (TypeError, "account is 'items'", lambda: save_compressed(path, rated, account="items")),
        (ValueError, "account is 'users'", lambda: save_compressed(path, model, account="users")),
        (FileNotFoundError, "folder", lambda: save_compressed(path / "none" / "m", model)),
        (TypeError, "EASE", lambda: save_compressed(path, EASE().fit(DATA))),
        (FileNotFoundError, "m", lambda: load_compressed(path)),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_setting_of_a_newer_version_is_named(model, config):
    for tensor in q.quantize(model, config, train=DATA).tensors.values():
        header, arrays = tensor.header(), tensor.arrays()
        again = read_tensor(tensor.kind, header, arrays)
        np.testing.assert_array_equal(again.decode(), tensor.decode())
        with pytest.raises(ValueError, match=r"'shiny'.*newer"):
            read_tensor(tensor.kind, header | {"shiny": 1}, arrays)
