"""How nbval runs the chapters: a time line for each, and no comparison on synthetic data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recsys_lib.notebook import ran_on_synthetic_data

_SECONDS = pytest.StashKey[dict[Path, float]]()


class _TimeLines:
    """Print the line of each notebook; it may come from another process."""

    def __init__(self, config: pytest.Config) -> None:
        self.plugins = config.pluginmanager

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for line in [
            text
            for name, text in report.user_properties
            if name == "notebook"
        ]:
            self.plugins.get_plugin("terminalreporter").write_line(
                str(line)
            )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SECONDS] = {}
    if not hasattr(config, "workerinput"):  # no worker of pytest-xdist
        config.pluginmanager.register(_TimeLines(config))


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Let every cell of a notebook know the outputs of the cells before it."""
    cells_of: dict[Path, list[Any]] = {}
    for item in items:
        if hasattr(item, "compare_outputs"):  # a cell of nbval
            cells = cells_of.setdefault(item.path, [])
            cells.append(item)
            item.compare_outputs = _unless_synthetic(
                item.compare_outputs, cells
            )


def _unless_synthetic(
    compare: Callable[..., bool], cells: list[Any]
) -> Callable[..., bool]:
    def compare_or_pass(*arguments: Any, **options: Any) -> bool:
        # The stored outputs are of the real data: other data give other numbers.
        return _synthetic(cells) or compare(*arguments, **options)

    return compare_or_pass


def _synthetic(cells: list[Any]) -> bool:
    return any(
        ran_on_synthetic_data(cell.test_outputs or []) for cell in cells
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: Any, call: pytest.CallInfo[None]
) -> Any:
    """Add up the seconds of a notebook; after its last cell, note on what it ran."""
    report = yield
    seconds = item.config.stash[_SECONDS]
    seconds[item.path] = seconds.get(item.path, 0.0) + call.duration
    if hasattr(item, "compare_outputs") and report.when == "teardown":
        cells = [
            cell for cell in item.session.items if cell.path == item.path
        ]
        if cells[-1] is item:
            data = (
                "  on SYNTHETIC data: outputs not compared"
                if _synthetic(cells)
                else ""
            )
            line = f"  {item.path.stem}: {len(cells)} cells, {seconds[item.path]:.0f} s{data}"
            report.user_properties.append(("notebook", line))
    return report
