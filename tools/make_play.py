"""Make what the live page serves: the model in three forms, titles, and what was measured on them.

Usage: make_play.py          (needs ml-latest-small; writes book/_static/play/*.js and LICENSE.txt)

Films with at least five ratings, one iALS model of items only. A page on disk may not fetch files,
so each file of `save_compressed` becomes a script that holds its bytes as base64.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from recsys_lib.compression import save_compressed, store_weights
from recsys_lib.compression.quantization import EntropyCoding, UniformQuantization, quantize
from recsys_lib.data import Interactions, load_dataset
from recsys_lib.data.files import data_home
from recsys_lib.evaluation import evaluate_full_ranking, paired_change
from recsys_lib.models import IALS, as_factors

ABOUT = """\
titles.js, four-bits.js, eight-bits.js and float32.js in this folder are transformations of the data
set ml-latest-small of GroupLens (README.txt there, 26 September 2018): films with at least five
ratings, their titles with the article in front, and vectors that a model learned from who rated
what. They may be passed on under the terms below alone; the licence of the rest of this book does
not cover them.

"""
FOLDER = Path(__file__).resolve().parent.parent / "book" / "_static" / "play"
FEWEST_RATINGS, DIM, HISTORIES = 5, 48, 1000
FORMS = {"float32": None, "8 bits": 8, "4 bits": 4}
FILES = {"float32": "float32.js", "8 bits": "eight-bits.js", "4 bits": "four-bits.js"}
NOTE = (
    "/* Made by tools/make_play.py from MovieLens ml-latest-small; "
    "the terms of GroupLens hold: LICENSE.txt beside this file. */\n"
)


def popular_films(data: Interactions) -> Interactions:
    """Return the rows of films with enough ratings; ids by popularity, most rated first."""
    counts = np.bincount(data.item_ids, minlength=data.num_items)
    order = np.argsort(-counts, kind="stable")[: int((counts >= FEWEST_RATINGS).sum())]
    new = np.full(data.num_items, -1)
    new[order] = np.arange(len(order))
    rows = new[data.item_ids] >= 0
    assert data.item_names is not None
    return Interactions(
        data.user_ids[rows],
        new[data.item_ids[rows]],
        num_users=data.num_users,
        num_items=len(order),
        item_names=tuple(_readable(data.item_names[item]) for item in order),
        name=data.name,
    )


def _readable(title: str) -> str:
    """Put the article where it is spoken: "Matrix, The (1999)" becomes "The Matrix (1999)"."""
    return re.sub(r"^([^()]+), (The|A|An|La|Le|Les|El|Das|Der|Die|Il)(?= \()", r"\2 \1", title)


def random_histories(data: Interactions, number: int, seed: int = 0) -> list[list[int]]:
    """Draw lists of 1 to 20 different films, each film as often as people rated it."""
    rng = np.random.default_rng(seed)
    share = np.bincount(data.item_ids, minlength=data.num_items) / len(data)
    sizes = rng.integers(1, 21, number)
    return [rng.choice(data.num_items, n, replace=False, p=share).tolist() for n in sizes]


def rounded(model: Any, bits: int | None) -> Any:
    """Return the model with tables of so many bits, or as it is."""
    factors = as_factors(model)
    if bits is None:
        return factors
    return quantize(factors, UniformQuantization(bits, scale_search="mse"))


def main() -> None:
    """Train, store, measure, write."""
    data = popular_films(load_dataset("ml-latest-small"))
    model = IALS(DIM).fit(data)
    train, test = data.split_random(test_fraction=0.2, seed=0)
    tested = IALS(DIM).fit(train)
    histories = random_histories(data, HISTORIES)
    FOLDER.mkdir(exist_ok=True)
    facts: dict[str, Any] = {"films": data.num_items, "dim": DIM, "histories": HISTORIES}
    lists, results = {}, {}
    for name, bits in FORMS.items():
        stored, on_train = rounded(model, bits), rounded(tested, bits)
        lists[name] = as_factors(getattr(stored, "model", stored)).recommend(histories=histories)
        folded = getattr(on_train, "model", on_train).with_folded_users(train)
        results[name] = evaluate_full_ranking(folded, train, test)
        change = paired_change(results[name], results["float32"])
        same = [len({*a} & {*b}) for a, b in zip(lists[name], lists["float32"], strict=True)]
        content = _file(stored)
        facts[name] = {
            "bytes": len(content),
            "coded": None if bits is None else len(_file(_coded(stored))),
            "same": round(float(np.mean(same)), 2),
            "ndcg": round(float(results[name].ndcg), 4),
            "change": [round(float(v), 4) for v in (change.value, change.low, change.high)],
        }
        text = base64.b64encode(content).decode()
        script = f'{NOTE}PLAY.files["{name}"] = "{text}";\n'
        (FOLDER / FILES[name]).write_text(script, encoding="utf-8")
        print(name, facts[name])
    names = json.dumps(data.item_names, ensure_ascii=False, separators=(",", ":"))
    script = f"{NOTE}PLAY.facts = {json.dumps(facts)};\nPLAY.titles = {names};\n"
    (FOLDER / "titles.js").write_text(script, encoding="utf-8")
    terms = (data_home() / data.name / "README.txt").read_text(encoding="utf-8")
    (FOLDER / "LICENSE.txt").write_text(_licence(terms), encoding="utf-8")


def _coded(stored: Any) -> Any:
    config = EntropyCoding()
    coded = {name: config.encode(tensor) for name, tensor in stored.tensors.items()}
    return store_weights("entropy coding", config, stored.model, coded)


def _file(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_compressed(f"{folder}/items", model, account="items")
        return Path(f"{folder}/items").read_bytes()


def _licence(readme: str) -> str:
    """Return the parts of the data set's README that have to go with what was made from it."""
    start, end = readme.index("Usage License"), readme.index("Further Information About GroupLens")
    return ABOUT + readme[start:end].replace("\r\n", "\n").strip() + "\n"


if __name__ == "__main__":
    main()
