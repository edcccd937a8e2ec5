"""Run notebooks top to bottom in fresh kernels; store their outputs, seconds and memory.

Usage: run_notebooks.py [--allow-synthetic] [--check] [part of a file name ...]

With --check nothing runs: it fails if stored outputs are not those of one whole run on real data,
so that such pages are not published.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from recsys_lib.notebook import ran_on_synthetic_data

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
NOT_CHECKED = "Not checked on synthetic data"  # recsys_lib.notebook.claim says so


def clean(notebook: NotebookNode, seconds: float, most_bytes: int) -> None:
    """Remove what changes from run to run although the results do not; note what the run took."""
    notebook.metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "run": {"seconds": round(seconds), "cores": os.cpu_count(), "bytes": most_bytes},
    }
    for cell in notebook.cells:
        for key in ("execution", "collapsed", "scrolled", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = joined_streams(cell.outputs)


def joined_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join pieces of one stream: where the kernel cuts it is chance."""
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def watch_memory(kernel: psutil.Process, most: list[int], ended: threading.Event) -> None:
    """Keep the largest number of bytes that a process and its children held at once."""
    while not ended.wait(0.5):
        total = 0
        with suppress(psutil.NoSuchProcess):
            for process in (kernel, *kernel.children(recursive=True)):
                memory = process.memory_info()
                total += memory.rss - getattr(memory, "shared", 0) * (process != kernel)
        most[0] = max(most[0], total)


def say_what_it_took(notebook: NotebookNode, seconds: float, most_bytes: int) -> None:
    """Write time and memory into the list "At a glance"."""
    took = f"{max(10, round(seconds, -1)):.0f} seconds on {os.cpu_count()} cores"
    text = f"- Time: {took}, {most_bytes / 1e9:.1f} GB of memory"
    first = notebook.cells[0]
    first.source = re.sub(r"^- Time: [^;(\n]*[^;(\n ]", text, first.source, count=1, flags=re.M)


def problem_of_stored(path: Path) -> str | None:
    """Return why the stored outputs of a notebook should not be published, if so."""
    cells = nbformat.read(path, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    outputs = [output for cell in code for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        return "its outputs are not those of one run from top to bottom"
    if any(output.output_type == "error" for output in outputs):
        return "it stopped with an error"
    if ran_on_synthetic_data(outputs) or NOT_CHECKED in printed:
        return "it ran on synthetic data"
    return None


def run(path: Path, allow_synthetic: bool) -> str | None:
    """Run one notebook in place; return what went wrong, and then leave the file alone."""
    from translations import follow_numbers

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    most, ended, started = [0], threading.Event(), time.monotonic()
    try:
        with client.setup_kernel():
            manager: Any = client.km
            kernel = psutil.Process(manager.provisioner.pid)
            watch = threading.Thread(target=watch_memory, args=(kernel, most, ended), daemon=True)
            watch.start()
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            ended.set()
            watch.join()
    except CellExecutionError as error:
        return str(error)
    finally:
        ended.set()
    took = time.monotonic() - started
    before = notebook.cells[0].source.splitlines()
    say_what_it_took(notebook, took, most[0])
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    if ran_on_synthetic_data(outputs) and not allow_synthetic:
        return "ran on synthetic data: not stored (make notebooks ALLOW_SYNTHETIC=1 stores it)"
    clean(notebook, took, most[0])
    unfinished = path.with_suffix(".tmp")
    nbformat.write(notebook, unfinished)
    unfinished.replace(path)
    after = notebook.cells[0].source.splitlines()
    lines = ([line.removeprefix("- ") for line in text] for text in (before, after))
    follow_numbers(f"notebooks/{path.stem}", zip(*lines, strict=True))
    return None


def main() -> int:
    """Run the chosen notebooks; the exit status is the number that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--allow-synthetic", action="store_true")
    parser.add_argument("--check", action="store_true", help="only look at the stored outputs")
    parser.add_argument("names", nargs="*", help="parts of file names; none: all notebooks")
    options = parser.parse_args()
    # The kernel must be the one of this environment, whatever else is installed for the user.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    paths = [
        path
        for path in sorted(FOLDER.glob("*.ipynb"))
        if not options.names or any(name in path.stem for name in options.names)
    ]
    if not paths:
        print(f"no notebook matches {' '.join(options.names)}", file=sys.stderr)
        return 1
    if options.check:
        found = {path.name: problem_of_stored(path) for path in paths}
        faults = [f"{name}: {problem}" for name, problem in found.items() if problem]
        print("\n".join(faults) or f"{len(paths)} notebooks with outputs of one run on real data")
        return len(faults)
    failed = 0
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.name} ...", end=" ", flush=True)
        started = time.perf_counter()
        problem = run(path, options.allow_synthetic)
        failed += problem is not None
        print(f"{time.perf_counter() - started:.0f} s", problem or "", flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
