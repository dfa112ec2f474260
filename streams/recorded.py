"""A stretch of the log, held in memory, and the file it can be kept in: what a replay reads.

A file is xz-compressed JSON lines. The first names the format, partitions, the first kept offset of each partition and the groups'
committed offsets; each other line is a record. Bytes that are UTF-8 stand as text, all others as `{"base64": …}`.
"""

import base64
import json
import lzma
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas.errors import Refused, Unavailable
from schemas.topics import DAY_MS, TOPICS
from streams.port import TP, Admin, Broker
from streams.shapes import Record

FORMAT = "ratchet-log/1"
Keep = Callable[[Record], bool]
Said = Callable[[str], None]
POLL_RECORDS = 5000
KEPT = {row.full: row.kept for row in TOPICS}
COMPACTION_LAG_MS = 31 * DAY_MS


@dataclass(slots=True)
class RecordedLog:
    """Committed records by partition, in the order of their offsets.

    `starts`: the first offset that the broker still had (above 0: retention has cut what was before). `committed`: what each
    group had done when the reading began; nothing after it is expected of a Transform. `artifacts`: snapshots to begin from.
    """

    partitions: int
    starts: dict[TP, int] = field(default_factory=dict[TP, int])
    committed: dict[str, dict[TP, int]] = field(default_factory=dict[str, dict[TP, int]])
    records: dict[TP, list[Record]] = field(default_factory=dict[TP, list[Record]])
    artifacts: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def of(self, topic: str, partition: int) -> Sequence[Record]:
        return self.records.get((topic, partition), ())

    def topic(self, topic: str) -> Iterator[Record]:
        """All of a topic, partition by partition."""
        for number in range(self.partitions):
            yield from self.of(topic, number)

    def run(self, topic: str, partition: int, first: int, last: int) -> Sequence[Record]:
        """The committed records from offset `first` to `last`."""
        rows = self.of(topic, partition)
        return rows[bisect_left(rows, first, key=_offset) : bisect_left(rows, last + 1, key=_offset)]

    def start(self, tp: TP) -> int:
        return self.starts.get(tp, 0)

    def gone(self, topic: str, partition: int, at_ms: int) -> bool:
        """Whether a record written at that time may be gone by now: cut by retention, or compacted after its lag."""
        rows = self.of(topic, partition)
        if KEPT.get(topic) == "compact" and rows and at_ms < rows[-1].timestamp_ms - COMPACTION_LAG_MS:
            return True
        return self.start((topic, partition)) > 0 and (not rows or at_ms <= rows[0].timestamp_ms)

    def size(self) -> int:
        return sum(len(rows) for rows in self.records.values())


def _offset(record: Record) -> int:
    return record.offset


class Collector:
    """Reads a running broker into a `RecordedLog`, without a group and without a commit.

    `first` topics and the groups' offsets are taken before all others, so that what they tell of has been written. A
    transaction that is still open may hold back what lies behind it for its timeout: `more` reads on.
    """

    def __init__(self, broker: Broker, keep: Keep = lambda _: True, say: Said = lambda _: None) -> None:
        self._broker = broker
        self._keep = keep
        self._say = say
        self._next: dict[TP, int] = {}

    async def collect(
        self, first: Collection[str], others: Collection[str], groups: Mapping[str, Sequence[str]]
    ) -> RecordedLog:
        """Raises `BrokerError` where the broker is away, `Unavailable` where a topic is missing or offsets stay unknown."""
        admin = self._broker.admin()
        await admin.start()
        try:
            counts = await admin.partitions([*first, *others])
            missing = sorted({*first, *others} - set(counts))
            if missing:
                raise Unavailable(f"there is no topic {', '.join(missing)}: `ratchet up` creates the topics")
            log = RecordedLog(max(counts.values(), default=1))
            for group, topics in sorted(groups.items()):
                tps = [(topic, number) for topic in topics for number in range(log.partitions)]
                log.committed[group] = await admin.committed(group, tps)
                if len(log.committed[group]) < len(tps):
                    raise Unavailable(f"the broker does not know the offsets of {group} yet: try again in a moment")
            await self._read(admin, log, first)
            await self._read(admin, log, others)
        finally:
            await admin.stop()
        return log

    async def more(self, log: RecordedLog, topics: Collection[str]) -> None:
        """Add what these topics have got since."""
        admin = self._broker.admin()
        await admin.start()
        try:
            await self._read(admin, log, topics)
        finally:
            await admin.stop()

    async def _read(self, admin: Admin, log: RecordedLog, topics: Collection[str]) -> None:
        tps = [(topic, number) for topic in sorted(topics) for number in range(log.partitions)]
        starts, ends = await admin.starts(tps), await admin.ends(tps)
        for tp in tps:
            log.starts.setdefault(tp, starts[tp])
            self._next.setdefault(tp, starts[tp])
        left = {tp for tp in tps if self._next[tp] < ends[tp]}
        if not left:
            return
        reader = self._broker.reader({tp: self._next[tp] for tp in left})
        await reader.start()
        try:
            while left:
                for tp, rows in (await reader.poll(timeout_s=0.2, max_records=POLL_RECORDS)).items():
                    kept = log.records.setdefault(tp, [])
                    kept += [row for row in rows if row.offset < ends[tp] and self._keep(row)]
                for tp in list(left):
                    at = await reader.position(tp)
                    if at >= ends[tp]:
                        self._next[tp] = ends[tp]
                        left.discard(tp)
                self._say(f"read {log.size()} records, {len(left)} partitions to go")
        finally:
            await reader.stop()


def check_new(file: Path) -> None:
    """Raises `Refused` where a log cannot be written to this file, before anything is read."""
    if file.exists() or not file.parent.is_dir():
        why = "exists" if file.exists() else "has no folder"
        raise Refused(f"{file} {why}; accepted: the name of a new file in a folder", kind="usage", field="record")


def write_file(log: RecordedLog, file: Path) -> int:
    """Write the log to a new file, whole or not at all; its size. Raises `Refused` where the file exists."""
    check_new(file)
    head = {
        "format": FORMAT,
        "partitions": log.partitions,
        "starts": {f"{topic}[{number}]": at for (topic, number), at in sorted(log.starts.items()) if at},
        "committed": {
            group: {f"{topic}[{number}]": at for (topic, number), at in sorted(found.items())}
            for group, found in sorted(log.committed.items())
        },
    }
    part = file.with_name(file.name + ".part")
    try:
        with lzma.open(part, "wt", encoding="utf-8", preset=9) as out:
            out.write(_line(head))
            for tp in sorted(log.records):
                for record in log.records[tp]:
                    out.write(_line(_row(record)))
            for digest in sorted(log.artifacts):
                out.write(_line({"artifact": digest, "data": _said(log.artifacts[digest])}))
        part.rename(file)
    except OSError as fault:
        raise Refused(f"{file} cannot be written: {fault.strerror}", kind="usage", field="record") from fault
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def read_file(file: Path) -> RecordedLog:
    """Read what `write_file` wrote. Raises `Refused` that names file and line where it is anything else."""
    number = 0
    try:
        with lzma.open(file, "rt", encoding="utf-8") as lines:
            head = json.loads(next(lines, "{}"))
            if head.get("format") != FORMAT:
                raise Refused(
                    f"{file} is not a recorded log; accepted: what `ratchet replay --record` writes", kind="log"
                )
            log = RecordedLog(
                int(head["partitions"]),
                {_tp(name): int(at) for name, at in head["starts"].items()},
                {group: {_tp(tp): int(at) for tp, at in found.items()} for group, found in head["committed"].items()},
            )
            for number, line in enumerate(lines, 2):  # noqa: B007  named in the refusal below
                said = json.loads(line)
                if "artifact" in said:
                    log.artifacts[str(said["artifact"])] = _bytes(said["data"]) or b""
                    continue
                record = _record(said)
                rows = log.records.setdefault((record.topic, record.partition), [])
                _follow(rows, record)
    except FileNotFoundError:
        raise Refused(f"there is no file {file}", kind="usage", field="log") from None
    except (lzma.LZMAError, EOFError, OSError, KeyError, TypeError, ValueError, AttributeError) as fault:
        where = f"line {number}: " if number else ""
        raise Refused(f"{file} is no recorded log, or is damaged: {where}{fault}", kind="log", field="log") from fault
    return log


def _follow(rows: list[Record], record: Record) -> None:
    if rows and rows[-1].offset >= record.offset:
        raise ValueError(f"{record.place} comes after offset {rows[-1].offset}")
    rows.append(record)


def _line(said: Mapping[str, Any]) -> str:
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")) + "\n"


def _row(record: Record) -> dict[str, Any]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at_ms": record.timestamp_ms,
        "key": _said(record.key),
        "value": _said(record.value),
        "headers": [[name, _said(value)] for name, value in record.headers],
    }


def _record(row: Mapping[str, Any]) -> Record:
    headers = tuple((str(name), _bytes(value) or b"") for name, value in row["headers"])
    place = (str(row["topic"]), int(row["partition"]), int(row["offset"]))
    return Record(*place, _bytes(row["key"]), _bytes(row["value"]), headers, int(row["at_ms"]))


def _said(data: bytes | None) -> str | dict[str, str] | None:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes(said: Any) -> bytes | None:
    if said is None:
        return None
    return said.encode() if isinstance(said, str) else base64.b64decode(said["base64"], validate=True)


def _tp(name: str) -> TP:
    topic, _, number = name.partition("[")
    return topic, int(number.removesuffix("]"))
