"""Where a text lies that must lie in one place only: every topic is read as the brokers have it, and every file beside them."""

import asyncio
import http.client
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from schemas.errors import Unavailable
from schemas.topics import plans
from tools.demo.compliance.kafka import records
from tools.demo.stage import Stage
from tools.stack.ports import LOOPBACK

BESIDE = ("logs", "evidence", "witness", "artifacts", "jobs", "runner", "data/redis")


def found_in(stage: Stage, texts: Sequence[str]) -> dict[str, list[str]]:
    """Per text the places that hold it, sorted: topics, files, metrics."""
    places: dict[str, set[str]] = {text: set() for text in texts}
    for place, data in _everything(stage):
        for text in texts:
            if text.encode() in data:
                places[text].add(place)
    return {text: sorted(found) for text, found in places.items()}


def _everything(stage: Stage) -> Iterator[tuple[str, bytes]]:
    topics = [plan.full for plan in plans()]  # the keyring and the agents' own topics too
    for record in asyncio.run(records(stage, topics)):
        yield (
            record.topic,
            b"\n".join([record.key or b"", record.value or b"", *(value for _, value in record.headers)]),
        )
    yield from _files(stage.state)
    yield from _metrics(stage.record.metrics)


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
