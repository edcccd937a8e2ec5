"""Start the processes of a cluster on this machine, watch them, and leave none behind."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

REFUSED = 64  # exit status of a member that would fail again: what it was given is wrong
_SIGN = "RECSYS_SIGN_OF_LIFE"  # the file whose time of change is the last sign of life
# Members share the cores of one machine, and no two of them could share a graphics card.
_SHARED = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}
_Members = dict[str, "subprocess.Popen[bytes]"]


def run_members(
    command: Sequence[str],
    cluster: Mapping[str, int],
    folder: str | os.PathLike[str],
    *,
    restarts: int = 3,
    silence_seconds: float = 300.0,
    memory_bytes: int = 0,
    say: Callable[[str], None] | None = None,
) -> tuple[int, dict[str, int]]:
    r"""Run one process for each member of a cluster on loopback until the first ends well.

    Each process gets ``TF_CONFIG`` as a cluster would set it, and writes its output to a log in
    ``folder``. If one of them dies, or none gives a sign of life for too long, all are killed and
    all are started again, with new ports; they are expected to go on from a backup of their own.
    However this function ends, by an error or by Ctrl-C, no member is left: each is killed, and one
    that calls :func:`follow_launcher` also ends when this process is killed.

    Args:
        command: of every member.
        cluster: number of members by job, such as ``{"worker": 2}``; the job ends with the first.
        folder: an existing one, for the logs.
        restarts: how often all may be started again.
        silence_seconds: longest time without :func:`sign_of_life`, from the start on.
        memory_bytes: most resident memory of each member; 0 for no limit. Only Linux tells it.
        say: what is told of each start, death and restart; None tells nobody.

    Returns:
        How often all were started again, and the highest resident memory of each member in bytes,
        by name: 0 where it is not known, as on systems other than Linux.

    Raises:
        MemoryError: a member took more memory than it may.
        ValueError: a member refused what it was given (exit status 64); the last line of its log.
        RuntimeError: members died more often than ``restarts``.

    Example:
        >>> import sys, tempfile
        >>> script = "import os; print(os.environ['TF_CONFIG'][-39:])"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     count, _ = run_members([sys.executable, "-c", script], {"worker": 1}, folder)
        ...     count, Path(f"{folder}/worker-0.log").read_text()
        (0, '"task": {"type": "worker", "index": 0}}\n')
    """
    say, folder = say or (lambda _: None), Path(folder)
    peaks: dict[str, int] = {}
    for attempt in range(restarts + 1):
        members: _Members = {}
        try:
            _start(command, cluster, folder, members)
            say("; ".join(f"{name} is process {x.pid}" for name, x in members.items()))
            trouble = _watch(members, folder, silence_seconds, peaks, memory_bytes)
        finally:
            for process in members.values():
                process.kill()
                process.wait()
        if trouble is None:
            return attempt, peaks
        say(f"{trouble}; start {attempt + 1} of {restarts + 1} is over")
    raise RuntimeError(f"{trouble}, after {restarts} restarts: expected members that run")


def _start(command: Any, cluster: Mapping[str, int], folder: Path, members: _Members) -> None:
    names = [(job, number) for job, count in cluster.items() for number in range(count)]
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports: dict[str, list[str]] = {}
    for (job, _), one in zip(names, sockets, strict=True):
        ports.setdefault(job, []).append(f"127.0.0.1:{one.getsockname()[1]}")
        one.close()
    (folder / "sign").touch()
    for job, number in names:
        config = json.dumps({"cluster": ports, "task": {"type": job, "index": number}})
        own = _SHARED | os.environ | {"TF_CONFIG": config, _SIGN: str(folder / "sign")}
        own["TF_NUM_INTEROP_THREADS"] = "4"  # with one, members wait for each other for ever
        with (folder / f"{job}-{number}.log").open("wb") as log:
            # The pipe closes when this process ends, however that comes; Ctrl-C comes here alone.
            members[f"{job}-{number}"] = subprocess.Popen(
                command, env=own, stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0
            )


def _watch(members: _Members, folder: Path, silence: float, peaks: Any, most: int) -> str | None:
    """Wait for the end of the first member; return what went wrong, None for nothing."""
    first = next(iter(members.values()))
    while (time.time() - (folder / "sign").stat().st_mtime) < silence:
        for name, process in members.items():
            with suppress(OSError):  # gone, or not Linux
                status = Path(f"/proc/{process.pid}/status").read_text("ascii")
                found = re.findall(r"VmHWM:\s*(\d+) kB", status)
                peaks[name] = max([peaks.get(name, 0), *(1024 * int(kb) for kb in found)])
            if 0 < most < peaks.get(name, 0):
                raise MemoryError(f"{name} took {peaks[name]:,} bytes: expected up to {most:,}")
            if process.poll():
                log = (folder / f"{name}.log").read_text("utf-8", "replace")
                last = log.strip().rpartition("\n")[2]
                if process.returncode == REFUSED:
                    raise ValueError(last)
                with suppress(subprocess.TimeoutExpired):
                    first.wait(1.0)  # another may have ended because the first was ready
            if first.poll() == 0:
                return None
            if process.returncode:
                return f"{name} ended with status {process.returncode} ({last[:300]})"
        time.sleep(0.05)
    return f"no member gave a sign of life for {silence:g} seconds"


def follow_launcher() -> None:
    """End this process when the one that launched it ends; without a launcher, do nothing."""
    if _SIGN in os.environ:
        # Nobody writes: reading returns when the other end is closed.
        threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()


def sign_of_life() -> None:
    """Tell the launcher that there is progress; without a launcher, do nothing."""
    if path := os.environ.get(_SIGN):
        Path(path).touch()
