"""Model files: the identical answer or a clear error, whole or not at all."""

import os
import pickle

import numpy as np
import pytest

from recsys_lib import files
from recsys_lib.data import Interactions
from recsys_lib.files import read_file, replace_file, write_file
from recsys_lib.models import ALS, EASE, IALS, Factors, Popularity, load_model
from recsys_lib.models.factors import FoldIn

DATA = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 3], [5, 3, 4, 1, 2], num_users=4, num_items=5)
TABLES = [np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32) for n in (5, 4)]
MODELS = [
    Popularity().fit(DATA),
    EASE(l2=3.5).fit(DATA),
    IALS(embedding_dim=2, epochs=2, seed=4).fit(DATA),
    ALS(2, epochs=3, solver="cholesky").fit(DATA),
    Factors(*TABLES, global_mean=3.0, user_biases=TABLES[1][:, 0], item_biases=TABLES[0][:, 0]),
    Factors(TABLES[0], fold_in=FoldIn(0.1, 0.2)),
]


@pytest.fixture
def saved(tmp_path):
    Popularity().fit(DATA).save(tmp_path / "model")
    return tmp_path / "model"


def scores_of(model):
    return model.score_all_items(np.arange(4)) if model.num_users else model.score_histories([[1]])


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_what_is_loaded_equals_what_was_saved(model, tmp_path):
    model.save(tmp_path / "any.name")
    assert [file.name for file in tmp_path.iterdir()] == ["any.name"]
    for loaded in (type(model).load(tmp_path / "any.name"), load_model(tmp_path / "any.name")):
        assert type(loaded) is type(model)
        assert loaded._counts() == model._counts()
        assert loaded._state()[0] == model._state()[0]
        scores = [scores_of(model), scores_of(loaded)]
        np.testing.assert_array_equal(*scores)
        if type(model) is not Factors:  # its settings came along
            np.testing.assert_array_equal(scores_of(loaded.fit(DATA)), scores[0])


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


def test_foreign_files(tmp_path):
    ran = []

    class Trap:
        def __reduce__(self):
            return (ran.append, (1,))

    np.savez(tmp_path / "trap.npz", x=np.array([Trap()], dtype=object))
    for name, content in (("text", b"user,item\n1,2\n"), ("pickle", pickle.dumps(1)), ("a", b"")):
        (tmp_path / name).write_bytes(content)
    ran.clear()
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match="no file of recsys_lib"):
            load_model(path)
    assert ran == []
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")


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


def settings(**config):
    module = "recsys_lib.models.closed_form"
    return {"num_users": 4, "num_items": 5, "module": module, "config": config}


def test_a_newer_version_is_named_and_arrays_have_to_fit(tmp_path, monkeypatch):
    path, counts = tmp_path / "model", {"item_counts": np.ones(5, np.float32)}
    write_file(path, "Popularity", settings(shiny=1), counts)
    with pytest.raises(ValueError, match=r"'shiny'.*newer recsys_lib"):
        load_model(path)
    monkeypatch.setattr(files, "FORMAT", files.FORMAT + 1)
    write_file(path, "Popularity", settings(), counts)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format 2"):
        load_model(path)
    for wrong in (counts["item_counts"] * np.nan, np.ones(4, np.float32), np.ones(5, np.int32)):
        write_file(path, "Popularity", settings(), {"item_counts": wrong})
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
        MODELS[0].save(saved.parent / "nowhere" / "model")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_mode_and_link_are_kept_and_leftovers_removed(saved):
    folder = saved.parent
    saved.chmod(0o640)
    (folder / "link").symlink_to(saved)
    dead, alive = (folder / f".model.{pid}-1.tmp" for pid in (2**22 + 1, os.getppid()))
    for left in (dead, alive):
        left.write_bytes(b"half")
    MODELS[1].save(folder / "link")
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
