"""Commands that come together: one write, an answer each, none crossed, none without an end."""

import asyncio

import pytest
from redis.exceptions import RedisError, ResponseError

from infra.redis_line import MOST, Line


class Server:
    """Answers each command with its own text; counts the writes, hangs while it is shut, ends one way or the other."""

    def __init__(self):
        self.writes = []
        self.open = asyncio.Event()
        self.open.set()
        self.fault = None

    def pipeline(self, *, transaction):
        assert not transaction
        return Pipe(self)


class Pipe:
    def __init__(self, server):
        self.server = server
        self.commands = []

    def execute_command(self, *command):
        self.commands.append(command)

    async def execute(self, *, raise_on_error):
        assert not raise_on_error
        self.server.writes.append(len(self.commands))
        await asyncio.sleep(0)
        await self.server.open.wait()
        if self.server.fault is not None:
            raise self.server.fault
        return [ResponseError("no") if "BAD" in command else " ".join(command) for command in self.commands]


async def test_what_comes_together_goes_together():
    """A command alone goes at once; those that come while it is under way go in one write, in their order."""
    server = Server()
    line = Line(server)
    assert await line.ask("GET", "a") == "GET a"
    first = asyncio.ensure_future(line.ask("GET", "b"))
    await asyncio.sleep(0)
    assert await asyncio.gather(*(line.ask("GET", str(n)) for n in range(9))) == [f"GET {n}" for n in range(9)]
    assert await first == "GET b"
    assert server.writes == [1, 1, 9]
    await asyncio.gather(*(line.ask("GET", "k") for _ in range(MOST + 1)))
    assert server.writes[3:] == [MOST, 1]


async def test_an_error_is_the_command_s_own():
    """What the server refuses of one command does not touch its neighbours."""
    line = Line(Server())
    found = await asyncio.gather(line.ask("GET", "a"), line.ask("BAD"), line.ask("GET", "b"), return_exceptions=True)
    assert (found[0], found[2]) == ("GET a", "GET b")
    assert isinstance(found[1], ResponseError)


async def test_who_stops_waiting_leaves_the_others_theirs():
    """A caller that was cancelled gets nothing, the others their own answers; one that gave up before the write is not asked."""
    server = Server()
    server.open.clear()
    line = Line(server)
    asked = [asyncio.ensure_future(line.ask("GET", str(n))) for n in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    late = asyncio.ensure_future(line.ask("GET", "late"))
    last = asyncio.ensure_future(line.ask("GET", "last"))
    await asyncio.sleep(0)
    late.cancel()
    server.open.set()
    assert [await asked[0], await asked[2], await last] == ["GET 0", "GET 2", "GET last"]
    assert server.writes == [3, 1]


@pytest.mark.parametrize("fault", [RedisError("away"), OSError("away"), TimeoutError()])
async def test_a_broken_connection_is_told_to_all_of_its_write(fault):
    """Each gets the error, and the line goes on with the next."""
    server = Server()
    line = Line(server)
    server.fault = fault
    found = await asyncio.gather(line.ask("GET", "a"), line.ask("GET", "b"), return_exceptions=True)
    assert found == [fault, fault]
    server.fault = None
    assert await line.ask("GET", "c") == "GET c"


async def test_what_is_dropped_ends_at_once():
    """Under way or waiting, everyone is told; what is asked afterwards does not wait for the one that hangs."""
    server = Server()
    server.open.clear()
    line = Line(server)
    first = asyncio.ensure_future(line.ask("GET", "a"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(line.ask("GET", "b"))
    line.drop()
    for one in (first, second):
        with pytest.raises(RedisError):
            await one
    server.open.set()
    assert await line.ask("GET", "c") == "GET c"
    await line.close()
