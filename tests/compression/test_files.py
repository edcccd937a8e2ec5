"""A file gives back what was written, runs no code, needs no TensorFlow, and says what is wrong."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recsys_lib.compression import load_compressed, save_compressed
from recsys_lib.compression.embedding_tables import LowRank
from recsys_lib.compression.pruning import WeightPruning, prune
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    EntropyCodedTensor,
    ProductQuantization,
    RateDistortion,
    TransformCoding,
    UniformQuantization,
)
from recsys_lib.data import Interactions, SyntheticConfig, make_synthetic
from recsys_lib.models import ALS, EASE, IALS, Factors, FoldIn, as_factors
from recsys_lib.recipe.apply import apply_step, start
from recsys_lib.recipe.steps import EntropyCode, Prune, Quantize, ReduceDimensions

DATA = make_synthetic(SyntheticConfig("video", num_users=300, num_items=400))
CONFIGS = [
    UniformQuantization(3),
    UniformQuantization(8, symmetric=True, granularity="column"),
    CodebookQuantization(3),
    ProductQuantization(6, bits=4, rotation="none"),
    TransformCoding(0.1),
    RateDistortion(embedding_dim=12, epochs=2),
    LowRank(4),
]


@pytest.fixture(scope="module")
def model() -> IALS:
    return IALS(embedding_dim=24, epochs=3).fit(DATA)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("account", ["self-contained", "items"])
def test_what_is_read_scores_as_what_was_written(
    model: IALS, config: object, account: str, tmp_path: Path
) -> None:
    compressed = apply_step(Quantize(config), start(model), DATA).compressed
    size = save_compressed(tmp_path / "m", compressed, account=account)
    assert size == (tmp_path / "m").stat().st_size
    loaded = load_compressed(tmp_path / "m")
    np.testing.assert_array_equal(loaded.item_vectors, compressed.model.item_vectors)
    if account == "self-contained":
        users = np.arange(20)
        np.testing.assert_array_equal(
            loaded.score_all_items(users), compressed.score_all_items(users)
        )
        # The bytes that reports speak of are those on disk, but for the few of header and digest.
        assert abs(size - compressed.nbytes) < 600
    else:
        assert loaded.user_vectors is None
        with pytest.raises(TypeError, match="items only: expected the user's history"):
            loaded.score([0], [0])


def test_sparse_and_coded_forms_and_float32(model: IALS, tmp_path: Path) -> None:
    state = start(model)
    for step in (
        ReduceDimensions(12),
        Prune(WeightPruning(0.6)),
        Quantize(UniformQuantization(4, symmetric=True)),
        EntropyCode(),
    ):
        state = apply_step(step, state, DATA)
        save_compressed(tmp_path / "m", state.compressed)
        loaded = load_compressed(tmp_path / "m")
        np.testing.assert_array_equal(loaded.user_vectors, state.model.user_vectors)
    assert isinstance(state.compressed.tensors["item_vectors"], EntropyCodedTensor)
    assert np.mean(loaded.item_vectors == 0) >= 0.6
    save_compressed(tmp_path / "m", model)
    np.testing.assert_array_equal(load_compressed(tmp_path / "m").user_vectors, model.user_vectors)


def test_reading_and_scoring_needs_no_tensorflow(model: IALS, tmp_path: Path) -> None:
    save_compressed(tmp_path / "m", apply_step(Quantize(), start(model), DATA).compressed)
    code = (
        "import sys\n"
        "from recsys_lib.recipe import load_compressed\n"
        f"model = load_compressed({str(tmp_path / 'm')!r})\n"
        "print(model.top_k(3, k=5).tolist(), model.top_k(history=[1, 2], k=5).tolist())\n"
        "print({'tensorflow', 'keras', 'tf_keras', 'numba', 'torch'} & set(sys.modules))\n"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    loaded = load_compressed(tmp_path / "m")
    assert (
        lines[0] == f"{loaded.top_k(3, k=5).tolist()} {loaded.top_k(history=[1, 2], k=5).tolist()}"
    )
    assert lines[1] == "set()"


@pytest.mark.parametrize("kind", ["self", "history"])
def test_top_k_equals_the_full_ranking(model: IALS, kind: str) -> None:
    factors = as_factors(model)
    matrix = DATA.to_csr()
    for user in range(0, 300, 7):
        seen = matrix.indices[matrix.indptr[user] : matrix.indptr[user + 1]]
        if kind == "self":
            expected = model.recommend([user], k=10, exclude=[seen])[0]
            found = factors.top_k(user, 10, exclude=seen)
        else:
            expected = model.recommend(histories=[seen], k=10)[0]
            found = factors.top_k(k=10, history=seen)
        # Equal up to neighbours whose scores differ by rounding.
        vector = model.user_vectors[user] if kind == "self" else model.fold_in([seen])[0]
        np.testing.assert_allclose(
            model.item_vectors[found] @ vector, model.item_vectors[expected] @ vector, atol=1e-5
        )
        assert not set(found) & set(seen) and len(set(found)) == 10


def test_ties_go_to_the_lowest_id_and_missing_items_are_minus_one() -> None:
    model = Factors(np.ones((700, 3), np.float32), np.ones((1, 3), np.float32))
    assert model.top_k(0, 4).tolist() == [0, 1, 2, 3]
    assert model.top_k(0, 4, exclude=[1, 2]).tolist() == [0, 3, 4, 5]
    few = Factors(np.eye(3, dtype=np.float32), -np.ones((1, 3), np.float32))
    assert few.top_k(0, 5, exclude=[1]).tolist() == [0, 2, -1, -1, -1]


@pytest.mark.parametrize("l2", [0.0, 0.007, 1.0])
def test_fold_in_equals_that_of_ials(l2: float) -> None:
    model = IALS(embedding_dim=16, epochs=3, l2=0.02).fit(DATA)
    model.l2 = l2
    histories = [[1], [1, 2, 3], list(range(0, 60, 2)), list(range(390))]
    expected = model.fold_in(histories)
    np.testing.assert_allclose(
        as_factors(model).fold_in(histories), expected, rtol=2e-3, atol=2e-4 * abs(expected).max()
    )


def test_a_changed_copy_forgets_what_was_computed(model: IALS) -> None:
    from recsys_lib.compression import with_weights

    factors = as_factors(model)
    factors.top_k(0)
    reversed_items = factors.item_vectors[::-1].copy()
    other = with_weights(factors, {"item_vectors": reversed_items})
    assert (
        other.top_k(0).tolist() == Factors(reversed_items, factors.user_vectors).top_k(0).tolist()
    )


def _with_version(content: bytes, version: int) -> bytes:
    return content[:8] + struct.pack("<H", version) + content[10:]


def test_damage_is_told_apart(model: IALS, tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_compressed(path, apply_step(Quantize(), start(model), DATA).compressed)
    content = path.read_bytes()
    cases = {
        "checksum": [
            content[:-1],
            content[: len(content) // 2],
            content + b"\0",
            content[:200] + bytes([content[200] ^ 1]) + content[201:],
            content[:-5] + bytes([content[-5] ^ 255]) + content[-4:],
        ],
        "truncated": [content[:5], content[:40]],
        "format version 2: this recsys_lib reads version 1": [_with_version(content, 2)],
        "no compressed recommender": [b"", b"PK\x03\x04" + content[4:], b"\x80\x04pickle"],
    }
    for message, damaged in cases.items():
        for one in damaged:
            path.write_bytes(one)
            with pytest.raises(ValueError, match=message) as error:
                load_compressed(path)
            assert str(path) in str(error.value)
    with pytest.raises(FileNotFoundError):
        load_compressed(tmp_path / "none")


def test_a_forged_header_is_an_error_and_no_code(model: IALS, tmp_path: Path) -> None:
    """With a right checksum, but with arrays of objects, of other sizes, or of unknown kinds."""
    import hashlib
    import json
    import zlib

    def forge(tensors: object) -> bytes:
        text = zlib.compress(json.dumps({"tensors": tensors, "fold_in": None}).encode())
        body = struct.pack("<8sHI", b"RSLFACT\n", 1, len(text)) + text + b"\0" * 16
        return body + hashlib.sha256(body).digest()

    header = {"dtype": "float32", "shape": [2, 2]}
    forged = [
        [["item_vectors", "dense", header, [["values", "|O", [2]]]]],
        [["item_vectors", "dense", header, [["values", "<f4", [400]]]]],
        [["item_vectors", "dense", header, [["values", "<f4", [-1]]]]],
        [["item_vectors", "eval", header, [["values", "<f4", [2, 2]]]]],
        [["item_vectors", "dense", header, [["values", "<f4", [2, 1]]]]],
        [["user_vectors", "dense", header, [["values", "<f4", [2, 2]]]]],
        [],
        {"a": 1},
        None,
    ]
    for tensors in forged:
        (tmp_path / "m").write_bytes(forge(tensors))
        with pytest.raises(ValueError, match="is damaged"):
            load_compressed(tmp_path / "m")


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
        save_compressed(path, prune(as_factors(model), WeightPruning(0.5)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_bad_input_is_named(model: IALS, tmp_path: Path) -> None:
    als = ALS(embedding_dim=4, epochs=1).fit(DATA)
    with pytest.raises(TypeError, match="account is 'items'"):
        save_compressed(tmp_path / "m", als, account="items")
    with pytest.raises(ValueError, match="account is 'users'"):
        save_compressed(tmp_path / "m", model, account="users")
    with pytest.raises(FileNotFoundError, match="existing folder"):
        save_compressed(tmp_path / "none" / "m", model)
    with pytest.raises(TypeError, match=r"EASE.*inner product"):
        save_compressed(tmp_path / "m", EASE().fit(DATA))
    with pytest.raises(ValueError, match="expected one of them"):
        Factors(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="same number of dimensions"):
        Factors(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match="l2 is -1"):
        FoldIn(-1, 0)
    factors = as_factors(als)
    with pytest.raises(TypeError, match="cannot fold in"):
        factors.top_k(history=[1])
    with pytest.raises(ValueError, match="both given"):
        as_factors(model).top_k(1, history=[1])
    with pytest.raises(ValueError, match="history is empty"):
        as_factors(model).top_k(history=np.array([], int))
    with pytest.raises(ValueError, match="user_id holds 300"):
        factors.top_k(300)
    with pytest.raises(ValueError, match="exclude holds 400"):
        factors.top_k(0, exclude=[400])
    with pytest.raises(TypeError, match="IALS"):
        factors.fit(Interactions([0], [0]))
