"""A TCP proxy before a broker that advertises the proxy's address, so that every request of every client passes here.

Requests are `size, api key, version, correlation id, …`, answers `size, correlation id, …`: all that it reads of them.
"""

import asyncio
import struct
from contextlib import suppress
from typing import Literal

END_TXN = 26
Swallow = Literal["answer", "request", "connection"]


class Proxy:
    """Forwards. `swallow(kind, n)`: of the next n EndTxn the answer, the request, or the connection after the request, is lost."""

    def __init__(self, port: int, broker: int) -> None:
        self.port, self.broker = port, broker
        self.swallowed = 0
        self._kind: Swallow = "answer"
        self._left = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", self.port)

    async def stop(self) -> None:
        self._server.close()
        for writer in list(self._open):
            writer.close()
        if self._serving:
            await asyncio.wait(self._serving)

    def swallow(self, kind: Swallow, times: int) -> None:
        self._kind, self._left = kind, times

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.broker)
        except OSError:
            writer.close()
            return
        hidden: set[int] = set()
        self._open |= {writer, up_writer}
        ways = [
            asyncio.create_task(self._requests(reader, up_writer, hidden)),
            asyncio.create_task(self._answers(up_reader, writer, hidden)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for end in (writer, up_writer):
            self._open.discard(end)
            end.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hidden: set[int]) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                frame = await _frame(reader)
                key, _, correlation = struct.unpack_from(">hhi", frame)
                hit = key == END_TXN and self._left > 0
                if hit:
                    self._left -= 1
                    self.swallowed += 1
                    hidden.add(correlation)
                    if self._kind == "request":
                        continue
                writer.write(struct.pack(">i", len(frame)) + frame)
                await writer.drain()
                if hit and self._kind == "connection":
                    await asyncio.sleep(0.2)  # the broker has it
                    return

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hidden: set[int]) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                frame = await _frame(reader)
                correlation = struct.unpack_from(">i", frame)[0]
                if correlation in hidden:
                    continue
                writer.write(struct.pack(">i", len(frame)) + frame)
                await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    size = struct.unpack(">i", await reader.readexactly(4))[0]
    return await reader.readexactly(size)
