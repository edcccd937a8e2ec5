"""Indexes of other libraries behind the same ``search`` as :class:`TopKIndex`.

All are optional (``pip install recsys-lib[peers]``) and imported when asked for. Most of them are
approximate: compare their answers with an exact one before believing their speed, on vectors of a
real model (vectors without structure make approximate search look worse, clustered ones better).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_k, check_number
from recsys_lib.serving.retrieval import SearchResult
from recsys_lib.serving.vector_checks import check_exclude, check_queries, check_vectors

Vectors = NDArray[np.float32]
# (b, d) users and k to (b, k) ids, -1 where none, and scores
Find = Callable[[Vectors, int], tuple[NDArray[Any], NDArray[Any]]]


class PeerIndex:
    """Another library's index of item vectors, searched like a :class:`TopKIndex`.

    Seen items are left out by asking for more and dropping them, which is what these libraries
    offer; an approximate index may then return fewer than there are.

    Args:
        name: of :data:`PEERS`.
        item_vectors: (num_items, embedding_dim) finite numbers, at least one item.
        num_threads: that a search may use.
        options: of the kind of index, such as ``num_probes``; see :data:`PEERS`.

    Raises:
        KeyError: unknown name.
        ImportError: the library is not installed, or does not fit the rest of the environment.
        TypeError: item_vectors are not real numbers, or an unknown option.
        ValueError: item_vectors are empty, not finite, or not two-dimensional.
    """

    def __init__(
        self, name: str, item_vectors: ArrayLike, *, num_threads: int = 1, **options: Any
    ) -> None:
        if name not in PEERS:
            raise KeyError(f"name is {name!r}: expected one of {sorted(PEERS)}")
        check_number("num_threads", num_threads, 1, integer=True)
        vectors = check_vectors("item_vectors", item_vectors)
        if len(vectors) == 0:
            raise ValueError("item_vectors is empty: expected at least one item")
        module, build = PEERS[name]
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"{name} needs {module}, which is not installed: pip install recsys-lib[peers]"
            )
        self.name = name
        self.num_items, self.embedding_dim = vectors.shape
        self._find = build(vectors, num_threads, **options)

    def __repr__(self) -> str:
        return f"PeerIndex({self.name}, {self.num_items:,} items, d = {self.embedding_dim})"

    def search(
        self, user_vectors: ArrayLike, k: int = 10, *, exclude: Sequence[ArrayLike] | None = None
    ) -> SearchResult:
        """Give the k items that the index finds for each user; as :meth:`TopKIndex.search`.

        Scores are what the index says: of quantized vectors, if that is what it keeps. Equal
        scores are in its own order. ``rescored`` is 0.
        """
        check_k(k)
        queries = check_queries(user_vectors, self.embedding_dim)
        excluded, starts = check_exclude(exclude, len(queries), self.num_items)
        item_ids = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        most = int(np.diff(starts).max(initial=0))
        if len(queries):
            found, values = self._find(queries, min(k + most, self.num_items))
            for user in range(len(queries)):
                keep = found[user] >= 0
                if most:
                    keep &= ~np.isin(found[user], excluded[starts[user] : starts[user + 1]])
                best = np.flatnonzero(keep)[:k]
                item_ids[user, : len(best)] = found[user][best]
                scores[user, : len(best)] = values[user][best]
        return SearchResult(item_ids, scores, np.zeros(len(queries), np.int64))


def _faiss(vectors: Vectors, num_threads: int, factory: str, **parameters: int) -> Find:
    """Build an index by faiss' own description of it, such as "IVF1024,Flat"."""
    import faiss

    faiss.omp_set_num_threads(num_threads)
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    for parameter, value in parameters.items():
        faiss.ParameterSpace().set_index_parameter(index, parameter, value)

    def find(queries: Vectors, k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        scores, ids = index.search(queries, k)
        return ids, scores

    return find


def _faiss_flat(vectors: Vectors, num_threads: int) -> Find:
    return _faiss(vectors, num_threads, "Flat")


def _faiss_sq8(vectors: Vectors, num_threads: int) -> Find:
    return _faiss(vectors, num_threads, "SQ8")


def _num_lists(vectors: Vectors) -> int:
    """Give sqrt(n), as far as there are vectors to train on."""
    return max(1, min(int(len(vectors) ** 0.5), len(vectors) // 39))


def _faiss_ivf(vectors: Vectors, num_threads: int, num_probes: int = 16) -> Find:
    return _faiss(vectors, num_threads, f"IVF{_num_lists(vectors)},Flat", nprobe=num_probes)


def _faiss_pq(
    vectors: Vectors, num_threads: int, num_probes: int = 16, code_bytes: int | None = None
) -> Find:
    dim = vectors.shape[1]
    wanted = dim // 4 if code_bytes is None else code_bytes
    parts = next(size for size in range(max(1, min(wanted, dim)), 0, -1) if dim % size == 0)
    bits = min(8, max(4, int(np.log2(max(len(vectors) // 39, 16)))))
    # "np" leaves out polysemous training, which takes long and which this search does not use.
    factory = f"IVF{_num_lists(vectors)},PQ{parts}x{bits}np"
    return _faiss(vectors, num_threads, factory, nprobe=num_probes)


def _faiss_hnsw(
    vectors: Vectors, num_threads: int, num_links: int = 16, search_width: int = 64
) -> Find:
    return _faiss(vectors, num_threads, f"HNSW{num_links}", efSearch=search_width)


def _hnswlib(
    vectors: Vectors,
    num_threads: int,
    num_links: int = 16,
    build_width: int = 100,
    search_width: int = 64,
    seed: int = 0,
) -> Find:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=num_links, ef_construction=build_width, random_seed=seed)
    index.set_num_threads(num_threads)
    index.add_items(vectors)

    def find(queries: Vectors, k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        index.set_ef(max(search_width, k))
        ids, distances = index.knn_query(queries, k)
        return ids.astype(np.int64), 1 - distances

    return find


def _scann_builder(vectors: Vectors, num_threads: int) -> Any:
    try:
        from scann.scann_ops.py import scann_ops_pybind as scann
    except Exception as error:  # built for one TensorFlow, it fails beside another
        raise ImportError(f"scann is installed but cannot be imported: {error}") from error
    builder = scann.builder(vectors, 10, "dot_product")
    return builder.set_n_training_threads(num_threads)


def _scann(builder: Any) -> Find:
    searcher = builder.build()

    def find(queries: Vectors, k: int) -> tuple[NDArray[Any], NDArray[Any]]:
        ids, scores = searcher.search_batched(queries, final_num_neighbors=k)
        missing = ~np.isfinite(scores)
        return np.where(missing, -1, ids.astype(np.int64)), scores

    return find


def _scann_brute(vectors: Vectors, num_threads: int, quantize: bool = True) -> Find:
    builder = _scann_builder(vectors, num_threads)
    return _scann(builder.score_brute_force(quantize=quantize))


def _scann_tree(
    vectors: Vectors, num_threads: int, num_probes: int = 16, num_reordered: int = 100
) -> Find:
    leaves = max(1, int(len(vectors) ** 0.5))
    builder = _scann_builder(vectors, num_threads)
    builder = builder.tree(leaves, min(num_probes, leaves), training_sample_size=100_000)
    builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2)
    return _scann(builder.reorder(num_reordered))


# Name: the module it needs, and what builds it. Options, with their defaults, are the arguments.
PEERS: dict[str, tuple[str, Callable[..., Find]]] = {
    "faiss_flat": ("faiss", _faiss_flat),
    "faiss_sq8": ("faiss", _faiss_sq8),
    "faiss_ivf": ("faiss", _faiss_ivf),
    "faiss_pq": ("faiss", _faiss_pq),
    "faiss_hnsw": ("faiss", _faiss_hnsw),
    "hnswlib": ("hnswlib", _hnswlib),
    "scann_brute": ("scann", _scann_brute),
    "scann_tree": ("scann", _scann_tree),
}
