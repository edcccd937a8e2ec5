from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, Popularity, Recommender, load_model, persistence

DATA = Interactions([0, 0, 1, 1, 2], [0, 1, 1, 2, 3], [5, 3, 4, 1, 2], num_users=4, num_items=5)
MODELS = [Popularity(), EASE(l2=3.5), IALS(embedding_dim=2, epochs=2, seed=4), ALS(2, epochs=3)]


def by_name(model: Recommender) -> str:
    return type(model).__name__


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.npz"
    EASE(l2=3.5).fit(DATA).save(path)
    return path


def write_header(path, **changes):
    header = {"format": persistence.FORMAT, "format_version": 1, "class": "EASE", "config": {}}
    raw = np.frombuffer(json.dumps(header | changes).encode(), np.uint8)
    np.savez(path, **{"header.json": raw})


@pytest.mark.parametrize("model", MODELS, ids=by_name)
def test_what_is_loaded_equals_what_was_saved(model, tmp_path):
    model.fit(DATA).save(tmp_path / "any.name")
    assert [file.name for file in tmp_path.iterdir()] == ["any.name"]
    users = np.arange(4)
    for loaded in (type(model).load(tmp_path / "any.name"), load_model(tmp_path / "any.name")):
        assert type(loaded) is type(model)
        assert (loaded.num_users, loaded.num_items) == (4, 5)
        assert loaded._state()[0] == model._state()[0]
        np.testing.assert_array_equal(loaded.score_all_items(users), model.score_all_items(users))
        loaded.fit(DATA)  # its settings came along
        np.testing.assert_array_equal(loaded.score_all_items(users), model.score_all_items(users))


def test_saving_again_replaces_the_file(saved):
    Popularity().fit(DATA).save(saved)
    assert isinstance(load_model(saved), Popularity)


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing(saved, monkeypatch):
    before = saved.read_bytes()

    def disk_full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="No space left"):
        Popularity().fit(DATA).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected an existing folder"):
        Popularity().fit(DATA).save(tmp_path / "nowhere" / "model.npz")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_truncated(saved, share):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match="is not a whole recsys_lib model file"):
        load_model(saved)


def test_one_changed_byte_is_found(saved):
    content = bytearray(saved.read_bytes())
    content[content.find(b"array.item_weights.npy") + 200] ^= 0xFF
    saved.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is not a whole recsys_lib model file"):
        load_model(saved)


def test_foreign_files(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "other.npz", x=np.arange(3))
    (tmp_path / "text.csv").write_text("user,item\n1,2\n")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"a": 1}))
    for name in ("array.npy", "other.npz", "text.csv", "pickle.npz"):
        with pytest.raises(ValueError, match=r"expected a file written by save\(\)"):
            load_model(tmp_path / name)


def test_code_in_the_file_is_not_run(tmp_path):
    ran = []

    class Trap:
        def __reduce__(self):
            return (ran.append, (1,))

    np.savez(tmp_path / "trap.npz", **{"header.json": np.array([Trap()], dtype=object)})
    ran.clear()
    with pytest.raises(ValueError, match="is not a whole recsys_lib model file"):
        load_model(tmp_path / "trap.npz")
    assert ran == []


def test_another_class(saved):
    with pytest.raises(ValueError, match="class EASE: expected IALS"):
        IALS.load(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format version 2, this recsys_lib reads up to 1"),
        ({"format_version": "x"}, "format version 'x': expected 1 to 1"),
        ({"format": "else"}, "has no header of a recsys_lib model"),
        ({"class": "Elsewhere", "module": "some.where"}, "expected `import some.where` first"),
        ({}, "is damaged"),
        ({"config": {"l2": 1, "new": 2}}, "is damaged"),
        ({"config": 3}, "is damaged"),
    ],
)
def test_bad_headers(tmp_path, changes, message):
    write_header(tmp_path / "model.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "model.npz")


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    model = IALS(embedding_dim=2, epochs=1).fit(DATA)
    model.user_vectors = model.user_vectors[:, :1]
    model.save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"damaged .*user_vectors"):
        load_model(tmp_path / "model.npz")


def test_objects_cannot_be_written(tmp_path):
    with pytest.raises(TypeError, match="holds Python objects"):
        persistence.write_model_file(tmp_path / "a.npz", {}, {"x": np.array([{}])})
    with pytest.raises(TypeError):
        persistence.write_model_file(tmp_path / "a.npz", {"x": object()}, {})
    assert list(tmp_path.iterdir()) == []
