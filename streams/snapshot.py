"""A lane's whole state as one artifact: what a replay starts from instead of the log's beginning.

The same state gives the same bytes: a first line of JSON (`agent`, `partition`, `position`), then one line per changelog row, sorted by
key: the key as a JSON string, the due time or nothing, the value as it stands in the changelog; tabs between them.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from schemas.errors import Undecodable
from schemas.topics import state_topic
from streams.order import Position
from streams.port import Outgoing
from streams.shapes import Headers, Record
from streams.state import DUE, VERSION

BEGINS = b'{"agent": "'
"""How every snapshot begins, and nothing else in the artifact store: what is canonical has no space there."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot holds. Each row can be given to `StateStore.load`; call `settle` after the last."""

    agent: str
    partition: int
    position: Position
    rows: Iterable[Record]


def head(agent: str, partition: int, position: Position) -> bytes:
    said = {"agent": agent, "partition": partition, "position": position.said()}
    return json.dumps(said, sort_keys=True).encode() + b"\n"


def line(row: Outgoing) -> bytes:
    """One changelog row. Its value is JSON as our encoder writes it: no raw tab or newline is in it."""
    due = next((value for name, value in row.headers if name == DUE), b"")
    return b"%b\t%b\t%b\n" % (json.dumps((row.key or b"").decode()).encode(), due, row.value or b"null")


def decode(data: bytes) -> Snapshot:
    """Read a snapshot whole. Undecodable names the line that is none."""
    first, *rest = data.split(b"\n")
    try:
        said = json.loads(first)
        agent, partition, position = str(said["agent"]), int(said["partition"]), Position.read(said["position"])
    except (ValueError, KeyError, TypeError):
        raise Undecodable("line 1 is not a snapshot's", kind="snapshot", field="1", accepted="JSON") from None
    if rest[-1:] != [b""]:
        raise Undecodable("a snapshot that ends in the middle of a line", kind="snapshot", field=str(len(rest)))
    return Snapshot(agent, partition, position, list(_records(agent, partition, position.version, rest[:-1])))


def _records(agent: str, partition: int, version: int, lines: Iterable[bytes]) -> Iterator[Record]:
    mark: Headers = () if version == 1 else ((VERSION, str(version).encode()),)
    for number, text in enumerate(lines):
        try:
            name, due, value = text.split(b"\t")
            key = str(json.loads(name)).encode()
            headers = mark if not due else ((DUE, str(int(due)).encode()), *mark)
        except ValueError:
            raise Undecodable(
                f"line {number + 2} is not a row", kind="snapshot", field=str(number + 2), accepted="key, due, value"
            ) from None
        yield Record(state_topic(agent), partition, number, key, value, headers, 0)
