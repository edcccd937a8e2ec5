"""Peers answer like a TopKIndex; exact ones with the same items, approximate ones with most."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_lib.serving import PEERS, PeerIndex, TopKIndex

LEAST_RECALL = {"faiss_flat": 1.0, "faiss_sq8": 0.9, "scann_brute": 0.9, "faiss_pq": 0.2}


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    items = centres[rng.integers(0, 40, 5000)] + 0.4 * rng.normal(size=(5000, 16))
    users = centres[:8] + 0.4 * rng.normal(size=(8, 16))
    return items.astype(np.float32), users.astype(np.float32)


@pytest.mark.parametrize("name", PEERS)
def test_peers_find_what_is_there(name, table):
    items, users = table
    try:
        index = PeerIndex(name, items)
    except ImportError as error:
        pytest.skip(str(error)[:100])
    exact = TopKIndex(items)
    found, true = index.search(users, 10).item_ids, exact.search(users, 10).item_ids
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, true, strict=True)]
    assert np.sum(hits) / true.size >= LEAST_RECALL.get(name, 0.6)
    exclude = [row[:5].tolist() for row in found]
    rest = index.search(users, 10, exclude=exclude)
    assert not any(np.isin(a, b).any() for a, b in zip(rest.item_ids, exclude, strict=True))
    assert (rest.item_ids[:, :5] >= 0).all()
    assert (np.diff(rest.scores[:, :5]) <= 1e-5).all()  # best first
    assert index.search(users[0], 3).item_ids.shape == (1, 3)
    assert repr(index) == f"PeerIndex({name}, 5,000 items, d = 16)"


def test_wrong_arguments(monkeypatch):
    with pytest.raises(KeyError, match="expected one of"):
        PeerIndex("annoy", np.eye(3))
    with pytest.raises(ValueError, match="item_vectors is empty"):
        PeerIndex("faiss_flat", np.empty((0, 3)))
    with pytest.raises(ValueError, match="holds nan"):
        PeerIndex("faiss_flat", [[np.nan]])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs hnswlib"):
        PeerIndex("hnswlib", np.eye(3))
