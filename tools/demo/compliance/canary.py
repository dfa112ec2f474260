"""Where a text lies that must lie in one place only: every topic is read as the brokers have it, and every file beside them."""

import asyncio
import http.client
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from schemas.errors import Unavailable
from schemas.topics import plans
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.demo.stage import Stage
from tools.stack.ports import LOOPBACK
from tools.stack.secure import administration

BESIDE = ("logs", "evidence", "witness", "artifacts", "jobs", "runner", "data/redis")


def found_in(stage: Stage, texts: Sequence[str]) -> dict[str, set[str]]:
    """Per text the places that hold it: topics, files, metrics."""
    places: dict[str, set[str]] = {text: set() for text in texts}
    for place, data in _everything(stage):
        for text in texts:
            if text.encode() in data:
                places[text].add(place)
    return places


def _everything(stage: Stage) -> Iterator[tuple[str, bytes]]:
    yield from asyncio.run(_records(stage)).items()
    yield from _files(stage.state)
    yield from _metrics(stage.record.metrics)


async def _records(stage: Stage) -> Mapping[str, bytes]:
    """Everything that any topic holds, keyring and the agents' own ones included: as the administrator, whom nothing is hidden from."""
    where, security = administration(stage.state) or (stage.bootstrap, (await stage.broker()).security)
    found: dict[str, list[bytes]] = {}
    async with Bus(KafkaBroker(where, security), where) as bus:
        for record in await bus.read(await bus.starts([plan.full for plan in plans()])):
            parts = [record.key or b"", record.value or b"", *(value or b"" for _, value in record.headers)]
            found.setdefault(record.topic, []).extend(parts)
    return {topic: b"\n".join(parts) for topic, parts in found.items()}


def _files(state: Path) -> Iterable[tuple[str, bytes]]:
    for folder in BESIDE:
        for path in sorted((state / folder).rglob("*")):
            if path.is_file():
                yield str(path.relative_to(state)), path.read_bytes()


def _metrics(ports: Mapping[str, int]) -> Iterable[tuple[str, bytes]]:
    for name, port in ports.items():
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            yield f"metrics of {name}", connection.getresponse().read()
        except (OSError, http.client.HTTPException) as fault:
            raise Unavailable(f"the metrics of {name} do not answer: {fault}") from fault
        finally:
            connection.close()
