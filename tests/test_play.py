"""The files of the live page hold what the page says of them; tools/make_play.py makes them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from recsys_lib.compression import load_compressed

PLAY = Path(__file__).resolve().parent.parent / "book" / "_static" / "play"
TITLES = (PLAY / "titles.js").read_text(encoding="utf-8")
FACTS = json.loads(re.search(r"PLAY.facts = (.*);", TITLES)[1])


@pytest.mark.parametrize("form", ["4 bits", "8 bits", "float32"])
def test_a_file_is_as_large_as_it_is_said_to_be(form, tmp_path):
    file = {"4 bits": "four-bits.js", "8 bits": "eight-bits.js", "float32": "float32.js"}[form]
    content = base64.b64decode(re.search(r'= "(.+)";', (PLAY / file).read_text("utf-8"))[1])
    (tmp_path / "model").write_bytes(content)
    model = load_compressed(tmp_path / "model")
    assert len(content) == FACTS[form]["bytes"]
    assert model.item_vectors.shape == (FACTS["films"], FACTS["dim"])
    assert model.how_to_fold_in is not None


def test_what_is_served_is_small_and_free_to_pass_on():
    assert FACTS["4 bits"]["coded"] < FACTS["4 bits"]["bytes"] < 200_000
    first_load = [p for p in PLAY.iterdir() if p.name not in ("float32.js", "eight-bits.js")]
    assert sum(path.stat().st_size for path in first_load) < 300_000
    titles = json.loads(re.search(r"PLAY.titles = (.*);", TITLES)[1])
    assert len(titles) == len(set(titles)) == FACTS["films"]
    assert "may redistribute the data set" in (PLAY / "LICENSE.txt").read_text(encoding="utf-8")
