"""What the chapters share: setup, figure style, computed sentences, glue to the pages."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.checks import check_type
from recsys_lib.serving.machine import hardware_line as hardware_line  # chapters print it

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# One technique = one colour and one marker through the whole book. Okabe-Ito colours with a
# contrast of at least 3:1 on white; whatever the rest is compared with is grey and dashed.
_BLUE, _VERMILLION, _GREEN, _PURPLE, _GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#595959"
_LOOKS: Mapping[str, tuple[str, str]] = {
    "baseline": (_GREY, "x"),
    "popularity": (_GREY, "x"),
    "factorization": (_BLUE, "o"),
    "item_based": (_VERMILLION, "s"),
    "neural": (_GREEN, "^"),
    "two_tower": (_PURPLE, "D"),
    "pruning": (_VERMILLION, "v"),
    "quantization": (_BLUE, "P"),
    "distillation": (_GREEN, "*"),
    "embedding_tables": (_PURPLE, "h"),
}
COLORS: Mapping[str, str] = {technique: color for technique, (color, _) in _LOOKS.items()}
_SYNTHETIC_NOTICE = "synthetic data"


def setup(seed: int = 0, *, keras: bool = True) -> None:
    """Prepare a chapter: quiet TensorFlow, fixed seeds, the figure style of the book.

    Args:
        seed: for Python, NumPy and, with ``keras``, for Keras and TensorFlow.
        keras: import Keras and TensorFlow now, with their start-up messages held back. A chapter
            that needs neither passes False and starts several seconds sooner.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (a reader's own cells may use the old generator)
    _use_figure_style()
    if keras:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import keras as keras_library
            import tensorflow

            tensorflow.constant(0.0)  # the device messages come with the first tensor
        tensorflow.get_logger().setLevel("ERROR")  # a book compiles many small functions
        keras_library.utils.set_random_seed(seed)


def style(technique: str) -> dict[str, str]:
    """Colour, marker and line style of one technique, to be passed on to ``Axes.plot``.

    Example:
        >>> style("factorization")
        {'color': '#0072B2', 'marker': 'o', 'linestyle': '-'}
        >>> style("baseline")["linestyle"]
        '--'
    """
    if technique not in COLORS:
        raise KeyError(f"technique is {technique!r}, expected one of {', '.join(COLORS)}")
    color, marker = _LOOKS[technique]
    return {"color": color, "marker": marker, "linestyle": "--" if color == _GREY else "-"}


def label_lines(ax: Axes, *, min_gap: float = 0.07) -> None:
    """Write each line's label at its right end, in its colour: better than a legend up to four.

    Args:
        ax: axes whose lines were plotted with ``label=``. Set its scales and limits before.
        min_gap: smallest vertical distance between two labels, as a fraction of the axes' height.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ax.get_ylim()  # settles the scale, which matplotlib otherwise does when it draws
    ends = [np.asarray(line.get_xydata())[-1] for line in lines]
    heights = [ax.transAxes.inverted().transform(ax.transData.transform(end))[1] for end in ends]
    placed = -np.inf
    for position in np.argsort(heights):
        placed = max(heights[position], placed + min_gap)
        line = lines[position]
        ax.annotate(
            str(line.get_label()),
            xy=(1.0, placed),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            color=line.get_color(),
            va="center",
        )


def draw_steps(boxes: Sequence[str], arrows: Sequence[str]) -> None:
    """Draw what goes in, what happens and what comes out: boxes in a row, joined by arrows.

    Args:
        boxes: text of each box.
        arrows: what happens between one box and the next, written below the arrow.
    """
    import matplotlib.pyplot as plt

    _, ax = plt.subplots(figsize=(6.0, 1.3))
    ax.set(xlim=(-0.5, len(boxes) - 0.5), ylim=(-1, 1))
    ax.axis("off")
    look = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": _BLUE}
    drawn = [
        ax.text(place, 0.25, text, ha="center", va="center", fontsize=8, bbox=look)
        for place, text in enumerate(boxes)
    ]
    for place, text in enumerate(arrows):
        ax.annotate(
            "",
            xy=(0, 0.5),
            xycoords=drawn[place + 1],
            xytext=(1, 0.5),
            textcoords=drawn[place],
            arrowprops={"arrowstyle": "->", "color": _GREY, "shrinkA": 5, "shrinkB": 5},
        )
        ax.text(place + 0.5, -0.35, text, ha="center", va="top", fontsize=7, color=_GREY)


def plot_segments(frame: pd.DataFrame, *, within: float = 0.01) -> None:
    """Draw the change in each third of items and users, with its interval, in two panels.

    Args:
        frame: of :func:`recsys_lib.evaluation.segments`.
        within: half the height of the band that stands for "as good as before".
    """
    import matplotlib.pyplot as plt

    _, panels = plt.subplots(1, 2, figsize=(6.0, 2.6), sharey=True)
    for ax, (side, rows) in zip(panels, frame.groupby("side", sort=True), strict=True):
        heights = 100 * rows["change"].to_numpy()
        ends = [heights - 100 * rows["low"], 100 * rows["high"] - heights]
        ax.axhspan(-100 * within, 100 * within, color="#E6E6E6", zorder=0)
        ax.axhline(0, color=_GREY, linestyle="--", linewidth=1)
        ax.errorbar(range(len(rows)), heights, ends, fmt="o", color=_BLUE, capsize=4)
        names = (
            rows["counts"]
            .str.replace(r"(\d) to ", r"\1–", regex=True)
            .str.replace(" and more", "+")
        )
        ax.set_xticks(range(len(rows)), names)
        ax.set_xlabel(f"{side}, by interactions in training")
        ax.set_xlim(-0.5, len(rows) - 0.5)
    panels[0].set_ylabel("change of NDCG [%]")


def takeaway(text: str) -> None:
    """Show the chapter's main sentence, computed from its results, in a block of its own.

    Args:
        text: one or two sentences of Markdown; format numbers from variables.
    """
    from IPython.display import Markdown, display

    check_type("text", text, (str,))
    display(Markdown("> **Takeaway.** " + " ".join(text.split())))


def claim(condition: bool, text: str, data: Any) -> None:
    """Hold a chapter to what it says: fail when the real data no longer show it.

    Args:
        condition: what was measured, as one truth value.
        text: the claim in words.
        data: the ``Interactions`` or ``Split`` that it was measured on. On synthetic data
            nothing is checked, because the claim is about people's behaviour, and this is said.

    Raises:
        AssertionError: the claim does not hold on real data.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> data = Interactions(user_ids=[0, 0, 1], item_ids=[0, 1, 1], name="toy")
        >>> claim(len(data) == 3, "three rows", data)
        Checked: three rows
    """
    check_type("condition", condition, (bool, np.bool_))
    if data.is_synthetic:
        print(f"Not checked on synthetic data: {text}")
    elif condition:
        print(f"Checked: {text}")
    else:
        raise AssertionError(f"no longer true on {data.name}: {text}")


def glue(name: str, text: str) -> None:
    """Store a formatted text for the book's pages, in the notebook and out of sight.

    Args:
        name: key, unique in the book, such as ``"evaluation-ease-ndcg"``.
        text: what a page will show. Format numbers first, so that no page decides on digits.
    """
    from IPython.display import display

    check_type("text", text, (str,), ", formatted")
    # As `glue` of myst_nb does, which takes two seconds to import.
    hidden = "application/papermill.record/"
    about = {"scrapbook": {"name": name, "mime_prefix": hidden}}
    display({f"{hidden}text/plain": repr(text)}, metadata=about, raw=True)


def stored_results(name: str) -> Path:
    """Return the path of a stored run of a benchmark, for what takes too long to run in a chapter.

    Args:
        name: of a file in ``benchmarks/results``; an installed package brings them along.

    Raises:
        FileNotFoundError: there is no such file; the message lists those that there are.

    Example:
        >>> stored_results("front.csv").name
        'front.csv'
    """
    here = Path(__file__).resolve().parent
    folders = [here / "results", here.parent / "benchmarks" / "results"]  # the first is a link
    files = {path.name: path for folder in folders for path in folder.glob("[!.]*.*")}
    if name not in files:
        raise FileNotFoundError(f"name is {name!r}: expected one of {', '.join(sorted(files))}")
    return files[name]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what C++ code writes to standard error (file descriptor 2), such as exporters' notices.

    Exceptions come through, and so do Python's warnings in a notebook, where they take another way.
    The descriptor belongs to the process: other threads are quiet meanwhile, too.

    Example:
        >>> with quiet():
        ...     _ = os.write(2, b"a notice that nobody can switch off")
    """
    sys.stderr.flush()
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)


def ran_on_synthetic_data(outputs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the outputs of a notebook's cells hold the notice of a synthetic fallback.

    Example:
        >>> ran_on_synthetic_data([{"name": "stderr", "text": "SYNTHETIC data takes its place"}])
        True
        >>> ran_on_synthetic_data([{"name": "stdout", "text": "0.7192"}])
        False
    """
    return any(
        output.get("name") == "stderr"
        and _SYNTHETIC_NOTICE in "".join(output.get("text", "")).lower()
        for output in outputs
    )


def _use_figure_style() -> None:
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.0, 3.6),
            "figure.dpi": 150,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=[_BLUE, _VERMILLION, _GREEN, _PURPLE]),
            "axes.grid": True,
            "grid.color": "#E6E6E6",
            "grid.linewidth": 0.6,
            "axes.axisbelow": True,
            "legend.frameon": False,
            "lines.markersize": 5,
        }
    )
