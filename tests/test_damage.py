"""Every kind of file: after damage the identical answer or a clear error, and no leftovers."""

import functools
import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from recsys_lib import models as m
from recsys_lib.compression import load_compressed, save_compressed, store_weights
from recsys_lib.compression import quantization as q
from recsys_lib.compression.embedding_tables import Hashing, LowRank, QuotientRemainder
from recsys_lib.compression.pruning import WeightPruning, prune
from recsys_lib.data import Interactions, Split
from recsys_lib.files import read_file, write_file
from recsys_lib.models import load_model
from recsys_lib.recipe import Quantize, search_recipe
from recsys_lib.recipe.search import _known_trials
from recsys_lib.serving import TopKIndex, export_litert, export_onnx, load_scorer
from recsys_lib.text import TextEncoderConfig, build_text_encoder
from recsys_lib.text.compress import ExportedEncoder, export_text_encoder
from recsys_lib.training import KerasRecommender, fit
from recsys_lib.training.checkpoint import load_checkpoint

ROWS = np.arange(60)
DATA = Interactions(ROWS % 12, (ROWS // 7 + ROWS) % 9, ROWS % 5 + 1.0, num_users=12, num_items=9)
CONFIG = m.RatingModelConfig("mlp_ranker", 12, 9, 4, hidden_units=(4,))
UNIFORM = q.UniformQuantization(4)
FORMS = [UNIFORM, q.CodebookQuantization(2), q.ProductQuantization(2, bits=2)]
FORMS += [q.TransformCoding(0.1), LowRank(2), Hashing(5), QuotientRemainder(3)]
FORMS += [WeightPruning(0.5), q.EntropyCoding()]


@functools.cache
def ials():
    return m.IALS(embedding_dim=4, epochs=2).fit(DATA)


@functools.cache
def keras_recommender():
    return KerasRecommender(CONFIG, epochs=1, progress=False).fit(DATA)


def stored(form):
    if isinstance(form, q.EntropyCoding):
        whole = q.quantize(ials(), UNIFORM)
        tensors = {name: form.encode(tensor) for name, tensor in whole.tensors.items()}
        return store_weights("coded", form, whole.model, tensors)
    return (prune if isinstance(form, WeightPruning) else q.quantize)(ials(), form)


def answers(model):
    """Return bytes that tell what a model answers."""
    return np.asarray(model.score_all_items(np.arange(12))).tobytes()


def saved(model):
    return lambda path: model().save(path), lambda path: answers(load_model(path))


def scorer(export):
    return (
        lambda path: export(keras_recommender().keras_model, path),
        lambda path: answers(load_scorer(path)),
    )


def write_encoder(path):
    config = TextEncoderConfig(20, 4, num_layers=1, num_heads=2, hidden_units=4, max_tokens=5)
    export_text_encoder(build_text_encoder(config), path)


def encoder_answer(path):
    ids = np.array([[1, 7, 2]])
    return ExportedEncoder(path)(ids, np.ones_like(ids)).tobytes()


def write_checkpoint(path):
    fit(keras_recommender().keras_model, DATA, epochs=1, progress=False, checkpoint=path)
    RUN["fit"] = read_file(path)[1]["settings"]


def checkpoint_answer(path):
    state = load_checkpoint(path, RUN["fit"])
    return b"".join(a.tobytes() for a in (*state.model, *state.optimizer)), state.history


def write_log(path):
    bits = {"bits": [[Quantize(q.UniformQuantization(bits))] for bits in (8, 4, 2)]}
    split = Split(*DATA.split_random(0.3, seed=0))
    options = {"timer": None, "recipes": bits, "k": 2, "progress": False}
    search_recipe(ials(), split, 0.5, checkpoint=path, **options)
    RUN["search"] = read_file(path)[1]["search"]


RUN, TABLE = {}, np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
BIASED = m.Factors(TABLE, TABLE, global_mean=3.0, item_biases=TABLE[:, 0])
SCORERS = {"scorer.tflite": export_litert, "scorer.onnx": export_onnx}
KINDS = {
    "Popularity": saved(lambda: m.Popularity().fit(DATA)),
    "EASE": saved(lambda: m.EASE(1.0).fit(DATA)),
    "IALS": saved(ials),
    "ALS": saved(lambda: m.ALS(4, epochs=2).fit(DATA)),
    "MF": saved(lambda: m.MF(4, epochs=2).fit(DATA)),
    "Factors": (BIASED.save, lambda path: m.Factors.load(path).score_all_items([0]).tobytes()),
    "KerasRecommender": saved(keras_recommender),
    "compressed": (
        lambda path: save_compressed(path, stored(q.EntropyCoding())),
        lambda path: answers(load_compressed(path)),
    ),
    "index": (
        TopKIndex(TABLE).save,
        lambda path: TopKIndex.load(path).search(TABLE, 9).scores.tobytes(),
    ),
    "checkpoint": (write_checkpoint, checkpoint_answer),
    "search log": (write_log, lambda path: repr(_known_trials(path, RUN["search"]))),
    **{name: scorer(export) for name, export in SCORERS.items()},
    "encoder.tflite": (write_encoder, encoder_answer),
    "encoder.onnx": (write_encoder, encoder_answer),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Return path, bytes and answer of a kind, written once."""
    folder = tmp_path_factory.mktemp("whole")

    @functools.cache
    def make(kind):
        write, answer = KINDS[kind]
        write(folder / kind)
        return folder / kind, (folder / kind).read_bytes(), answer(folder / kind)

    return make


@contextmanager
def memory_below(most):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def check(path, content, answer, expected=None):
    """Demand the expected answer or an error that names the file; tell which it was."""
    path.write_bytes(content)
    try:
        assert answer(path) == expected
    except (ValueError, OSError) as error:
        assert str(path) in str(error)
        return False
    return True


def change(content, number):
    """Return the content with flipped bits, cut, longer, with zeros or with a part moved."""
    rng = random.Random(number)
    changed, (first, last) = bytearray(content), sorted(rng.choices(range(len(content)), k=2))
    if number % 10 == 0:
        return content[:first]
    if number % 10 == 1:
        return content[:first] + content[last:]
    if number % 10 == 2:
        return content[:last] + content[first:]
    if number % 10 == 3:
        changed[first : first + 8] = bytes(len(changed[first : first + 8]))
        return bytes(changed)
    for place in (first, last)[: 1 + number % 2]:
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.slow
@every_kind
def test_1000_changes_give_the_answer_or_an_error(kind, whole, tmp_path):
    _, content, expected = whole(kind)
    answer, path, same = KINDS[kind][1], tmp_path / kind, 0
    for number in range(1000):
        changed = change(content, number)
        traced = number % 20 < 8  # flips among them
        with memory_below(10 * len(content) + 200_000) if traced else nullcontext():
            same += check(path, changed, answer, expected) and changed != content
    assert same < 50  # bytes that say nothing, between a model and its facts


@every_kind
def test_files_of_another_kind_are_refused(kind, whole, tmp_path):
    models = list(KINDS)[:7]
    others = {"IALS", "EASE", "compressed", "index", "checkpoint", "search log"} - {kind}
    others |= {kind.replace("scorer", "encoder"), kind.replace("encoder", "scorer")} - {kind}
    contents = [whole(x)[1] for x in others if not (kind in models and x in models)]
    contents += [b"", b"hello", b"\0" * 5000, b"{" * 5000, b"[" * 200_000, b"PK\3\4" * 50]
    for content in contents:
        assert not check(tmp_path / kind, content, KINDS[kind][1])


def forge(header, data=b""):
    """Return a file with this header and, for all its lies, a right checksum."""
    header += b" " * (-len(header) % 8)
    content = len(header).to_bytes(8, "little") + header + data
    return content + hashlib.sha256(content).digest()


def lies(content):
    """Yield headers that claim what the file cannot hold."""
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size : -32]
    for shape in (b"[1099511627776,1099511627776]", b"[-1]", b"[1180591620717411303424]", b"[1e9]"):
        yield re.sub(rb'"shape":\[[0-9,]+\]', b'"shape":' + shape, header, count=1), data
    deep = b"[" * 100_000 + b"]" * 100_000
    for settings in (b"{}", b"[]", b"7", b"null", deep, b'{\\"config\\":' + deep + b"}"):
        yield re.sub(rb'\\"settings\\":.*?"}', b'\\"settings\\":' + settings + b'}"}', header), data
    named = rb'(\\"(?:num_users|num_items|embedding_dim|shape|search|settings|precision)\\":)'
    for number in (b"-3", b"1099511627776", b"1180591620717411303424", b'\\"a\\"', b"1e400", deep):
        yield re.sub(named + rb" ?[^,}\]]+", rb"\g<1>" + number, header), data
    yield header[:-1], data
    yield b'{"__metadata__":{"recsys_lib":' + deep, data


@pytest.mark.parametrize("kind", list(KINDS)[:11])
def test_headers_that_lie_under_a_right_checksum(kind, whole, tmp_path):
    _, content, expected = whole(kind)
    for header, data in lies(content):
        for forged in (forge(header, data), forge(header, data)[:-32] + bytes(32)):
            with memory_below(10 * len(forged) + 4_000_000):
                opened = check(tmp_path / kind, forged, KINDS[kind][1], expected)
            assert not opened or forged == content, header[:300]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: type(form).__name__)
def test_stored_forms_that_lie_about_their_shape(form, tmp_path):
    save_compressed(tmp_path / "a", stored(form))
    kind, settings, arrays = read_file(tmp_path / "a")

    def changed(header, shape):
        inner = {k: changed(v, shape) for k, v in header.items() if isinstance(v, dict)}
        return header | inner | ({"shape": shape} if "shape" in header else {})

    huge = [2**40, 2**20], [2**20, 2**12], [2**70, 4]
    for shape in (*huge, [-1, 4], [9], [], None, "ab", [1.5, 4]):
        tensors = [[name, how, changed(h, shape)] for name, how, h in settings["tensors"]]
        write_file(tmp_path / "b", kind, settings | {"tensors": tensors}, arrays)
        with memory_below(20_000_000), pytest.raises(ValueError, match=str(tmp_path / "b")):
            load_compressed(tmp_path / "b")


@pytest.mark.parametrize("name", ["num_users", "embedding_dim", "hidden_units"])
def test_no_model_is_built_for_sizes_that_are_not_stored(name, whole, tmp_path):
    kind, settings, arrays = read_file(whole("KerasRecommender")[0])
    config = settings["config"]
    config["config"][name] = [4, 2**28] if name == "hidden_units" else 2**28
    write_file(tmp_path / "a", kind, settings, arrays)
    with pytest.raises(ValueError, match="expected those of the weights"):
        load_model(tmp_path / "a")


def test_a_full_disk_leaves_the_search_log_as_it_was(tmp_path, monkeypatch):
    path, write = tmp_path / "trials", Path.write_bytes

    def full(self, content):
        ours = self.name.startswith(".trials") and next(calls) == begun
        write(self, content[: len(content) // 2] if ours else content)
        if ours:
            raise OSError(28, "No space left on device", str(path))

    for begun in (0, 1):  # the first trial, the second
        calls = itertools.count()
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            write_log(path)
        monkeypatch.undo()
        assert [file.name for file in tmp_path.iterdir()] == (["trials"] if begun else [])
    write_log(path)


@pytest.mark.slow
def test_50_killed_saves_leave_a_whole_file_and_no_other(tmp_path):
    command = [sys.executable, __file__, str(tmp_path)]
    left = int(subprocess.check_output(command, text=True).splitlines()[-1])
    assert left > 0  # some were killed in the middle
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


def kill_50(folder):
    """Fork 50 processes that save until they are killed; load what is there after each."""
    left, rng, tables = 0, random.Random(0), np.random.default_rng(0).normal(size=(2, 999, 99))
    models = [m.Factors(table, table) for table in tables]
    models[0].save(folder / "a")
    for _ in range(50):
        child = os.fork()
        if not child:
            for number in itertools.count():
                models[number % 2].save(folder / "ab"[number % 3 % 2])
        time.sleep(rng.uniform(0.005, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += len(list(folder.glob(".*")))
        for path in folder.glob("[!.]*"):
            loaded = load_model(path)
            assert any((loaded.item_vectors == model.item_vectors).all() for model in models)
    models[0].save(folder / "b")
    print(left)


if __name__ == "__main__":
    kill_50(Path(sys.argv[1]))
