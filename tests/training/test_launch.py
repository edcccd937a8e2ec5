"""Processes that are started, watched and ended. The members here are a line of Python each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recsys_lib.files import is_running
from recsys_lib.training.launch import run_members

pytestmark = [pytest.mark.alone, pytest.mark.slow]
# A member writes its name and process beside its log, then does what follows.
NOTE = """
import json, os, sys, time
from pathlib import Path
member = json.loads(os.environ["TF_CONFIG"])["task"]
folder = Path(sys.argv[1])
count = len(list(folder.glob(f"{member['type']}-{member['index']}.*[0-9]")))
(folder / f"{member['type']}-{member['index']}.{count}").write_text(str(os.getpid()))
def everybody(number):
    while len(list(folder.glob(f"*-*.{count}"))) < number:
        time.sleep(0.01)
"""


def run(folder, script, cluster, **options):
    """Return what run_members does, and see that it leaves no process behind."""
    try:
        command = [sys.executable, "-c", NOTE + script, str(folder)]
        return run_members(command, cluster, folder, **options)
    finally:
        assert_nobody_is_left(folder)


def assert_nobody_is_left(folder):
    running = processes = [path.read_text() for path in folder.glob("*-*.*[0-9]")]
    assert processes
    end = time.monotonic() + 5  # those just killed may take a moment
    while running and time.monotonic() < end:
        time.sleep(0.05)
        running = [process for process in processes if is_running(process)]
    assert not running


def test_each_gets_its_place_and_all_end_with_the_first(tmp_path):
    script = """
print(os.environ["TF_CONFIG"])
everybody(4)
time.sleep(0 if member == {"type": "chief", "index": 0} else 600)
"""
    said = []
    restarts, peaks = run(tmp_path, script, {"chief": 1, "worker": 2, "ps": 1}, say=said.append)
    names = ["chief-0", "worker-0", "worker-1", "ps-0"]
    configs = [json.loads((tmp_path / f"{name}.log").read_text()) for name in names]
    assert [f"{c['task']['type']}-{c['task']['index']}" for c in configs] == names
    assert all(config["cluster"] == configs[0]["cluster"] for config in configs)
    ports = [port for job in configs[0]["cluster"].values() for port in job]
    assert len(set(ports)) == 4 and all(port.startswith("127.0.0.1:") for port in ports)
    assert restarts == 0 and said[0].count(" is process ") == 4 and len(said) == 1
    if sys.platform == "linux":  # who came last may have been seen for a moment only
        assert list(peaks) == names and min(peaks.values()) > 0


KILLED_TWICE = """
everybody(2)
if member["index"] == 1 and count < 2:
    os.kill(os.getpid(), 9)
time.sleep(0 if count == 2 else 600)
"""
OVER = [f"worker-1 ended with status -9 (); start {n} of 4 is over" for n in (1, 2)]
ENDS_LATER = "everybody(2)\nif member['index']: sys.exit(1)\ntime.sleep(0.3)"


@pytest.mark.parametrize("script, told", [(KILLED_TWICE, OVER), (ENDS_LATER, [])])
def test_one_dies_and_all_start_again_unless_the_first_is_ready(tmp_path, script, told):
    said = []
    assert run(tmp_path, script, {"worker": 2}, say=said.append)[0] == len(told)
    assert [text for text in said if "process" not in text] == told


ONCE = {"restarts": 1, "silence_seconds": 1}
HUNGRY = "everybody(2)\ntable = bytearray(member['index'] * 200_000_000)\ntime.sleep(600)"
FAULTS = [
    ("everybody(2)\nsys.exit('so')", ONCE, RuntimeError, r"status 1 \(so\), after 1 restarts", 2),
    ("time.sleep(600)", ONCE, RuntimeError, "sign of life for 1 seconds, after 1 restarts", 2),
    ("print('a')\nprint('ValueError: b')\nsys.exit(64)", {}, ValueError, "^ValueError: b$", 1),
    (HUNGRY, {"memory_bytes": 10**8}, MemoryError, "worker-1 took .* up to 100,000,000", 1),
]


@pytest.mark.parametrize("script, options, error, message, starts", FAULTS)
def test_what_fails_each_time_is_an_error(tmp_path, script, options, error, message, starts):
    if error is MemoryError and sys.platform != "linux":
        pytest.skip("only Linux tells the memory of a process")
    with pytest.raises(error, match=message):
        run(tmp_path, script, {"worker": 2}, **options)
    assert len(list(tmp_path.glob("worker-0.*[0-9]"))) == starts


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nobody_outlives_the_launcher(tmp_path, how):
    member = "from recsys_lib.training.launch import follow_launcher\nfollow_launcher()\n"
    member += NOTE + "time.sleep(600)"
    script = f"""
import sys
from recsys_lib.training.launch import run_members
command = [sys.executable, "-c", {member!r}, sys.argv[1]]
run_members(command, {{"worker": 2}}, sys.argv[1], say=print)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL
    ) as launcher:
        end = time.monotonic() + 60
        while len(list(tmp_path.glob("worker-*.0"))) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.1)  # the second has written its process by now
        launcher.send_signal(how)
        try:
            launcher.wait(20)
        finally:
            launcher.kill()
    assert_nobody_is_left(tmp_path)
