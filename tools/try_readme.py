"""Run the Python examples of a page in order, with the library that is installed.

Usage: try_readme.py [README.md] [a folder to run them in]

A release is tried with it in a clean environment. The examples may use `frame`, a table of sales
with columns "customer" and "sku", and the file "sales.csv" with the same rows.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any


def examples(page: Path) -> list[str]:
    """Return the blocks of Python on a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def run(page: Path, folder: Path) -> int:
    """Run them in a folder, in one namespace; return how many there were."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(0)
    taste = rng.integers(0, 2, 200)  # customers buy from one half of the shop
    baskets = [(c, item) for c in range(200) for item in set(rng.integers(30, size=12))]
    rows = [(f"c{c}", f"s{2 * item + taste[c]}") for c, item in baskets]
    frame = pd.DataFrame(rows, columns=["customer", "sku"])
    frame.to_csv(folder / "sales.csv", index=False)
    namespace: dict[str, Any] = {"__name__": "__main__", "frame": frame}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for number, source in enumerate(examples(page), start=1):
            exec(compile(source, f"{page.name}, example {number}", "exec"), namespace)
    finally:
        os.chdir(before)
    return number


def main() -> None:
    """Run the examples of a page."""
    root = Path(__file__).resolve().parent.parent
    page = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else root / "README.md"
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    number = run(page, folder)
    import recsys_lib

    print(
        f"{number} examples of {page.name} ran with {recsys_lib.__version__}, {recsys_lib.__file__}"
    )


if __name__ == "__main__":
    main()
