"""The offline verifier over logs of any size, each time in a process of its own: seconds, CPU and the memory that it took."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.settings import process_environment

VERIFIER = Path(__file__).parents[1] / "verify_evidence.py"
SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Audit:
    """What one run of the verifier took; CPU and memory with all its children."""

    entries: int
    seconds: float
    cpu_s: float
    peak_mib: float


class _Memory:
    """The most that a process and its children held together, looked at every 50 ms.

    The kernel's own maximum of a child is no use: it begins with what its parent held at the fork.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> float:
        """In MiB."""
        self._over.set()
        self._thread.join()
        return self.peak / 2**20

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self.peak = max(self.peak, sum(process.memory_info().rss for process in family))
            except psutil.Error:  # one of them has just ended
                continue


def audit(folder: Path, policy: Path) -> Audit:
    """Verify an export under a policy. It must be valid: a log that we wrote and that is refused is our bug."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, VERIFIER, folder, "--policy", policy, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            env=process_environment(),
        )
        memory = _Memory(child.pid)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        peak_mib = memory.end()
        out.seek(0)
        said = out.read()
    if child.returncode != 0:
        raise RuntimeError(f"the verifier ended with {child.returncode} over {folder}: {said.decode()[:2000]}")
    return Audit(json.loads(said)["size"], seconds, used.ru_utime + used.ru_stime, peak_mib)
