"""A search for test_a_killed_search_goes_on_where_it_was, which ends it with SIGKILL."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("helpers", Path(__file__).parent / "test_search.py")
assert spec is not None and spec.loader is not None
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)

if __name__ == "__main__":
    helpers.search(
        checkpoint=sys.argv[1], on_trial=lambda trial: print(trial.file_bytes, flush=True)
    )
