"""How far data travel: through few files, so that a newcomer can follow them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recsys_lib
from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import IALS, Popularity
from recsys_lib.serving import TopKIndex

PACKAGE = Path(recsys_lib.__file__).parent


def files_of(trip: Callable[[], Any]) -> list[str]:
    """Return the files of the library in which a function ran; not counting imports."""
    seen: set[str] = set()

    def watch(frame: Any, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)) and frame.f_code.co_name != "<module>":
            seen.add(str(Path(name).relative_to(PACKAGE)))

    sys.setprofile(watch)
    try:
        trip()
    finally:
        sys.setprofile(None)
    return sorted(seen)


def test_an_item_vector_from_fit_to_a_served_answer() -> None:
    data = make_synthetic(SyntheticConfig("video", num_users=120, num_items=100))

    def trip() -> None:
        model = IALS(embedding_dim=8, epochs=2).fit(data)
        index = TopKIndex(model.item_vectors, "int8")
        found = index.search(model.fold_in([[1, 2, 3]]), k=5, exclude=[[1, 2, 3]])
        assert found.item_ids.shape == (1, 5)

    files = files_of(trip)
    assert len(files) <= 10, files


def test_a_rating_from_its_file_to_the_metrics(real_data: Callable[[str], Any]) -> None:
    real_data("ml-100k")  # skips where the files are not to be had

    def trip() -> None:
        from recsys_lib.data import load_dataset

        train, test = load_dataset("ml-100k").split_leave_one_out()
        evaluate_full_ranking(Popularity().fit(train), train, test, k=10)

    files = files_of(trip)
    assert len(files) <= 12, files
