"""The servers in containers, where a Docker daemon answers: `docker-compose.kafka.yml`, one project per state folder."""

import functools
import hashlib
import shutil
import subprocess
from pathlib import Path

from infra.settings import process_environment
from schemas.errors import Unavailable

COMPOSE = Path(__file__).parents[2] / "docker-compose.kafka.yml"


@functools.cache
def docker_answers() -> bool:
    """Whether the daemon answers and knows `compose`."""
    if shutil.which("docker") is None:
        return False
    return all(_quiet(argv) for argv in (["docker", "info"], ["docker", "compose", "version"]))


def project(state_dir: Path) -> str:
    """The compose project of a state folder."""
    return "ratchet-" + hashlib.sha256(str(state_dir).encode()).hexdigest()[:8]


def compose_up(state_dir: Path, ports: dict[str, int]) -> None:
    """Start the named services on the given loopback ports and wait until each is healthy."""
    _compose(state_dir, ["up", "-d", "--wait", *ports], {f"RATCHET_{k.upper()}_PORT": str(v) for k, v in ports.items()})


def compose_stop(state_dir: Path, service: str) -> None:
    """Stop one service and remove its container; its volume stays."""
    _compose(state_dir, ["rm", "--stop", "--force", service], {})


def _compose(state_dir: Path, argv: list[str], env: dict[str, str]) -> None:
    command = ["docker", "compose", "-p", project(state_dir), "-f", str(COMPOSE), "--profile", "vault", *argv]
    done = subprocess.run(command, env=process_environment() | env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"docker compose {argv[0]} failed: {done.stderr.strip()[-600:]}")


def _quiet(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
