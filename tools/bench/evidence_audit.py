"""The offline verifier over logs of any size, each time in a process of its own: seconds, CPU and the memory that it took."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from infra.settings import process_environment

VERIFIER = Path(__file__).parents[1] / "verify_evidence.py"


@dataclass(frozen=True, slots=True)
class Audit:
    """What one run of the verifier took; `peak_mib` is that of its largest process."""

    entries: int
    seconds: float
    cpu_s: float
    peak_mib: float


def audit(folder: Path, policy: Path) -> Audit:
    """Verify an export under a policy. It must be valid: a log that we wrote and that is refused is our bug."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, VERIFIER, folder, "--policy", policy, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=process_environment(),
    )
    with child:
        said = child.stdout.read() if child.stdout is not None else b""
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if child.returncode != 0:
        raise RuntimeError(f"the verifier ended with {child.returncode} over {folder}: {said.decode()[:2000]}")
    return Audit(json.loads(said)["size"], seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
