"""One ranker and one pair of tables, compressed by us and by peers: quality, bytes, latency.

    python benchmarks/compression.py [--folder FOLDER] [--rounds 10] [--threads 1]

A NeuMF and an iALS (d = 192) are trained on ncf-ml-1m. Each family of techniques makes its models
in a process of its own and writes them to a folder; then each family of runtimes, in a process of
its own because thread pools disturb each other, measures NDCG@10 and takes turns at scoring 1,000
candidates of one user. With --folder a run that was stopped goes on from what it has written.
The last run is stored in benchmarks/results/compression.txt.
Techniques that train get EPOCHS more epochs, and so does a model that is not compressed. Peers that
are not installed are left out. Tables are not timed here: see benchmarks/retrieval.py.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine_line

EPOCHS, RATE, NUM_CANDIDATES, USER = 2, 0.002, 1000, 7
BASELINE = "LiteRT float32"
LAST = "score/kernel"  # few weights that every score passes: never pruned (chapter 6)
Run = Callable[[np.ndarray, np.ndarray], Any]
Row = tuple[str, int, Any, Run]  # name, stored bytes, what has score(users, items), what to time


def load_split() -> Any:
    from recsys_lib.data import load_split

    return load_split("ncf-ml-1m")


def base(folder: Path) -> Any:
    from recsys_lib.training import KerasRecommender

    return KerasRecommender.load(folder / "base.npz")


def pairs() -> tuple[np.ndarray, np.ndarray]:
    items = np.random.default_rng(0).choice(3706, NUM_CANDIDATES, replace=False)
    return np.full(NUM_CANDIDATES, USER, np.int32), items.astype(np.int32)


# --- what is made once, each family in its own process -------------------------------------------


def train(folder: Path) -> None:
    import keras

    from recsys_lib.models import IALS, RatingModelConfig
    from recsys_lib.training import KerasRecommender

    split = load_split()
    counts = split.train.num_users, split.train.num_items
    config = RatingModelConfig("neumf", *counts, 16, hidden_units=(64, 32, 16), init_std=0.05)
    options = {"batch_size": 8192, "progress": False}
    model = KerasRecommender(config, epochs=6, optimizer=keras.optimizers.Adam(0.005), **options)
    tables = IALS(embedding_dim=192, l2=0.007, unobserved_weight=0.3)
    tables.fit(split.train).save(folder / "tables.npz")
    model.fit(split.train).save(folder / "base.npz")


def make_ours(folder: Path) -> None:
    import keras

    from recsys_lib.compression import named_weights
    from recsys_lib.compression.pruning import PolynomialSchedule, WeightPruning, fit_pruned
    from recsys_lib.compression.quantization import (
        CodebookQuantization,
        UniformQuantization,
        quantize,
    )

    model, train_data = base(folder), load_split().train
    options = {"epochs": EPOCHS, "optimizer": keras.optimizers.Adam(RATE), "progress": False}
    weights = [name for name, values in named_weights(model).items() if values.ndim > 1]
    updates = EPOCHS * -(-len(train_data) // model.options["batch_size"])
    made = {
        "ours, trained on": lambda: fit_pruned(model, train_data, WeightPruning(0.0), **options),
        "ours, pruned 80 %": lambda: fit_pruned(
            model,
            train_data,
            WeightPruning(0.8, names=tuple(name for name in weights if name != LAST)),
            schedule=PolynomialSchedule(updates // 2),
            frequency=updates // 20,
            **options,
        ),
        "ours, 8-bit rows": lambda: quantize(model, UniformQuantization(8)),
        "ours, 4-bit rows": lambda: quantize(model, UniformQuantization(4, scale_search="mse")),
        "ours, codebook 16": lambda: quantize(model, CodebookQuantization(4)),
    }
    for name, make in made.items():
        if not (folder / f"{name}.json").exists():
            compressed = make()
            save(folder, name, compressed.model.keras_model, compressed.nbytes)


def make_qat(folder: Path) -> None:
    import keras

    from recsys_lib.compression.quantization import IntegerQuantization, convert, quantization_aware
    from recsys_lib.training import fit

    model, train_data = base(folder), load_split().train
    for bits in (8, 4):
        if (folder / f"ours, QAT {bits} bits.json").exists():
            continue
        aware = quantization_aware(model, IntegerQuantization(bits), train_data)
        rate = keras.optimizers.Adam(RATE)
        fit(aware, train_data, epochs=EPOCHS, optimizer=rate, progress=False)
        integer = convert(aware)
        save(folder, f"ours, QAT {bits} bits", integer.model, integer.nbytes)


def make_tfmot(folder: Path) -> None:
    import tensorflow as tf

    from recsys_lib.compression import named_weights, tfmot
    from recsys_lib.serving.export import append_facts

    model, train_data = base(folder), load_split().train
    training = tfmot.TwinTraining(epochs=EPOCHS, learning_rate=RATE)
    matrices = [n for n, w in named_weights(model).items() if w.ndim > 1 and n != LAST]
    layers = [name.split("/")[0] for name in matrices]
    made = {
        "TFMOT, pruned 80 %": lambda: tfmot.prune_with_tfmot(
            model, train_data, tfmot.TfmotPruning(0.8, layers=layers, training=training)
        )
    }
    for name, make in made.items():
        if not (folder / f"{name}.json").exists():
            compressed = make()
            save(folder, name, compressed.model.keras_model, compressed.nbytes)
    config = tfmot.TfmotQuantization(8, training=training)
    twin = tfmot.quantization_aware_twin(model, train_data, config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about itself
        converter = tf.lite.TFLiteConverter.from_keras_model(twin)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        content = converter.convert()
    path = folder / "TFMOT, QAT int8.tflite"
    path.write_bytes(append_facts(content, model.keras_model))


def export(folder: Path) -> None:
    from recsys_lib.serving import export_litert, export_onnx

    model, train_data = base(folder).keras_model, load_split().train
    for quantization in (None, "float16", "dynamic", "int8", "int16x8"):
        name = f"LiteRT {quantization or 'float32'}"
        export_litert(model, folder / f"{name}.tflite", quantization, train_data)
    for name, other in made_models(folder).items():
        if name.startswith("TFMOT"):
            export_litert(other, folder / f"{name}.tflite")
    if importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime"):
        export_onnx(model, folder / "ONNX Runtime float32.onnx")
        from onnxruntime import quantization as ort

        source, target = (
            str(folder / f"ONNX Runtime {name}.onnx") for name in ("float32", "dynamic int8")
        )
        ort.quantize_dynamic(source, target, weight_type=ort.QuantType.QInt8)
    if importlib.util.find_spec("ai_edge_quantizer"):
        from ai_edge_quantizer import quantizer, recipe

        edge = quantizer.Quantizer(str(folder / f"{BASELINE}.tflite"), recipe.dynamic_wi8_afp32())
        edge.quantize().export_model(str(folder / "ai-edge-quantizer dynamic.tflite"))


def save(folder: Path, name: str, keras_model: Any, nbytes: int) -> None:
    np.savez(folder / f"{name}.npz", *keras_model.get_weights())
    (folder / f"{name}.json").write_text(json.dumps({"bytes": nbytes}))


def made_models(folder: Path) -> dict[str, Any]:
    """Give the Keras models that ``save`` wrote, by name."""
    import keras

    original, models = base(folder).keras_model, {}
    for path in sorted(folder.glob("*.json")):
        with np.load(path.with_suffix(".npz")) as file:
            models[path.stem] = keras.models.clone_model(original)
            models[path.stem].set_weights([file[name] for name in file.files])
    return models


def tables(folder: Path) -> None:
    """Measure what becomes of two tables of vectors: name, bytes, NDCG@10."""
    from recsys_lib.compression import named_weights, store_weights, with_weights
    from recsys_lib.compression.quantization import (
        CodebookQuantization,
        EntropyCoding,
        ProductQuantization,
        UniformQuantization,
        quantize,
    )
    from recsys_lib.evaluation import evaluate_leave_one_out
    from recsys_lib.models import IALS

    model, split = IALS.load(folder / "tables.npz"), load_split()
    weights, path = named_weights(model), folder / "tables.txt"

    def uniform(bits: int) -> Callable[[np.ndarray], Any]:
        return lambda table: quantize(table, UniformQuantization(bits, scale_search="mse"))

    def entropy(inner: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
        return lambda table: EntropyCoding().encode(inner(table))

    def product(pieces: int) -> Callable[[np.ndarray], Any]:
        return lambda table: quantize(table, ProductQuantization(pieces))

    ours = {f"ours, {bits}-bit rows": uniform(bits) for bits in (8, 4, 3, 2)}
    ours |= {
        f"{n} + entropy": entropy(uniform(bits))
        for n, bits in zip(list(ours), (8, 4, 3, 2), strict=True)
    }
    ours["ours, codebook 16"] = lambda t: quantize(t, CodebookQuantization(4))
    ours |= {f"ours, product {pieces} x 8": product(pieces) for pieces in (48, 24)}

    def float32() -> tuple[int, Any]:
        return sum(table.nbytes for table in weights.values()), model

    def stored(make: Callable[[np.ndarray], Any]) -> tuple[int, Any]:
        tensors = {name: make(table) for name, table in weights.items()}
        compressed = store_weights("tables", None, model, tensors)
        return compressed.nbytes, compressed.model

    def by_faiss(kind: str) -> tuple[int, Any]:
        import faiss

        nbytes, decoded = 0, {}
        for name, table in weights.items():
            codec = faiss.index_factory(table.shape[1], kind)
            codec.train(table)
            codes = codec.sa_encode(table)
            decoded[name] = codec.sa_decode(codes)
            nbytes += len(faiss.serialize_index(codec)) + codes.nbytes
        return nbytes, with_weights(model, decoded)

    makers: dict[str, Callable[[], tuple[int, Any]]] = {"float32": float32}
    makers |= {name: functools.partial(stored, make) for name, make in ours.items()}
    if importlib.util.find_spec("faiss"):
        kinds = ("SQ8", "SQ6", "SQ4", "PQ48x8", "PQ24x8")
        makers |= {f"faiss {kind}": functools.partial(by_faiss, kind) for kind in kinds}
    found = json.loads(path.read_text()) if path.exists() else []
    for name, make in makers.items():
        if name not in [row[0] for row in found]:
            nbytes, other = make()
            found.append((name, nbytes, evaluate_leave_one_out(other, split, k=10).ndcg))
            path.write_text(json.dumps(found))


MAKERS: dict[str, Callable[[Path], None]] = {
    "train": train, "ours": make_ours, "qat": make_qat, "tfmot": make_tfmot, "export": export,
    "tables": tables,
}  # fmt: skip


# --- what is measured, each family in its own process ---------------------------------------------


def keras_rows(folder: Path, threads: int) -> Iterator[Row]:
    import keras
    import tensorflow as tf

    from recsys_lib.training import KerasScorer

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    original = base(folder).keras_model
    for mode in ("float32", "int8", "int4"):
        model = keras.models.clone_model(original)
        model.set_weights(original.get_weights())
        if mode != "float32":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a line for each layer without weights
                model.quantize(mode)
        nbytes = sum(variable.numpy().nbytes for variable in model.variables)
        yield f"Keras 3 {mode}", nbytes, KerasScorer(model), compiled(model)


def compiled(model: Any) -> Run:
    import tensorflow as tf

    function = tf.function(
        lambda u, i: model([u, i], training=False),
        autograph=False,
        input_signature=[tf.TensorSpec([None], tf.int32)] * 2,
    )
    return lambda u, i: function(tf.constant(u), tf.constant(i)).numpy()


def file_rows(suffix: str) -> Callable[[Path, int], Iterator[Row]]:
    def rows(folder: Path, threads: int) -> Iterator[Row]:
        from recsys_lib.serving import load_scorer

        for path in sorted(folder.glob(f"*.{suffix}")):
            scorer = load_scorer(path, threads)
            stored = path.with_suffix(".json")
            nbytes = path.stat().st_size
            if stored.exists():  # the file is float32: a smaller form of its weights is stored
                nbytes = json.loads(stored.read_text())["bytes"]
            yield path.stem, nbytes, scorer, scorer._run

    return rows


def our_rows(folder: Path, threads: int) -> Iterator[Row]:
    from recsys_lib.serving import CandidateScorer

    original = base(folder).keras_model
    nbytes = 4 * sum(w.size for w in original.get_weights())
    for precision in ("float32", "int8"):
        scorer = CandidateScorer(original, precision=precision)
        size = nbytes if precision == "float32" else scorer.nbytes
        yield f"ours {precision}", size, scorer, lambda u, i, s=scorer: s.score_candidates(USER, i)
    for name, model in made_models(folder).items():
        if name.startswith("ours"):
            scorer = CandidateScorer(model)
            size = json.loads((folder / f"{name}.json").read_text())["bytes"]
            yield name, size, scorer, lambda u, i, s=scorer: s.score_candidates(USER, i)


ROWS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "keras": keras_rows, "litert": file_rows("tflite"), "onnx": file_rows("onnx"), "ours": our_rows,
}  # fmt: skip


def work(family: str, folder: Path, threads: int, connection: Any) -> None:
    """Measure quality, then time the rows whenever the parent asks."""
    from recsys_lib.evaluation import evaluate_leave_one_out

    rows, split, ids = list(ROWS[family](folder, threads)), load_split(), pairs()
    cache = folder / f"quality.{family}.txt"
    known = json.loads(cache.read_text()) if cache.exists() else {}
    for name, _, scorer, run in rows:
        if name not in known:
            known[name] = evaluate_leave_one_out(scorer, split, k=10).ndcg
            cache.write_text(json.dumps(known))
        for _ in range(5):
            run(*ids)
    connection.send({name: (nbytes, known[name]) for name, nbytes, *_ in rows})
    while (calls := connection.recv()) is not None:
        times = {}
        for name, _, _, run in rows:
            run(*ids)
            taken = []
            for _ in range(calls):
                start = time.perf_counter_ns()
                run(*ids)
                taken.append((time.perf_counter_ns() - start) / 1000)
            times[name] = taken
        connection.send(times)


def make(name: str, folder: Path) -> None:
    mark = folder / f"{name}.done"
    if mark.exists():
        return
    process = multiprocessing.get_context("spawn").Process(target=MAKERS[name], args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} failed; what was written before stays in the folder")
    mark.touch()


def measure(folder: Path, threads: int, rounds: int, calls: int) -> None:
    context = multiprocessing.get_context("spawn")
    facts, running = {}, {}
    for family in ROWS:
        mine, theirs = context.Pipe()
        process = context.Process(target=work, args=(family, folder, threads, theirs), daemon=True)
        process.start()
        facts |= mine.recv()
        running[family] = mine
    turns: list[dict[str, list[float]]] = []
    for turn in range(rounds):
        names, taken = list(running), {}
        for family in names[turn % len(names) :] + names[: turn % len(names)]:
            running[family].send(calls)
            taken |= running[family].recv()
        turns.append(taken)
    for connection in running.values():
        connection.send(None)
    print_table(facts, turns)


def print_table(facts: dict[str, Any], turns: list[dict[str, list[float]]]) -> None:
    size, quality = facts[BASELINE]
    print(f"\nNeuMF, {NUM_CANDIDATES:,} candidates of one user (times in us)")
    print(f"{'':28}{'NDCG@10':>9}{'change':>9}{'bytes':>11}{'smaller':>9}{'p50':>8}{'p99':>8}"
          f"{'x faster':>10}{'p10-p90':>13}")  # fmt: skip
    median = {name: np.array([np.median(turn[name]) for turn in turns]) for name in facts}
    for name, (nbytes, ndcg) in facts.items():
        every = np.concatenate([turn[name] for turn in turns])
        low, middle, high = np.percentile(median[BASELINE] / median[name], [10, 50, 90])
        print(f"{name:28}{ndcg:9.4f}{ndcg / quality - 1:9.2%}{nbytes:11,}{size / nbytes:9.2f}"
              f"{np.median(every):8,.0f}{np.percentile(every, 99):8,.0f}{middle:10.2f}"
              f"{f'{low:.2f}-{high:.2f}':>13}")  # fmt: skip
    print(f"smaller, x faster, change: against {BASELINE}")


def print_tables(folder: Path) -> None:
    rows = json.loads((folder / "tables.txt").read_text())
    _, size, quality = rows[0]
    print("\niALS d = 192: both tables (all bytes that are stored, with codebooks and headers)")
    print(f"{'':28}{'NDCG@10':>9}{'change':>9}{'bytes':>11}{'smaller':>9}")
    for name, nbytes, ndcg in rows:
        print(f"{name:28}{ndcg:9.4f}{ndcg / quality - 1:9.2%}{nbytes:11,}{size / nbytes:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep what is made here, and go on from it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=20, help="timed calls a round")
    options = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", "-1"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in MAKERS:
            if name != "tfmot" or importlib.util.find_spec("tensorflow_model_optimization"):
                make(name, folder)
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[name] = str(options.threads)  # the processes that are timed inherit it
        print(f"ncf-ml-1m, {date.today()}; python benchmarks/compression.py")
        print(f"{machine_line()}; {options.threads} thread(s)")
        measure(folder, options.threads, options.rounds, options.calls)
        print_tables(folder)


if __name__ == "__main__":
    main()
