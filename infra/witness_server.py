"""The HTTP side of a witness: bounds and routes, nothing decided. Signatures protect what goes over it, so it needs no TLS."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from schemas.errors import Refused
from schemas.tlog.witnessing import MAX_REQUEST, Answer

READ_S = 10.0
"""A request that takes longer to arrive is given up."""
CLOSE_S = 1.0


class WitnessServer:
    """Serves `POST /add-checkpoint` and `GET /SHA256-OF-ORIGIN/checkpoint`. What answers blocks, so it runs on threads."""

    def __init__(self, add_checkpoint: Callable[[bytes], Answer], checkpoint: Callable[[str], Answer]) -> None:
        self._add_checkpoint = add_checkpoint
        self._checkpoint = checkpoint
        app = web.Application(client_max_size=MAX_REQUEST + 1)
        app.router.add_post("/add-checkpoint", self._post)
        app.router.add_get("/{origin:[0-9a-f]{64}}/checkpoint", self._get)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_S)

    async def start(self, address: str) -> int:
        """Listen on host:port; the port, which 0 leaves free. Raises Refused when it cannot."""
        host, _, port = address.rpartition(":")
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, int(port)).start()
        except OSError as exc:
            raise Refused(f"RATCHET_WITNESS_LISTEN={address}: {exc.strerror or exc}", kind="settings") from exc
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Take no more requests; those under way have a second."""
        await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(READ_S):
                body = await request.read()
        except TimeoutError as exc:
            raise web.HTTPRequestTimeout from exc
        return _response(await asyncio.to_thread(self._add_checkpoint, body))

    async def _get(self, request: web.Request) -> web.Response:
        return _response(await asyncio.to_thread(self._checkpoint, request.match_info["origin"]))


def _response(answer: Answer) -> web.Response:
    charset = "utf-8" if answer.content_type == "text/plain" else None
    return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type, charset=charset)
