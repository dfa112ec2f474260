"""The fault harness in its short form, as anyone runs it: `python -m tests.faults --short`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]


def _argv(*more: str) -> list[str]:
    return [sys.executable, "-m", "tests.faults", *more]


def test_nothing_is_lost_nothing_twice_in_the_short_form() -> None:
    """Points on both brokers, zombies, random kills and a lost EndTxn answer: every fault struck, every count is zero."""
    done = subprocess.run(
        _argv("--short", "--json"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row for row in rows if row["lost"] or row["duplicated"] or row["wrong"] or not row["faults"]] == []
    found = {(row["broker"], row["scenario"].split()[0], row["shape"]) for row in rows}
    shapes = ("transform", "fold")
    assert found == {
        *((broker, kind, shape) for broker in ("memory", "kafka") for kind in ("exit", "stop") for shape in shapes),
        *(("kafka", kind, shape) for kind in ("chaos", "EndTxn") for shape in shapes),
    }
    assert sum(row["aborted"] for row in rows) > 0
    assert sum(row["fenced"] for row in rows) > 0


def test_stopped_it_leaves_no_processes_and_no_folder() -> None:
    """Ctrl-C in the middle of a scenario: exit code 130; its broker, its agents and its folder are gone."""
    with tempfile.TemporaryDirectory() as scratch:
        told = {**os.environ, "TMPDIR": scratch}  # noqa: TID251  a child of ours
        argv = _argv("--only", "points/stop")
        with subprocess.Popen(argv, cwd=ROOT, env=told, stderr=subprocess.PIPE, text=True) as child:
            ours = psutil.Process(child.pid)
            deadline = time.monotonic() + 60
            several = 4  # a broker, two agents, and who forks them
            while len(ours.children(recursive=True)) < several and time.monotonic() < deadline:
                time.sleep(0.05)
            started = ours.children(recursive=True)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
        assert (child.returncode, said) == (130, "stopped\n")
        assert len(started) >= several
        assert [process for process in started if process.is_running()] == []
        assert list(Path(scratch).iterdir()) == []
