"""A Ray head as a process of this machine: loopback, no dashboard, a small object store, logical CPUs.

Ended by its own pids, never by `ray stop`, which ends every Ray of the user.
"""

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from infra.settings import ray_environment
from schemas.errors import Unavailable

from .ports import LOOPBACK, free_ports, listens, taken
from .processes import Running, kill, start, wait_until

_QUIET = {
    "RAY_worker_niceness": "0",  # engines answer people: no less urgent than the brokers beside them
    "RAY_DEDUP_LOGS": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # on a small shared machine it kills workers for memory that others use
}


def ray_program() -> str:
    """The `ray` beside this interpreter: server and client must be of one version."""
    beside = Path(sys.executable).parent / "ray"
    found = str(beside) if beside.exists() else shutil.which("ray")
    if found is None:
        raise Unavailable("Ray is not installed beside this Python: run `make setup`")
    return found


def start_ray(
    port: int,
    *,
    log: Path,
    token_file: Path,
    num_cpus: int = 8,
    num_gpus: int | None = None,
    object_store_mb: int = 300,
    tag: str = "",
    temp_dir: Path | None = None,
) -> Running:
    """Start a head on loopback and wait for it. `num_cpus` is what Ray may promise, not what the machine has.

    `temp_dir` must be short (Unix sockets live in it) and belongs to this head alone; remove it after the head has ended.
    """
    if taken(port):
        raise Unavailable(
            f"port {port} is taken, Ray cannot listen there: stop what listens, or give another --ray-port"
        )
    agent_http, agent_grpc, client, metrics, env_agent = free_ports(5)
    folder = temp_dir or fresh_temp_dir()
    argv = [ray_program(), "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false",
            "--include-log-monitor=false", f"--node-ip-address={LOOPBACK}", f"--port={port}",
            f"--dashboard-agent-listen-port={agent_http}", f"--dashboard-agent-grpc-port={agent_grpc}",
            f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}",
            f"--runtime-env-agent-port={env_agent}", "--min-worker-port=0", "--max-worker-port=0",
            f"--num-cpus={num_cpus}", f"--object-store-memory={object_store_mb << 20}", f"--temp-dir={folder}",
            "--log-style=record", "--log-color=false",
            *([] if num_gpus is None else [f"--num-gpus={num_gpus}"])]  # fmt: skip
    running = start("ray", argv, log=log, tag=tag, env=_QUIET | ray_environment(token_file))
    try:
        wait_until(lambda: ray_answers(f"{LOOPBACK}:{port}") and _raylet_up(folder), running, timeout_s=60, what="Ray")
    except Unavailable:
        kill(running)
        raise
    return running


def ensure_token(file: Path) -> Path:
    """The head's token, made the first time, mode 0600."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as sink:
            sink.write(secrets.token_hex(32))
    return file


def fresh_temp_dir() -> Path:
    """A short folder for one head's sockets and logs."""
    return Path(tempfile.mkdtemp(prefix="ratchet-ray-", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108  a socket's path has 107 bytes


def ray_answers(address: str) -> bool:
    """Whether something listens at Ray's address; `local` always does."""
    if address == "local":
        return True
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return port.isdigit() and listens(host or LOOPBACK, int(port))


@contextlib.contextmanager
def running_ray(
    folder: Path, token_file: Path, *, num_cpus: int = 8, num_gpus: int | None = None
) -> Generator[str, None, None]:
    """A fresh head for the length of a `with`; yields its address. To join it, `ray_environment(token_file)` must be set."""
    (port,) = free_ports(1)
    temp_dir = fresh_temp_dir()
    running = start_ray(
        port, log=folder / "ray.log", token_file=token_file, num_cpus=num_cpus, num_gpus=num_gpus, temp_dir=temp_dir
    )
    try:
        yield f"{LOOPBACK}:{port}"
    finally:
        kill(running)
        shutil.rmtree(temp_dir, ignore_errors=True)


def _raylet_up(folder: Path) -> bool:
    return any(path.is_socket() for path in folder.glob("session_*/sockets/raylet*"))
