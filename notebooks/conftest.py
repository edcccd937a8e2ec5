"""How nbval runs the chapters: a time line for each, and no comparison on synthetic data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_lib.notebook import ran_on_synthetic_data

_SECONDS = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SECONDS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every cell of a notebook know the outputs of the cells before it."""
    cells_of: dict[Path, list[Any]] = {}
    for item in items:
        if hasattr(item, "compare_outputs"):  # a cell of nbval
            cells = cells_of.setdefault(item.path, [])
            cells.append(item)
            item.compare_outputs = _unless_synthetic(item.compare_outputs, cells)


def _unless_synthetic(compare: Callable[..., bool], cells: list[Any]) -> Callable[..., bool]:
    def compare_or_pass(*arguments: Any, **options: Any) -> bool:
        # The stored outputs are of the real data: other data give other numbers.
        return _synthetic(cells) or compare(*arguments, **options)

    return compare_or_pass


def _synthetic(cells: list[Any]) -> bool:
    return any(ran_on_synthetic_data(cell.test_outputs or []) for cell in cells)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any, nextitem: pytest.Item | None) -> Any:
    """After the last cell of a notebook, say how long it took and on what it ran."""
    result = yield
    if hasattr(item, "compare_outputs") and (nextitem is None or nextitem.path != item.path):
        cells = [cell for cell in item.session.items if cell.path == item.path]
        seconds = item.config.stash[_SECONDS].get(item.nodeid.split("::")[0], 0.0)
        data = "  on SYNTHETIC data: outputs not compared" if _synthetic(cells) else ""
        reporter = item.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line(f"  {item.path.stem}: {len(cells)} cells, {seconds:.0f} s{data}")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Add up the seconds of each notebook."""
    report = yield
    seconds = item.config.stash[_SECONDS]
    notebook = item.nodeid.split("::")[0]
    seconds[notebook] = seconds.get(notebook, 0.0) + call.duration
    return report
