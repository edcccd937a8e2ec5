"""How far data travel: through few files, so that a newcomer can follow them."""

import sys
from pathlib import Path

import pytest

import recsys_lib
from recsys_lib.data import load_dataset
from recsys_lib.data.synthetic import SyntheticConfig, make_synthetic
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import IALS, Popularity
from recsys_lib.serving import TopKIndex, scan  # noqa: F401 (compiled: it has no frames)

PACKAGE = Path(recsys_lib.__file__).parent


@pytest.fixture
def files():
    """Return the files of the library in which a function ran; not counting imports."""
    seen = set()

    def watch(frame, event, argument):
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)) and frame.f_code.co_name != "<module>":
            seen.add(str(Path(name).relative_to(PACKAGE)))

    yield seen, lambda: sys.setprofile(watch)
    sys.setprofile(None)


def test_an_item_vector_from_fit_to_a_served_answer(files):
    data, (seen, start) = make_synthetic(SyntheticConfig("video", 320, 100)), files
    start()
    model = IALS(embedding_dim=8, epochs=2).fit(data)
    index = TopKIndex(model.item_vectors, "int8")
    found = index.search(model.fold_in([[1, 2, 3]]), k=5, exclude=[[1, 2, 3]])
    assert found.item_ids.shape == (1, 5) and 0 < len(seen) <= 10, seen


def test_a_rating_from_its_file_to_the_metrics(files, real_data):
    real_data("ml-100k")  # skips where the files are not to be had
    seen, start = files
    start()
    train, test = load_dataset("ml-100k").split_leave_one_out()
    evaluate_full_ranking(Popularity().fit(train), train, test, k=10)
    assert 0 < len(seen) <= 12, seen
