"""An HTTP server of a few bytes that does what a test tells it: whole replies, halves, lies, silence, resets."""

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        return json.loads(self.body)


Act = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Stage:
    """What was asked, and what is done with it: `acts` one after the other, the last of them from then on."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    acts: deque[Act] = field(default_factory=deque)
    left: int = 0  # connections that the other side closed before their reply ended

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def does(self, *acts: Act) -> None:
        self.acts = deque(acts)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a connection."""
        tasks: list[asyncio.Future[object]] = []
        try:
            asked = await _asked(reader)
            self.asked.append(asked)
            act = self.acts.popleft() if len(self.acts) > 1 else self.acts[0]
            tasks = [asyncio.ensure_future(act(asked, writer)), asyncio.ensure_future(reader.read(1))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self.left += not tasks[0].done()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()


async def _asked(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:] if row)}
    return Asked(method, path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


@asynccontextmanager
async def stage() -> AsyncGenerator[Stage, None]:
    """A stage on a free port of loopback."""
    made = Stage()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


def raw(content: bytes) -> Act:
    """These bytes, then the end of the connection."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return act


def says(body: object, status: int = 200, headers: dict[str, str] | None = None, length: int | None = None) -> Act:
    """A whole reply; `body` as JSON unless it is bytes. `length`: what its header claims instead."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"content-type": "application/json", "content-length": str(len(content) if length is None else length)}
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in (named | (headers or {})).items())]
    return raw("\r\n".join(lines).encode() + b"\r\nconnection: close\r\n\r\n" + content)


def hangs(first: bytes = b"") -> Act:
    """Says `first`, then nothing more."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        await writer.drain()
        await asyncio.Event().wait()

    return act


def drips(body: bytes, pause_s: float) -> Act:
    """A whole reply, a byte at a time."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode())
        for index in range(len(body)):
            writer.write(body[index : index + 1])
            await writer.drain()
            await asyncio.sleep(pause_s)

    return act


def floods(chunk: bytes = b"x" * 65_536) -> Act:
    """A reply without an end."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()

    return act


def resets() -> Act:
    """The connection is reset, not closed."""

    async def act(_: Asked, writer: asyncio.StreamWriter) -> None:
        held = writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return act
