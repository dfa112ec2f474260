"""Workers are forks of one interpreter that has loaded their code: Python's own start, half a second of a core, is no part of a fault.

Each is a process of its own with connections of its own; SIGKILL and SIGSTOP hit it as they hit any other.
"""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LARGEST = 65_536


class Fork:
    """One worker: its pipes, and how it ended (negative: the signal)."""

    def __init__(self, pid: int, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, forks: "Forks") -> None:
        self.pid, self.stdin, self.stdout = pid, stdin, stdout
        self.returncode: int | None = None
        self._forks = forks
        self._reaping = asyncio.Lock()

    def send(self, number: signal.Signals) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> None:
        """Wait until it has; its stdout must have ended, or SIGKILL been sent."""
        async with self._reaping:
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(await self._forks.ask({"wait": self.pid}))
                self.stdin.close()


class Forks:
    """The interpreter that forks. One question at a time, each answered with a number."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._turn = asyncio.Lock()
        self._every: list[Fork] = []

    async def begin(self, told: dict[str, Any], log: Path) -> Fork:
        """A worker whose stderr is appended to `log`. Cancelled: it is gone."""
        task = asyncio.create_task(self._begin(told, log))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            (await task).send(signal.SIGKILL)
            raise

    async def end(self) -> None:
        """Whatever still runs is killed."""
        for fork in self._every:
            fork.send(signal.SIGKILL)
            await fork.ended()

    async def _begin(self, told: dict[str, Any], log: Path) -> Fork:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            pid = await self.ask(told, (theirs_in, theirs_out, sink))
        finally:
            for number in (theirs_in, theirs_out, sink):
                os.close(number)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours_out, "rb", 0))
        pipe = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(ours_in, "wb", 0))
        fork = Fork(pid, asyncio.StreamWriter(*pipe, None, loop), reader, self)
        self._every.append(fork)
        return fork

    async def ask(self, words: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        async with self._turn:
            socket.send_fds(self._channel, [json.dumps(words).encode()], descriptors)
            answer = await asyncio.get_running_loop().sock_recv(self._channel, LARGEST)
        if not answer:
            raise AssertionError("the interpreter that forks workers has ended")
        return int(answer)


@asynccontextmanager
async def forking(module: str) -> AsyncGenerator[Forks]:
    """`module` is run as a program with the number of a channel; it calls `serve`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}  # noqa: TID251  a child of ours
    with ours:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, str(theirs.fileno()), stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=environment, cwd=ROOT,
            )  # fmt: skip
        forks = Forks(ours)
        try:
            yield forks
        finally:
            await forks.end()
            ours.close()
            await process.wait()


def serve(channel: int) -> dict[str, Any] | None:
    """Fork for each order until the channel ends, then None; in each fork: what it was told, its pipes in place.

    No threads and no event loop may have been started before.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its harness
    with socket.socket(fileno=channel) as asked:
        while True:
            words, descriptors, _, _ = socket.recv_fds(asked, LARGEST, 3)
            if not words:
                return None
            told: dict[str, Any] = json.loads(words)
            if "wait" in told:
                answer = os.waitpid(told["wait"], 0)[1]
            else:
                answer = os.fork()
                if not answer:
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    for ours, number in enumerate(descriptors):
                        os.dup2(number, ours)
            for number in descriptors:
                os.close(number)
            if not answer and "wait" not in told:
                return told
            asked.send(str(answer).encode())
