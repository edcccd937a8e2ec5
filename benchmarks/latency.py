"""One user, n candidates, one model: how long the score takes, in every runtime that is there.

    python benchmarks/latency.py [--threads 1] [--rounds 10] [--model mlp_ranker]

Each family of runtimes has a process of its own, because their thread pools disturb each other.
The processes take turns: in each round every row is timed a few times for every n, and ratios are
formed within the round. Peers are called with arrays of the right type and no checks; "ours" is
called as a user would, checks and all. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

NUM_USERS, NUM_ITEMS, USER = 6040, 3706, 7
SIZES = (1, 100, 1000)
MODELS: dict[str, dict[str, Any]] = {
    "mlp_ranker": {"embedding_dim": 64, "hidden_units": (256, 128, 64)},
    "two_tower": {"embedding_dim": 64, "hidden_units": (128, 64)},
}
FAMILIES = {"keras": "keras", "litert": "ai_edge_litert", "onnxruntime": "onnxruntime",
            "openvino": "openvino", "numpy": "numpy", "ours": "numpy"}  # fmt: skip
Run = Callable[[np.ndarray, np.ndarray], Any]


def build(kind: str) -> Any:
    from recsys_lib.models import RatingModelConfig, build_rating_model

    model = build_rating_model(RatingModelConfig(kind, NUM_USERS, NUM_ITEMS, **MODELS[kind]))
    random = np.random.default_rng(0)  # biases that are not zero, scores of a usual size
    moved = [w + random.normal(size=w.shape).astype("float32") * 0.1 for w in model.get_weights()]
    model.set_weights(moved)
    return model


def pairs(size: int) -> tuple[np.ndarray, np.ndarray]:
    items = np.random.default_rng(size).choice(NUM_ITEMS, size, replace=False)
    return np.full(size, USER, np.int32), items.astype(np.int32)


def export_all(kind: str, folder: str) -> None:
    """Write what the other processes read."""
    from recsys_lib.serving import export_litert, export_onnx, export_saved_model

    model, random = build(kind), np.random.default_rng(1)
    calibration = random.integers(0, NUM_USERS, 500), random.integers(0, NUM_ITEMS, 500)
    for quantization in (None, "dynamic", "int8", "int16x8"):
        export_litert(model, f"{folder}/{kind}.{quantization}.tflite", quantization, calibration)
    export_saved_model(model, f"{folder}/{kind}.saved_model")
    np.savez(f"{folder}/{kind}.npz", *model.get_weights())
    if importlib.util.find_spec("tf2onnx") is None:
        return
    export_onnx(model, f"{folder}/{kind}.onnx")
    if importlib.util.find_spec("onnxruntime") is None:
        return
    from onnxruntime import quantization as ort
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ids = {
        name: values.astype(np.int32)
        for name, values in zip(("user_ids", "item_ids"), calibration, strict=True)
    }

    class Reader(ort.CalibrationDataReader):
        batches = iter([ids])

        def get_next(self) -> Any:
            return next(self.batches, None)

    source, prepared = f"{folder}/{kind}.onnx", f"{folder}/{kind}.prepared.onnx"
    quant_pre_process(source, prepared, skip_symbolic_shape=True)  # fuses layers: much faster
    signed, unsigned = ort.QuantType.QInt8, ort.QuantType.QUInt8
    ort.quantize_dynamic(source, f"{folder}/{kind}.dynamic.onnx", weight_type=signed)
    ort.quantize_static(
        prepared, f"{folder}/{kind}.int8.onnx", Reader(), per_channel=True,
        activation_type=unsigned, weight_type=signed,
    )  # fmt: skip


def keras_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = build(kind)
    yield "Keras predict", lambda u, i: model.predict([u, i], verbose=0, batch_size=len(u))
    yield "Keras call", lambda u, i: model([u, i], training=False).numpy()
    signature = [tf.TensorSpec([None], tf.int32)] * 2
    plain = tf.function(
        lambda u, i: model([u, i], training=False), autograph=False, input_signature=signature
    )
    yield "tf.function", lambda u, i: plain(tf.constant(u), tf.constant(i)).numpy()
    compiled = tf.function(
        lambda u, i: model([u, i], training=False), autograph=False, jit_compile=True
    )
    yield "XLA", lambda u, i: compiled(tf.constant(u), tf.constant(i)).numpy()
    served = tf.saved_model.load(f"{folder}/{kind}.saved_model").signatures["serving_default"]
    names = sorted(served.structured_input_signature[1], key=lambda name: "user" not in name)
    yield (
        "SavedModel",
        lambda u, i: next(
            iter(served(**dict(zip(names, map(tf.constant, (u, i)), strict=True))).values())
        ).numpy(),
    )


def litert_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    from recsys_lib.serving import load_scorer

    for quantization in (None, "dynamic", "int8", "int16x8"):
        scorer = load_scorer(f"{folder}/{kind}.{quantization}.tflite", threads)
        yield f"LiteRT {quantization or 'float32'}", scorer._run


def onnxruntime_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    import onnxruntime

    for name, part in (("float32", ""), ("dynamic int8", ".dynamic"), ("int8", ".int8")):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = onnxruntime.InferenceSession(
            f"{folder}/{kind}{part}.onnx", options, providers=["CPUExecutionProvider"]
        )
        yield (
            f"ONNX Runtime {name}",
            lambda u, i, session=session: session.run(None, {"user_ids": u, "item_ids": i})[0],
        )


def openvino_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    import openvino

    core = openvino.Core()
    for name, part, hint in (("float32", "", "f32"), ("bfloat16", "", "bf16"),
                             ("int8", ".int8", "f32")):  # fmt: skip
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": hint}  # fmt: skip
        try:
            compiled = core.compile_model(f"{folder}/{kind}{part}.onnx", "CPU", settings)
        except RuntimeError:  # this processor has no bfloat16
            continue
        request = compiled.create_infer_request()
        yield (
            f"OpenVINO {name}",
            lambda u, i, request=request: next(
                iter(request.infer({"user_ids": u, "item_ids": i}).values())
            ),
        )


def numpy_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    with np.load(f"{folder}/{kind}.npz") as file:
        users, items, *layers = (file[name] for name in file.files)
    stack = list(zip(layers[::2], layers[1::2], strict=True))

    def mlp(x: np.ndarray, stack: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        for kernel, bias in stack[:-1]:
            x = np.maximum(x @ kernel + bias, 0)
        return x @ stack[-1][0] + stack[-1][1]

    if kind == "mlp_ranker":
        yield "NumPy", lambda u, i: mlp(np.hstack([users[u], items[i]]), stack)[:, 0]
    else:  # layers of the two towers alternate
        yield (
            "NumPy",
            lambda u, i: np.einsum(
                "nd,nd->n", mlp(users[u], stack[::2]), mlp(items[i], stack[1::2])
            ),
        )


def our_rows(kind: str, folder: str, threads: int) -> Iterator[tuple[str, Run]]:
    from recsys_lib.serving import CandidateScorer

    model = build(kind)
    exact = CandidateScorer(model)
    yield "ours float32", lambda u, i: exact.score_candidates(USER, i)
    if kind == "mlp_ranker" and importlib.util.find_spec("numba"):
        whole = CandidateScorer(model, precision="int8")
        yield "ours int8", lambda u, i: whole.score_candidates(USER, i)


ROWS = {"keras": keras_rows, "litert": litert_rows, "onnxruntime": onnxruntime_rows,
        "openvino": openvino_rows, "numpy": numpy_rows, "ours": our_rows}  # fmt: skip


def work(family: str, folder: str, threads: int, connection: Any) -> None:
    """Build the rows of a family, then time them whenever the parent asks."""
    rows: dict[tuple[str, str], Run] = {}
    kind = connection.recv()
    if family == "export":
        export_all(kind, folder)
        connection.send(True)
        return
    rows = dict(ROWS[family](kind, folder, threads))
    scores = {}
    for name, run in rows.items():
        for size in SIZES:
            for _ in range(3):
                scores[name] = np.asarray(run(*pairs(size)))
    connection.send(scores)
    while (request := connection.recv()) is not None:
        size, calls = request
        ids, times = pairs(size), {}
        for name, run in rows.items():
            run(*ids)  # the process has slept, and the size may be new
            taken = []
            for _ in range(calls if name != "Keras predict" else max(2, calls // 10)):
                start = time.perf_counter_ns()
                run(*ids)
                taken.append((time.perf_counter_ns() - start) / 1000)
            times[name] = taken
        connection.send(times)


def start(family: str, kind: str, folder: str, threads: int) -> tuple[Any, Any, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(family, folder, threads, theirs), daemon=True)
    process.start()
    ours.send(kind)
    return process, ours, ours.recv()


def measure(kind: str, threads: int, rounds: int, calls: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        start("export", kind, folder, threads)[0].join()
        running, scores = {}, {}
        for family, package in FAMILIES.items():
            needs_onnx = family in ("onnxruntime", "openvino")
            if importlib.util.find_spec(package) is None or (
                needs_onnx and not Path(folder, f"{kind}.int8.onnx").exists()
            ):
                print(f"not installed, left out: {family}")
                continue
            process, connection, given = start(family, kind, folder, threads)
            running[family] = (process, connection)
            scores |= given
        times: dict[int, list[dict[str, list[float]]]] = {size: [] for size in SIZES}
        for turn in range(rounds):
            names = list(running)
            for size in SIZES:
                taken: dict[str, list[float]] = {}
                for family in names[turn % len(names) :] + names[: turn % len(names)]:
                    running[family][1].send((size, calls))
                    taken |= running[family][1].recv()
                times[size].append(taken)
        for process, connection in running.values():
            connection.send(None)
            process.join()
    expected = scores["Keras call"]
    for size in SIZES:
        print_table(kind, size, times[size], scores, expected)


def print_table(
    kind: str, size: int, rounds: list[dict[str, list[float]]], scores: Any, expected: Any
) -> None:
    medians = {name: np.array([np.median(turn[name]) for turn in rounds]) for name in scores}
    fastest = min((n for n in medians if "ours" not in n), key=lambda n: np.median(medians[n]))
    print(f"\n{kind}, {size:,} candidates (times in us; fastest peer: {fastest})")
    print(f"{'':26}{'p50':>10}{'p99':>10}{'predict / it':>14}{'p10-p90':>20}"
          f"{'it / fastest peer':>19}{'error / std':>13}")  # fmt: skip
    for name, own in medians.items():
        every = np.concatenate([turn[name] for turn in rounds])
        speedup = medians["Keras predict"] / own
        low, high = np.percentile(speedup, [10, 90])
        error = np.abs(scores[name] - expected).max() / expected.std()
        print(f"{name:26}{np.median(every):10,.0f}{np.percentile(every, 99):10,.0f}"
              f"{np.median(speedup):14,.1f}{f'{low:,.1f}-{high:,.1f}':>20}"
              f"{np.median(own / medians[fastest]):19.2f}{error:13.1e}")  # fmt: skip
    for precision in ("float32", "int8"):
        peers = {n: o for n, o in medians.items() if precision in n and "ours" not in n}
        ours = medians.get(f"ours {precision}")
        if peers and ours is not None:
            best = min(peers, key=lambda n: np.median(peers[n]))
            ratio = np.percentile(ours / peers[best], [10, 50, 90])
            print(f"-> {precision}: ours / {best} = {ratio[1]:.2f} ({ratio[0]:.2f}-{ratio[2]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=20, help="timed calls a round")
    parser.add_argument("--model", choices=MODELS, action="append")
    options = parser.parse_args()
    if options.rounds * max(2, options.calls // 10) < 20:
        parser.error("--rounds and --calls give fewer than 20 timed calls of Keras predict")
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # the processes inherit it
    os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", "-1"
    from recsys_lib.serving import hardware_line

    print(f"{hardware_line()}; {options.threads} thread(s) for every runtime")
    for kind in options.model or MODELS:
        measure(kind, options.threads, options.rounds, options.calls)


if __name__ == "__main__":
    main()
