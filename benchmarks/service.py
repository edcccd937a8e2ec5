"""The online service under load from another process: requests a second, and how long each takes.

The model is iALS of ncf-ml-1m, d = 64, in a 4-bit file. The load comes from autocannon (``npm
install autocannon``), over 16 connections that send the next request when the answer is there:
"requests_s" is what the application, the load generator and two cores give together, for known
users or for histories of 20 items (fold-in), ten items each. Every application runs in a process of
its own under the same uvicorn (Ray Serve: its own proxy), and they take turns, three times.

Then the service alone, at shares of what it reached: autocannon's constant rate. It sends the quota
of each second at once, connection by connection, as fast as answers come, and rests until the next
second; so 80 % means full load for four fifths of each second. It corrects latencies for
coordinated omission, in steps of a millisecond. Above 100 % the load comes from h2load (Debian's
nghttp2-client), which takes less of the two cores, over 256 connections, more than the queue holds:
what is refused (503) is counted under "shed", and the latencies are those of the accepted, as they
were (a rate that nobody can meet leaves nothing to correct).

Run: ``python benchmarks/service.py``, about 15 minutes; ``--rows "service" "FastAPI"`` for some
rows, ``--loads`` for the second part alone, ``--autocannon PATH``. Rows are replaced in
``benchmarks/results/service.csv``.

``--fuzz N`` sends N requests that schemathesis makes up from the schema to a service of its own and
says how much memory that took; ``--swap`` replaces the model's file, and kills one of two
processes, under load.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine_line

from recsys_lib.compression import load_compressed, save_compressed
from recsys_lib.compression.quantization import UniformQuantization, quantize
from recsys_lib.data import Interactions, load_split
from recsys_lib.models import IALS

RESULTS = Path(__file__).parent / "results" / "service.csv"
APPS = Path(__file__).parent / "parts" / "service_apps.py"
HISTORY, NUM_REQUESTS, CONNECTIONS, MANY = 20, 500, 16, 256
ROUNDS = 3
RAY = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
# Name of the row: application, and what is asked for.
ROWS = {
    "bare constant": ("bare constant", "users"),
    "service, constant": ("service, constant", "users"),
    "service": ("service", "users"),
    "service, fold-in": ("service", "histories"),
    "service, 2 processes": ("service, 2 processes", "users"),
    "service, window": ("service, window", "users"),
    "Starlette and msgspec": ("Starlette and msgspec", "users"),
    "Starlette and msgspec, constant": ("Starlette and msgspec, constant", "users"),
    "Litestar": ("Litestar", "users"),
    "Litestar, constant": ("Litestar, constant", "users"),
    "FastAPI": ("FastAPI", "users"),
    "FastAPI, constant": ("FastAPI, constant", "users"),
    "Ray Serve": ("Ray Serve", "users"),
    "Ray Serve, 2 replicas": ("Ray Serve, 2 replicas", "users"),
}
LOADS = (20, 40, 60, 80, 90, 120, 200)
Model = tuple[Path, Path, Interactions]  # self-contained, items only, what it was trained on


def make_model(folder: Path) -> Model:
    train = load_split("ncf-ml-1m").train
    model = IALS(embedding_dim=64, l2=0.007, unobserved_weight=0.3).fit(train)
    small = quantize(model, UniformQuantization(4))
    save_compressed(folder / "model", small)
    save_compressed(folder / "items", small, account="items")
    return folder / "model", folder / "items", train


def write_requests(path: Path, port: int, what: str, train: Interactions) -> None:
    """Write requests as an HTTP archive, which autocannon sends in turn."""
    users = np.random.default_rng(0).choice(train.num_users, NUM_REQUESTS, replace=False)
    histories = train.items_by_user()
    entries = []
    for user in users.tolist():
        who = {"items": histories[user][-HISTORY:].tolist()} if what == "histories" else {}
        body = json.dumps((who or {"user_id": user}) | {"k": 10})
        request = {"method": "POST", "url": f"http://127.0.0.1:{port}/recommend"}
        request |= {"headers": [{"name": "content-type", "value": "application/json"}]}
        request |= {"postData": {"mimeType": "application/json", "text": body}}
        entries.append({"request": request})
    path.write_text(json.dumps({"log": {"entries": entries}}))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/ready")
        return connection.getresponse().status < 500
    return False


@contextmanager
def served(name: str, path: Path, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run an application in a process of its own; end it and whatever it has started."""
    port = free_port()
    command = [sys.executable, str(APPS), name, str(path), str(port)]
    if options or "2 processes" in name:
        module = [
            sys.executable,
            "-m",
            "recsys_lib.serving.service",
            str(path),
            "--port",
            str(port),
        ]
        command = [*module, *(options or ("--workers", "2"))]
    environment = os.environ | (RAY if name.startswith("Ray") else {})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    try:
        end = time.monotonic() + 120
        while name != "bare constant" and not is_ready(port):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} did not start")
            time.sleep(0.1)
        time.sleep(1)
        yield port, process
    finally:
        assert process.stdin is not None
        process.stdin.close()  # ends Ray's
        if not name.startswith("Ray"):
            process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def fire(
    autocannon: str, port: int, archive: Path, seconds: int, *, rate: int | None = None
) -> dict[str, Any]:
    """Let autocannon send requests and return what it counted."""
    command = [autocannon, "-j", "-n", "-x", "--har", str(archive), "-c", str(CONNECTIONS)]
    command += ["-d", str(seconds)] + ([] if rate is None else ["-R", str(rate)])
    out = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    )
    found = json.loads(out.stdout.splitlines()[-1])
    codes = {code: entry["count"] for code, entry in found["statusCodeStats"].items()}
    accepted, shed = codes.pop("200", 0), codes.pop("503", 0)
    wrong = found["errors"] + sum(codes.values())
    took = found["latency"]
    return {
        "connections": CONNECTIONS, "rate": rate, "seconds": seconds,
        "requests_s": round(accepted / found["duration"]), "shed": shed,
        "accepted": accepted, "errors": wrong, "p50_ms": took["p50"], "p90_ms": took["p90"],
        "p99_ms": took["p99"], "p999_ms": took["p99_9"], "max_ms": took["max"],
    }  # fmt: skip


def flood(port: int, archive: Path, seconds: int, rate: int) -> dict[str, Any]:
    """Let h2load send one request more often than it can be answered; count as ``fire`` does."""
    request = json.loads(archive.read_text())["log"]["entries"][0]["request"]
    body, log = archive.with_suffix(".json"), archive.with_suffix(".log")
    body.write_text(request["postData"]["text"])
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", "-c", str(MANY), "-D", str(seconds), "--warm-up-time", "1"]
    command += ["--rps", str(rate / MANY), "-d", str(body), f"--log-file={log}"]
    command += ["-H", "content-type: application/json", request["url"]]
    subprocess.run(command, capture_output=True, check=True)
    _, codes, took = np.loadtxt(log, np.int64, unpack=True)  # microseconds
    accepted, shed = took[codes == 200], np.count_nonzero(codes == 503)
    marks = np.percentile(accepted / 1000, (50, 90, 99, 99.9, 100)).round(1).tolist()
    names = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
    return {
        "connections": MANY, "rate": rate, "seconds": seconds,
        "requests_s": round(len(accepted) / seconds), "shed": shed, "accepted": len(accepted),
        "errors": len(took) - len(accepted) - shed, **dict(zip(names, marks, strict=True)),
    }  # fmt: skip


def store(rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of those of the same name and load."""
    new = pd.DataFrame(rows)
    new["date"], new["machine"] = datetime.date.today().isoformat(), machine_line()
    if RESULTS.exists():
        old = pd.read_csv(RESULTS)
        taken = set(zip(new["row"], new["load"], strict=True))
        pairs = zip(old["row"], old["load"], strict=True)
        new = pd.concat([old[[pair not in taken for pair in pairs]], new])
    new.to_csv(RESULTS, index=False)


def measure_rows(names: list[str], model: Model, autocannon: str, seconds: int) -> None:
    """Measure applications in turns, in rounds of a third of the seconds each.

    "of_bare" and "of_constant" are ratios within a round.
    """
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {}
        for n, name in enumerate(names):
            app, what = ROWS[name]
            path = model[1 if what == "histories" else 0]
            ports[name], _ = stack.enter_context(served(app, path))
            write_requests(folder / f"{n}.har", ports[name], what, model[2])
            fire(autocannon, ports[name], folder / f"{n}.har", 2)  # warm
        for round_ in range(ROUNDS):
            found = {
                name: fire(autocannon, ports[name], folder / f"{n}.har", seconds // ROUNDS)
                for n, name in enumerate(names)
            }
            for name, row in found.items():
                constant = f"{name.split(', ')[0]}, constant"
                for column, other in (("of_bare", "bare constant"), ("of_constant", constant)):
                    if other in found:
                        row[column] = round(row["requests_s"] / found[other]["requests_s"], 4)
                print(f"{name:34} {row['requests_s']:7,}/s, p99 {row['p99_ms']} ms, {row['shed']} "
                      f"shed, {row['errors']} errors", flush=True)  # fmt: skip
                rows.append({"row": name, "load": "most", "round": round_} | row)
    store(rows)


def measure_loads(loads: list[int], model: Model, autocannon: str, seconds: int) -> None:
    """Measure the service at shares of what it can do, which is measured first."""
    with tempfile.TemporaryDirectory() as folder, served("service", model[0]) as (port, _):
        archive = Path(folder) / "requests.har"
        write_requests(archive, port, "users", model[2])
        fire(autocannon, port, archive, 3)
        most = fire(autocannon, port, archive, 10)["requests_s"]
        for share in loads:
            rate = most * share // 100
            if share > 100:
                found = flood(port, archive, seconds, rate)
            else:
                found = fire(autocannon, port, archive, seconds, rate=rate)
            print(f"{share:4} % of {most:,}/s: {found['requests_s']:,}/s, p99 {found['p99_ms']} "
                  f"ms, {found['shed']} shed, {found['errors']} errors", flush=True)  # fmt: skip
            store([{"row": "service", "load": str(share)} | found])


def measure_swap(model: Model, autocannon: str, seconds: int) -> None:
    """Replace the file, and kill one of two processes, while requests come in."""
    for name in ("swap", "kill"):
        with tempfile.TemporaryDirectory() as folder:
            path, archive = Path(folder) / "model", Path(folder) / "requests.har"
            shutil.copy(model[0], path)
            options = ("--watch-seconds", "0.2") if name == "swap" else ("--workers", "2")
            with served("service", path, *options) as (port, process):
                write_requests(archive, port, "users", model[2])
                fire(autocannon, port, archive, 3)
                arguments = name, path, process.pid, seconds
                other = threading.Thread(target=disturb, args=arguments)
                other.start()
                found = fire(autocannon, port, archive, seconds)
                other.join()
        print(name, found, flush=True)
        store([{"row": f"service, {name}", "load": "most"} | found])


def disturb(name: str, path: Path, pid: int, seconds: int) -> None:
    """Every two seconds put the file in its own place with other bytes; or kill a child once."""
    if name == "kill":
        time.sleep(seconds / 3)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        return
    factors, end = load_compressed(path), time.monotonic() + seconds - 1
    while time.monotonic() < end:
        time.sleep(2)
        save_compressed(path, factors)
        factors.item_vectors *= np.float32(1.0001)


def fuzz(count: int, path: Path) -> None:
    """Send made-up requests to a process of its own; print what came back and its memory."""
    with served("service", path) as (port, process):
        url = f"http://127.0.0.1:{port}/openapi.json"
        tool = [str(Path(sys.executable).parent / "schemathesis"), "run", url]
        tool += ["--phases", "fuzzing", "--max-examples", str(count), "--continue-on-failure"]
        tool += ["--no-color"]
        before = memory(process.pid)
        out = subprocess.run(tool, capture_output=True, text=True, check=False)
        print(out.stdout[-2500:], out.stderr[-500:])
        after = memory(process.pid)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        print("\n".join(line for line in text.splitlines() if "requests_total{" in line))
        print(f"memory: {before / 1e6:.1f} MB before, {after / 1e6:.1f} MB after")


def memory(pid: int) -> int:
    """Bytes that a process holds in memory (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--loads", nargs="*", type=int, help="shares of the capacity, percent")
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--autocannon", default=shutil.which("autocannon"))
    parser.add_argument("--keep", type=Path, help="folder with the model's files, made if absent")
    options = parser.parse_args()
    if options.autocannon is None and not options.fuzz:
        parser.error("autocannon is not on PATH: npm install autocannon, or --autocannon PATH")
    with tempfile.TemporaryDirectory() as folder:
        where = options.keep or Path(folder)
        if (where / "items").exists():
            model = where / "model", where / "items", load_split("ncf-ml-1m").train
        else:
            where.mkdir(exist_ok=True)
            model = make_model(where)
        if options.fuzz:
            fuzz(options.fuzz, model[0])
        elif options.swap:
            measure_swap(model, options.autocannon, options.seconds)
        elif options.loads is not None:
            loads = options.loads or list(LOADS)
            measure_loads(loads, model, options.autocannon, options.seconds)
        else:
            measure_rows(options.rows, model, options.autocannon, options.seconds)
            if options.rows == list(ROWS):
                measure_loads(list(LOADS), model, options.autocannon, options.seconds)


if __name__ == "__main__":
    main()
