"""One runtime family of benchmarks/retrieval.py, in a process of its own.

Told what to do in lines of JSON on standard input; answers in lines of JSON. Between two lines it
sleeps, so that its threads do not disturb the family whose turn it is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Search = Callable[[Vectors, int], Any]  # (1, d) and k to k ids
_graph_limit = 0  # items; as the order to build says


def family_numpy(items: Vectors) -> Iterator[tuple[str, Search]]:
    from recsys_lib.serving import TopKIndex

    words = items.reshape(-1).view(np.int64)
    yield "read the float32 table", lambda user, k: np.bitwise_or.reduce(words)

    def partition(user: Vectors, k: int) -> Any:
        scores = items @ user[0]
        best = np.argpartition(scores, len(scores) - k)[-k:]
        return best[np.argsort(-scores[best])]

    yield "NumPy, argpartition", partition
    yield "NumPy, argsort", lambda user, k: np.argsort(-(items @ user[0]))[:k]
    index = TopKIndex(items)
    yield "TopKIndex float32 (exact)", lambda user, k: index.search(user, k).item_ids[0]


def family_recsys_lib(items: Vectors) -> Iterator[tuple[str, Search]]:
    import numba  # noqa: F401 (without it TopKIndex would search float32)

    from recsys_lib.serving import TopKIndex

    index = TopKIndex(items, "int8")
    yield "TopKIndex int8 (exact)", lambda user, k: index.search(user, k).item_ids[0]


def _turned(find: Search, holder: Any, knob: str, value: int) -> Search:
    """A search with the knob of an index turned to a value; one index serves several values."""

    def search(user: Vectors, k: int) -> Any:
        setattr(holder, knob, value)
        return find(user, k)

    return search


def family_faiss(items: Vectors) -> Iterator[tuple[str, Search]]:
    import faiss

    lists = max(1, min(int(len(items) ** 0.5), len(items) // 39))
    bits = min(8, max(4, int(np.log2(max(len(items) // 39, 16)))))
    kinds: dict[str, tuple[str, str, tuple[int, ...]]] = {
        "Flat": ("Flat", "", ()),
        "SQ8": ("SQ8", "", ()),
        "IVF": (f"IVF{lists},Flat", "nprobe", (4, 16, 64, 256, 512)),
        "PQ": (f"IVF{lists},PQ16x{bits}np", "nprobe", (16, 64)),
        "HNSW": ("HNSW32", "efSearch", (16, 64, 256, 1024)),
    }
    if len(items) > _graph_limit:
        del kinds["HNSW"]
    for name, (description, knob, values) in kinds.items():
        faiss.omp_set_num_threads(os.cpu_count() or 1)  # for building
        index = faiss.index_factory(items.shape[1], description, faiss.METRIC_INNER_PRODUCT)
        if name == "HNSW":
            index.hnsw.efConstruction = 200  # faiss takes 40, and is slower at the same recall
        index.train(items)
        index.add(items)
        faiss.omp_set_num_threads(1)
        holder = index.hnsw if name == "HNSW" else index

        def find(user: Vectors, k: int, index: Any = index) -> Any:
            return index.search(user, k)[1][0]

        if not knob:
            yield f"faiss {name}", find
        for value in values:
            if knob == "efSearch" or value < lists:
                yield f"faiss {name}, {knob} {value}", _turned(find, holder, knob, value)


def family_hnswlib(items: Vectors) -> Iterator[tuple[str, Search]]:
    import hnswlib

    if len(items) > _graph_limit:
        return
    index = hnswlib.Index(space="ip", dim=items.shape[1])
    index.init_index(len(items), M=32, ef_construction=200, random_seed=0)
    index.add_items(items, num_threads=os.cpu_count() or 1)
    index.set_num_threads(1)

    def find(user: Vectors, k: int) -> Any:
        index.set_ef(max(64, k))
        return index.knn_query(user, k)[0][0].astype(np.int64)

    yield "hnswlib, ef 64", find


def family_scann(items: Vectors) -> Iterator[tuple[str, Search]]:
    # Its part for TensorFlow, built for one version only, is left out where TensorFlow is absent.
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    from scann import scann_ops_pybind

    brute = scann_ops_pybind.builder(items, 10, "dot_product").set_n_training_threads(1)
    brute = brute.score_brute_force(quantize=True).build()
    yield "ScaNN brute, 8 bits", lambda user, k: brute.search(user[0], k)[0]
    leaves = int(len(items) ** 0.5)
    builder = scann_ops_pybind.builder(items, 10, "dot_product").set_n_training_threads(1)
    builder = builder.tree(leaves, min(16, leaves), training_sample_size=100_000)
    builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
    tree = builder.reorder(100).build()
    for probes, wide in ((16, 10), (64, 10), (64, 50), (256, 50)):

        def search(user: Vectors, k: int, probes: int = probes, wide: int = wide) -> Any:
            options = {"pre_reorder_num_neighbors": wide * k, "leaves_to_search": probes}
            return tree.search(user[0], k, **options)[0]

        if probes < leaves:
            yield f"ScaNN tree, {probes} leaves, {wide} k reordered", search


def family_onnxruntime(items: Vectors) -> Iterator[tuple[str, Search]]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    scales = np.abs(items).max(axis=1) / 127
    codes = np.rint(items / np.maximum(scales, 1e-30)[:, None]).astype(np.int8)
    graph = helper.make_graph(
        [
            helper.make_node(
                "DynamicQuantizeMatMul", ["user", "codes", "scales"], ["scores"],
                domain="com.microsoft",
            ),
            helper.make_node("TopK", ["scores", "k"], ["best", "ids"]),
        ],
        "search",
        [
            helper.make_tensor_value_info("user", TensorProto.FLOAT, [1, items.shape[1]]),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("ids", TensorProto.INT64, None)],
        [
            numpy_helper.from_array(np.ascontiguousarray(codes.T), "codes"),
            numpy_helper.from_array(scales.astype(np.float32), "scales"),
        ],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def search(user: Vectors, k: int) -> Any:
        return session.run(["ids"], {"user": user, "k": np.array([k])})[0][0]

    yield "ONNX Runtime int8", search


def family_litert(items: Vectors) -> Iterator[tuple[str, Search]]:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    signature = [tf.TensorSpec([1, items.shape[1]], tf.float32)]
    function = tf.function(
        lambda user: tf.matmul(user, tf.constant(items), transpose_b=True),
        input_signature=signature,
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], tf.Module()
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]

    def search(user: Vectors, k: int) -> Any:
        interpreter.set_tensor(source, user)
        interpreter.invoke()
        scores = interpreter.get_tensor(target)[0]
        best = np.argpartition(scores, len(scores) - k)[-k:]
        return best[np.argsort(-scores[best])]

    yield "LiteRT int8", search


def family_tensorflow(items: Vectors) -> Iterator[tuple[str, Search]]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    table = tf.constant(items)

    @tf.function(reduce_retracing=True)
    def best(user: Any, k: Any) -> Any:
        return tf.math.top_k(tf.linalg.matvec(table, user), k).indices

    yield "TensorFlow, matvec + top_k", lambda user, k: best(user[0], tf.constant(k)).numpy()


FAMILIES = {
    name.removeprefix("family_"): function
    for name, function in list(globals().items())
    if name.startswith("family_")
}


def build(name: str, path: str) -> tuple[dict[str, Search], dict[str, Any]]:
    """Build all methods of the family; give them, or what keeps them from running."""
    data = np.load(path)
    items, users = data["items"], data["users"]
    methods: dict[str, Search] = {}
    answer: dict[str, Any] = {"recall": {}, "build_s": {}}
    start = time.perf_counter()
    try:
        for method, search in FAMILIES[name](items):
            answer["build_s"][method] = time.perf_counter() - start
            methods[method] = search
            if np.ndim(search(users[:1], 1)):
                answer["recall"][method] = recalls(search, users, data)
            start = time.perf_counter()
    except Exception as error:  # whatever a library that is absent or does not fit raises
        answer["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:150]}"
    return methods, answer


def recalls(search: Search, users: Vectors, data: Any) -> dict[str, float]:
    """Give recall against the exact answer for each k."""
    result = {}
    for key in data.files:
        if key.startswith("top"):
            true = data[key]
            hits = [
                len(np.intersect1d(search(users[u : u + 1], true.shape[1]), true[u]))
                for u in range(len(users))
            ]
            result[key.removeprefix("top")] = float(np.sum(hits) / true.size)
    return result


def main() -> None:
    global _graph_limit
    name = sys.argv[1]
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    methods: dict[str, Search] = {}
    users = np.empty((0, 0), np.float32)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "build":
            _graph_limit = order["graph_limit"]
            methods.clear()
            methods, answer = build(name, order["path"])
            users = np.load(order["path"])["users"]
        else:
            answer = {method: timed(search, users, order) for method, search in methods.items()}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


def timed(search: Search, users: Vectors, order: dict[str, Any]) -> list[float]:
    """Give microseconds of each call, after one that is not timed; another user each call."""
    times = []
    for call in range(-1, order["calls"]):
        user = users[(order["first"] + call) % len(users)][None]
        start = time.perf_counter_ns()
        search(user, order["k"])
        times.append((time.perf_counter_ns() - start) / 1e3)
    return times[1:]


if __name__ == "__main__":
    main()
