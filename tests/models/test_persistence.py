"""Model files: the identical answer or a clear error, whole or not at all.

That every kind of model scores as before is in tests/test_conversions.py, and what damage of all
kinds does, in tests/test_damage.py.
"""

import os
import pickle

import numpy as np
import pytest

from recsys_lib import files
from recsys_lib.data import Interactions
from recsys_lib.files import read_file, replace_file, write_file
from recsys_lib.models import ALS, EASE, IALS, MF, Factors, Popularity, load_model
from recsys_lib.models.factors import FoldIn

DATA = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 3], [5, 3, 4, 1, 2], num_users=4, num_items=5)
MODELS = [EASE(l2=3.5), IALS(2, epochs=2, seed=4), ALS(2, epochs=3, solver="cholesky")]


@pytest.fixture
def saved(tmp_path):
    Popularity().fit(DATA).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("model", [*MODELS, MF(2, loss="logistic", l2=0.3), Popularity()])
def test_settings_come_along(model, tmp_path):
    scores = model.fit(DATA).score_all_items(np.arange(4))
    model.save(tmp_path / "any.name")
    assert [file.name for file in tmp_path.iterdir()] == ["any.name"]
    for loaded in (type(model).load(tmp_path / "any.name"), load_model(tmp_path / "any.name")):
        assert type(loaded) is type(model) and loaded._state()[0] == model._state()[0]
        np.testing.assert_array_equal(loaded.score_all_items(np.arange(4)), scores)
        np.testing.assert_array_equal(loaded.fit(DATA).score_all_items(np.arange(4)), scores)


def test_a_model_without_users(tmp_path):
    items = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    model = Factors(items, fold_in=FoldIn(0.1, 0.2))
    model.save(tmp_path / "model")
    scores = [m.score_histories([[1]]) for m in (model, load_model(tmp_path / "model"))]
    np.testing.assert_array_equal(*scores)


def test_every_flipped_bit_and_every_cut_is_found(saved):
    whole = saved.read_bytes()
    assert isinstance(load_model(saved), Popularity)
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        for content in (bytes(changed), whole[:position]):
            saved.write_bytes(content)
            with pytest.raises(ValueError, match=r"damaged|no file of recsys_lib"):
                load_model(saved)


def test_a_pickle_runs_nothing(tmp_path):
    kind = type("Trap", (), {"__reduce__": lambda self: (os.mkdir, (str(tmp_path / "ran"),))})
    (tmp_path / "model").write_bytes(pickle.dumps(kind()))
    with pytest.raises(ValueError, match="no file of recsys_lib"):
        load_model(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_another_class(saved):
    with pytest.raises(ValueError, match=r"Popularity .*: expected IALS"):
        IALS.load(saved)
    for name in ("Mine", "EASE"):
        own = type(name, (Popularity,), {"__module__": "mine"})
        own().fit(DATA).save(saved)
        assert type(own.load(saved)) is own
        for load in (load_model, EASE.load, Popularity.load):
            with pytest.raises(ValueError, match="expected"):
                load(saved)


def test_a_newer_version_is_named_and_arrays_have_to_fit(tmp_path, monkeypatch):
    path, counts = tmp_path / "model", np.ones(5, np.float32)
    header = {"num_users": 4, "num_items": 5, "module": "recsys_lib.models.closed_form"}

    def write(counts=counts, **config):
        write_file(path, "Popularity", header | {"config": config}, {"item_counts": counts})

    write(shiny=1)
    with pytest.raises(ValueError, match=r"'shiny'.*newer recsys_lib"):
        load_model(path)
    with monkeypatch.context() as changed:
        changed.setattr(files, "FORMAT", files.FORMAT + 1)
        write()
    with pytest.raises(ValueError, match="has format 2"):
        load_model(path)
    for wrong in (counts * np.nan, np.ones(4, np.float32), np.ones(5, np.int32)):
        write(wrong)
        with pytest.raises(ValueError, match="item_counts"):
            load_model(path)


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing(saved):
    before = saved.read_bytes()

    def disk_full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_file(saved, disk_full)
    wrong = {"x": np.array([{}])}, {"x": np.array(["a"])}, {"~z": np.zeros(40)}
    for header, arrays in [({"x": object()}, {}), *(({}, arrays) for arrays in wrong)]:
        with pytest.raises(TypeError, match=r"expected numbers|object"):
            write_file(saved, "a", header, arrays)
    with pytest.raises(FileNotFoundError, match="existing folder"):
        load_model(saved).save(saved.parent / "nowhere" / "model")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_mode_and_link_are_kept_and_leftovers_removed(saved):
    folder = saved.parent
    saved.chmod(0o640)
    (folder / "link").symlink_to(saved)
    dead, alive = (folder / f".model.{pid}-1.tmp" for pid in (2**22 + 1, os.getppid()))
    for left in (dead, alive):
        left.write_bytes(b"half")
    EASE(1.0).fit(DATA).save(folder / "link")
    assert (folder / "link").is_symlink() and saved.stat().st_mode & 0o777 == 0o640
    assert isinstance(load_model(saved), EASE)
    assert not dead.exists() and alive.exists()


def test_arrays_keep_type_shape_and_order(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int8).reshape(2, 3).T, "z": np.array(2.5)}
    arrays["empty"] = np.zeros((0, 3), np.float16)
    size = write_file(tmp_path / "a", "demo", {"k": [1, None]}, arrays)
    assert size == (tmp_path / "a").stat().st_size
    kind, found, read = read_file(tmp_path / "a")
    assert (kind, found, read.keys()) == ("demo", {"k": [1, None]}, arrays.keys())
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)
    with pytest.raises(ValueError, match="holds a demo: expected other"):
        read_file(tmp_path / "a", ["other"])
