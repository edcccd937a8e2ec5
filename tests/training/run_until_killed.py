"""A training run for test_killed_process_resumes_exactly, which ends it with SIGKILL."""

import importlib.util
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("helpers", Path(__file__).parent / "test_fit.py")
assert spec is not None and spec.loader is not None
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)

if __name__ == "__main__":
    more = {"epochs": 12, "optimizer": "adam", "checkpoint": sys.argv[1]}
    show = {"on_epoch_end": lambda epoch, logs: print(f"epoch {epoch}", flush=True)}
    helpers.train(helpers.toy_model(), helpers.toy_data(60_000), **more, **show)
