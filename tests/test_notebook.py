"""What the chapters share."""

import os
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from recsys_lib import notebook
from recsys_lib.data import Interactions, load_split

mpl.use("agg")
import matplotlib.pyplot as plt


def test_claim_fails_on_real_data_alone(capsys):
    real, synthetic = (Interactions([0], [0], name="a", is_synthetic=s) for s in (False, True))
    with pytest.raises(AssertionError, match="a: EASE wins"):
        notebook.claim(False, "EASE wins", real)
    notebook.claim(False, "EASE wins", synthetic)
    assert capsys.readouterr().out == "Not checked on synthetic data: EASE wins\n"
    notebook.claim(np.float64(2) > 1, "two is more than one", real)
    with pytest.raises(TypeError, match="condition is"):
        notebook.claim(np.array([True]), "an array", real)


def test_takeaway_is_one_block_quote(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    notebook.takeaway("EASE finds\n   **72%** of the films.")
    assert [block.data for block in shown] == ["> **Takeaway.** EASE finds **72%** of the films."]


def test_glue_stores_what_that_of_the_book_builder_stores(monkeypatch):
    theirs = pytest.importorskip("myst_nb.ext.glue")
    shown = []

    def display(data, raw, metadata):
        shown.append((data, raw, metadata))

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(theirs, "ipy_display", display)
    for text in ("0.7", "it's 1,000 µs"):
        notebook.glue("key", text)
        theirs.glue("key", text, display=False)
    assert len(shown) == 4 and shown[::2] == shown[1::2]
    with pytest.raises(TypeError, match="text is"):
        notebook.glue("key", np.float64(0.7))


def test_no_two_techniques_look_alike_and_all_stand_out_from_white():
    looks = [(s["color"], s["marker"]) for s in map(notebook.style, notebook.COLORS)]
    assert len(set(looks)) == len(looks) - 1  # popularity is a baseline, and looks like one
    with pytest.raises(KeyError, match="technique is 'magic'"):
        notebook.style("magic")
    for color in set(notebook.COLORS.values()):
        parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        assert 1.05 / (np.dot([0.2126, 0.7152, 0.0722], linear) + 0.05) >= 3, color


def test_setup_fixes_seeds_and_line_labels_do_not_overlap():
    draws = []
    with mpl.rc_context():
        for _ in range(2):
            notebook.setup(seed=3, keras=False)
            draws.append(np.random.random())  # noqa: NPY002
        figure, ax = plt.subplots()
        for name, end in (("one", 9.0), ("two", 8.99), ("three", 1.0)):
            ax.plot([1, 2], [1, end], label=name)
        ax.axhline(5)  # has no label
        notebook.label_lines(ax)
        heights = {text.get_text(): text.xy[1] for text in ax.texts}
        plt.close(figure)
    assert set(heights) == {"one", "two", "three"} and heights["three"] < 0.1
    assert heights["one"] - heights["two"] == pytest.approx(0.07)
    assert draws[0] == draws[1]


@pytest.mark.slow
def test_setup_holds_back_the_messages_of_tensorflow():
    code = (
        "from recsys_lib.notebook import setup; setup(); import keras, sys; "
        "keras.ops.matmul(keras.ops.ones((2, 2)), keras.ops.ones((2, 2))); "
        "print('after', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "after\n"


def test_quiet_drops_what_goes_past_python_and_lets_errors_through(capfd):
    free = os.dup(2)  # the next descriptor; it stays free if none is left open
    os.close(free)
    with notebook.quiet():
        os.write(2, b"dropped")
        print("kept", flush=True)
        with notebook.quiet():
            os.write(2, b"dropped")
        os.write(2, b"dropped")
    with pytest.raises(ValueError, match="seen"), notebook.quiet():
        os.write(2, b"dropped")
        raise ValueError("seen")
    with pytest.warns(UserWarning, match="seen"), notebook.quiet():
        warnings.warn("seen", stacklevel=1)
    os.write(2, b"after")
    assert capfd.readouterr() == ("kept\n", "after")
    assert os.dup(2) == free
    os.close(free)


def test_make_recognises_the_notice_of_the_fallback(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_MIRROR", "http://127.0.0.1:9")
    with pytest.warns(UserWarning) as caught:
        split = load_split("ncf-ml-1m", data_home=tmp_path, fallback="synthetic", progress=False)
    text = f"UserWarning: {caught[0].message}"
    outputs = [{"output_type": "stream", "name": "stderr", "text": text}]
    assert split.is_synthetic and notebook.ran_on_synthetic_data(outputs)


def test_segments_are_drawn_in_percent_with_their_intervals():
    columns = ["side", "counts", "users", "before", "after", "change", "low", "high"]
    rows = [
        [side, name, 10, 0.2, 0.1, -0.5, -0.6, -0.3]
        for side in ("items", "users")
        for name in ("up to 3", "4 to 9", "10 and more")
    ]
    notebook.plot_segments(pd.DataFrame(rows, columns=columns))
    panels = plt.gcf().axes
    assert [ax.get_xlabel().split(",")[0] for ax in panels] == ["items", "users"]
    for ax in panels:
        assert [x.get_text() for x in ax.get_xticklabels()] == ["up to 3", "4–9", "10+"]
        drawn = ax.containers[0]
        assert drawn.lines[0].get_ydata().tolist() == [-50.0] * 3
        ends = np.array([segment[:, 1] for segment in drawn.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, [[-60, -30]] * 3)
    plt.close("all")


def test_stored_runs_are_those_of_the_repository_and_part_of_the_package():
    root = Path(notebook.__file__).resolve().parent.parent
    if not (root / "benchmarks").exists():
        pytest.skip("the package is installed without the repository")
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    brought = settings["tool"]["setuptools"]["package-data"]["recsys_lib"]
    packed = {path.name for glob in brought for path in (root / "recsys_lib").glob(glob)}
    for path in (root / "benchmarks" / "results").glob("[!.]*.*"):
        assert notebook.stored_results(path.name).read_bytes() == path.read_bytes()
        assert path.name in packed, "package-data in pyproject.toml leaves it out"
    with pytest.raises(FileNotFoundError, match="name"):
        notebook.stored_results("none.csv")
