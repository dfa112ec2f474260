"""The provider: the large model behind vLLM's own HTTP server, in processes of its own, that can be killed and started again."""

import asyncio
import os
import sys
from pathlib import Path

from infra.engine_vllm import VllmSettings, environment
from schemas.errors import Unavailable
from tools.stack.ports import LOOPBACK, ask, free_ports
from tools.stack.processes import Running, alive, kill, start, tail

READY_S = 240.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Server:
    """One server; it carries the stack's tag, so whoever stops the stack stops it too."""

    def __init__(self, folder: Path, model: str, log: Path, tag: str) -> None:
        self._folder, self._model, self._log, self._tag = folder, model, log, tag
        (self._port,) = free_ports(1)
        self._running: Running | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}/v1"

    def start(self) -> None:
        """Start it; it answers some time later."""
        settings = VllmSettings()
        argv = [
            sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(self._folder),
            "--served-model-name", self._model, "--host", LOOPBACK, "--port", str(self._port),
            "--dtype", settings.dtype, "--enforce-eager", "--max-num-seqs", "32",
        ]  # fmt: skip
        variables = environment(settings, os.cpu_count() or 1)
        self._running = start("provider", argv, log=self._log, env=variables, tag=self._tag)

    async def ready(self) -> None:
        """Return when it answers. Raises `Unavailable` where it ended or does not come."""
        try:
            async with asyncio.timeout(READY_S):
                while not await asyncio.to_thread(self._answers):
                    if self._running is None or not alive(self._running):
                        raise Unavailable(f"the provider ended while it started; its log ends:\n{tail(self._log)}")
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise Unavailable(f"the provider did not answer within {READY_S:.0f} s:\n{tail(self._log)}") from None

    def _answers(self) -> bool:
        return b" 200 " in ask(LOOPBACK, self._port, HEALTH, enough=16)

    def kill(self) -> int:
        """SIGKILL to it and its children; its process id."""
        if self._running is None:
            return 0
        kill(self._running)
        return self._running.pid
