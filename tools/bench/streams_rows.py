"""Throughput of `ratchet bench streams`: raw loops and ours, row by row, in interleaved rounds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.clock import SystemClock
from streams import raw
from streams.lane import RuntimeSettings
from streams.port import Outgoing
from streams.shapes import Emit, Record
from streams.wire import cause_of, decode, outgoing
from tools.bench import Say
from tools.bench.streams_base import TARGET, Copy, Count, Field, Meter, Source, judged

Kind = Literal["consume", "at-least-once", "one id", "id per partition", "transform", "fold"]
MEASURES = ("events_per_s", "cpu_us_per_event", "broker_us_per_event", "stall_ms", "events_per_transaction")
SHIPPED = RuntimeSettings()


@dataclass(frozen=True, slots=True)
class Spec:
    """One row. `batch` 0: the runtime's own settings."""

    kind: Kind
    batch: int
    calls: raw.Calls = "batch"
    codec: bool = False

    @property
    def ours(self) -> bool:
        return self.kind in ("transform", "fold")

    @property
    def name(self) -> str:
        codec = ", codec" if self.codec else ""
        if self.ours:
            return f"{self.kind} {self.batch or 'shipped'}{codec}"
        if self.kind == "consume":
            return f"raw consume {self.batch}"
        return f"raw {self.kind}, {self.calls} calls {self.batch}{codec}"


def specs(batches: Sequence[int]) -> list[Spec]:
    """Every row."""
    rows = [Spec("consume", batches[-1])]
    calls: tuple[raw.Calls, ...] = ("record", "batch")
    for batch in batches:
        kinds: tuple[Kind, ...] = ("at-least-once", "one id", "id per partition")
        rows += [Spec(kind, batch, call) for kind in kinds for call in calls]
        rows += [Spec("id per partition", batch, call, codec=True) for call in calls]
        shapes: tuple[Kind, ...] = ("transform", "fold")
        rows += [Spec(shape, batch, codec=codec) for shape in shapes for codec in (False, True)]
    return [*rows, Spec("transform", 0, codec=True), Spec("fold", 0, codec=True)]


@dataclass(slots=True)
class Row:
    """What the rounds of one row gave."""

    spec: Spec
    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    lost: int = 0
    duplicated: int = 0

    def median(self, name: str) -> float:
        return statistics.median(row[name] for row in self.rounds)

    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = {"row": self.spec.name}
        found |= {name: round(self.median(name), 2) for name in MEASURES if name in self.rounds[0]}
        found["stall_ms"] = max(row["stall_ms"] for row in self.rounds)
        found["rounds_events_per_s"] = [row["events_per_s"] for row in self.rounds]
        return found if self.spec.kind == "consume" else found | {"lost": self.lost, "duplicated": self.duplicated}


async def throughput(
    on: Field, events: int, partitions: int, rounds: int, batches: Sequence[int], say: Say
) -> list[Row]:
    """Every row, `rounds` times, each other round backwards; what is lost or twice counted after each run, outside the time."""
    source = await on.fill("flood", partitions, events)
    rows = [Row(spec) for spec in specs(batches)]
    warm = await on.fill("warm", partitions, min(events, 1000 * partitions))
    for spec in (Spec("id per partition", batches[0], "record"), Spec("transform", batches[0], codec=True)):
        await _measure(on, Row(spec), warm)
    for number in range(rounds):
        say(f"throughput: round {number + 1} of {rounds}, {len(rows)} rows of {events} events")
        for row in rows if number % 2 == 0 else reversed(rows):
            row.rounds.append(await _measure(on, row, source))
    return rows


async def _measure(on: Field, row: Row, source: Source) -> dict[str, float]:
    spec, starts = row.spec, await on.ends(source.partitions)
    found = await (_ours(on, spec, source) if spec.ours else _raw(on, spec, source))
    if spec.kind != "consume":
        counted = judged(source.ids, await on.since(starts, source.events))
        row.lost += counted["lost"]
        row.duplicated += counted["duplicated"]
    return found


async def _raw(on: Field, spec: Spec, source: Source) -> dict[str, float]:
    work = _codec(source.partitions) if spec.codec else None
    job = raw.Job(
        on.bootstrap, source.topic, TARGET, source.partitions, source.events, spec.batch, on.name("raw"), work
    )
    async with Meter(on.process) as meter:
        if spec.kind == "consume":
            await raw.consume(job, meter)
        elif spec.kind == "at-least-once":
            await raw.at_least_once(job, meter, spec.calls)
        else:
            await raw.transactional(job, meter, spec.calls, "one" if spec.kind == "one id" else "each")
    return meter.row(source.events)


def _codec(partitions: int) -> raw.Work:
    """What our runtime does to an event: decode, validate, derive, encode."""
    clock = SystemClock()

    def work(record: Record) -> Outgoing:
        event = decode(record, partitions)
        rows = outgoing((Emit(event.data),), cause_of(event), agent="raw", partitions=partitions, now_ms=clock.now_ms)
        return rows[0].record

    return work


async def _ours(on: Field, spec: Spec, source: Source) -> dict[str, float]:
    name = on.name(spec.kind)
    await on.join(name, spec.kind, source)
    make = Copy if spec.kind == "transform" else Count
    meter, told = await on.run(
        make(name, source.topic, codec=spec.codec), source, settings(spec.batch), codec=spec.codec
    )
    return meter.row(source.events) | {"events_per_transaction": round(source.events / told.transactions, 1)}


def settings(batch: int) -> RuntimeSettings:
    """Transactions of `batch` events: the linger does not cut them short. 0: as shipped."""
    return RuntimeSettings(batch=batch, window=2 * batch, linger_s=0.5) if batch else SHIPPED


def ratios(rows: Sequence[Row], batches: Sequence[int]) -> list[dict[str, Any]]:
    """Ours over the raw loops with one id per partition, by events per second and by CPU per event."""
    by = {row.spec: row for row in rows}
    found: list[dict[str, Any]] = []
    for shape in ("transform", "fold"):
        for batch in batches:
            for calls in ("record", "batch"):
                for codec, against in ((False, False), (True, True), (True, False)):
                    ours = by[Spec(shape, batch, codec=codec)]
                    yard = by[Spec("id per partition", batch, calls, codec=against)]
                    found.append(
                        {
                            "shape": shape,
                            "batch": batch,
                            "against": f"{calls} calls",
                            "codec": "ours alone" if codec and not against else "both" if codec else "neither",
                            "wall": round(ours.median("events_per_s") / yard.median("events_per_s"), 3),
                            "cpu": round(yard.median("cpu_us_per_event") / ours.median("cpu_us_per_event"), 3),
                        }
                    )
    return found
