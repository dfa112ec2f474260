"""Real events on their way into the log: models, records, entries, as agents, broker and collector make them."""

import json
import types
import typing
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from agents.evidence import coverage
from agents.evidence.building import built, items
from agents.evidence.ports import Frontier, Gap, Read, Reset, Source
from schemas import codec, ids, topics
from schemas.payload import Payload
from streams.shapes import Record

KEY = bytes(range(32))
AT_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
M = TypeVar("M", bound=BaseModel)
_PLAIN: dict[Any, Any] = {int: 1, str: "x", float: 0.5, bool: False}
_PATTERNS = {"{32}": "0f" * 16, "{64}": "0f" * 32}


def complete(model: type[M], **said: Any) -> M:
    """An event with what is said, and something plain in every other field that it must have."""
    fields: dict[str, Any] = dict(said)
    for name, row in model.model_fields.items():
        if row.is_required() and name not in fields:
            pattern = next((item.pattern for item in row.metadata if getattr(item, "pattern", None)), "")
            known = next((value for part, value in _PATTERNS.items() if part in pattern), None)
            fields[name] = known if known is not None else _plain(row.annotation)
    return model.model_validate(fields)


class OneKey:
    """The same for every tenant."""

    def commitment_key(self, tenant: str) -> bytes:
        return KEY

    pseudonym_key = commitment_key


def _plain(annotation: Any) -> Any:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Literal:
        return inside[0]
    if origin in (types.UnionType, typing.Union):
        return None if types.NoneType in inside else _plain(inside[0])
    if origin is dict:
        return {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return complete(annotation)
    assert origin is tuple, annotation
    return ()


def uuid(name: str) -> str:
    """The id of an event by this name."""
    return ids.derive("test", name, 0)


@dataclass
class Loop:
    """What every topic holds, as a reader tells it, in the order in which the log takes it."""

    reads: list[Read] = field(default_factory=list[Read])
    offsets: Counter[Source] = field(default_factory=Counter[Source])
    cuts: list[int] = field(default_factory=list[int])

    def say(
        self, payload: Payload, name: str = "", *, at_ms: int | None = None, without: Collection[str] = ()
    ) -> Record:
        """Publish an event under the id of `name`; `without`: fields that its writer did not know yet."""
        event_id = uuid(name or f"event-{len(self.reads)}")
        made = codec.encode(payload, event_id=event_id, source="ratchet/test", traceparent="")
        value = {name: item for name, item in json.loads(made.value).items() if name not in without}
        topic = topics.full(payload.TOPIC)
        return self.put(topic, made.key, json.dumps(value).encode(), made.headers, at_ms=at_ms)

    def put(
        self, topic: str, key: bytes, value: bytes, headers: tuple[tuple[str, bytes], ...], at_ms: int | None = None
    ) -> Record:
        """Any record at all."""
        source = topic, 0
        at = AT_MS + len(self.reads) if at_ms is None else at_ms
        record = Record(topic, 0, self.offsets[source], key, value, headers, at)
        self.offsets[source] += 1
        self.reads.append(record)
        return record

    def gap(self, topic: str, kind: str) -> None:
        """An offset is no record."""
        source = topics.full(topic), 0
        self.reads.append(Gap(*source, self.offsets[source], self.offsets[source], kind))
        self.offsets[source] += 1

    def reset(self, topic: str) -> None:
        """The topic is made anew."""
        source = topics.full(topic), 0
        self.reads.append(Reset(*source, self.offsets[source]))
        self.offsets[source] = 0

    def close(self) -> None:
        """The batch ends here: findings about it, and its coverage, stand before what follows."""
        self.cuts.append(len(self.reads))

    def entries(self) -> list[bytes]:
        """The log of it, as the collector writes it. Requests here are about nobody."""
        frontiers = {source: Frontier(0, 0) for source in self.offsets}
        edges = sorted({0, *self.cuts, len(self.reads)})
        return [entry for low, high in pairwise(edges) for entry in _batch(self.reads[low:high], frontiers)]


def _batch(reads: Sequence[Read], frontiers: dict[Source, Frontier]) -> list[bytes]:
    batch = coverage.Batch(dict(frontiers))
    for read in reads:
        batch.add(read)
    frontiers.update(batch.next())
    made = built(items(batch.records, OneKey()), OneKey(), {})
    return made.entries + made.findings + batch.closing(made.tenants, full=True)
