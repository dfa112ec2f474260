"""A stretch of the log, held on disk, and the file it can be kept in: what a replay reads.

A file is xz-compressed JSON lines. The first names the format, partitions, the first kept offset of each partition and the groups'
committed offsets; each other line is a record. Bytes that are UTF-8 stand as text, all others as `{"base64": …}`.
"""

import asyncio
import base64
import json
import lzma
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import Refused, Unavailable
from schemas.topics import DAY_MS, TOPICS
from streams.difference import cause_at, written_by
from streams.port import TP, Admin, Broker
from streams.shapes import Record

FORMAT = "ratchet-log/1"
Keep = Callable[[Record], bool]
Said = Callable[[str], None]
POLL_RECORDS = 5000
LOADING_TRIES = 20
LOADING_WAIT_S = 0.5
CACHE_KIB = 32 * 1024
KEPT = {row.full: row.kept for row in TOPICS}
COMPACTION_LAG_MS = 31 * DAY_MS
TABLES = """
CREATE TABLE records (topic TEXT, number INT, at INT, at_ms INT, key BLOB, value BLOB, headers TEXT, agent TEXT, cause TEXT);
CREATE UNIQUE INDEX places ON records (topic, number, at);
CREATE INDEX outputs ON records (agent, cause) WHERE agent <> '';
"""
ROW = "SELECT topic, number, at, key, value, headers, at_ms FROM records "


def scratch() -> sqlite3.Connection:
    """A database without a name, in the folder for temporary files: gone when it is closed. It holds 32 MiB in memory."""
    found = sqlite3.connect("", isolation_level=None)
    found.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{CACHE_KIB}")
    return found


class RecordedLog:
    """Committed records by partition, in the order of their offsets, on disk.

    `starts`: the first offset that the broker still had (above 0: retention has cut what was before). `committed`: what each
    group had done when the reading began; nothing after it is expected of a Transform. `artifacts`: snapshots to begin from.
    """

    def __init__(
        self,
        partitions: int,
        starts: Mapping[TP, int] | None = None,
        committed: Mapping[str, Mapping[TP, int]] | None = None,
    ) -> None:
        self.partitions = partitions
        self.starts: dict[TP, int] = dict(starts or {})
        self.committed: dict[str, dict[TP, int]] = {group: dict(found) for group, found in (committed or {}).items()}
        self.artifacts: dict[str, bytes] = {}
        self._rows = scratch()
        self._rows.executescript(TABLES)

    def add(self, records: Iterable[Record]) -> None:
        """Raises `ValueError` where a place is there already."""
        try:
            self._rows.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", map(_packed, records))
        except sqlite3.IntegrityError as fault:
            raise ValueError(f"a record that is there already: {fault}") from fault
        except sqlite3.OperationalError as fault:
            raise Unavailable(
                f"no room for the log in the folder for temporary files ({fault}): TMPDIR names another"
            ) from fault

    def of(self, topic: str, partition: int, first: int = 0) -> Iterator[Record]:
        """A partition's records from offset `first` on."""
        where = "WHERE topic = ? AND number = ? AND at >= ? ORDER BY at"
        return self._read(where, topic, partition, first)

    def topic(self, topic: str) -> Iterator[Record]:
        """All of a topic, partition by partition."""
        return self._read("WHERE topic = ? ORDER BY number, at", topic)

    def all(self) -> Iterator[Record]:
        return self._read("ORDER BY topic, number, at")

    def run(self, topic: str, partition: int, first: int, last: int) -> Sequence[Record]:
        """The committed records from offset `first` to `last`."""
        return list(
            self._read(
                "WHERE topic = ? AND number = ? AND at BETWEEN ? AND ? ORDER BY at", topic, partition, first, last
            )
        )

    def outputs(self, agent: str, cause: str) -> Sequence[Record]:
        """What an agent has written because of the record at a place."""
        return list(
            self._read("WHERE agent = ? AND cause = ? AND agent <> '' ORDER BY topic, number, at", agent, cause)
        )

    def letters(self, agent: str, topic: str, partition: int) -> Iterator[Record]:
        """An agent's dead letters of the records of one partition."""
        found = self._read("WHERE topic = ? AND agent = ? ORDER BY number, at", topic + ".dlq", agent)
        return (row for row in found if cause_at(row.topic, row.headers).startswith(f"{topic}[{partition}]@"))

    def start(self, tp: TP) -> int:
        return self.starts.get(tp, 0)

    def begins_ms(self, tp: TP) -> int | None:
        """When the first record was written that is there."""
        return self._one("SELECT at_ms FROM records WHERE topic = ? AND number = ? ORDER BY at LIMIT 1", *tp)

    def ends_ms(self, tp: TP) -> int | None:
        return self._one("SELECT at_ms FROM records WHERE topic = ? AND number = ? ORDER BY at DESC LIMIT 1", *tp)

    def gone(self, topic: str, partition: int, at_ms: int) -> bool:
        """Whether a record written at that time may be gone by now: cut by retention, or compacted after its lag."""
        tp = (topic, partition)
        ends_ms = self.ends_ms(tp)
        if KEPT.get(topic) == "compact" and ends_ms is not None and at_ms < ends_ms - COMPACTION_LAG_MS:
            return True
        begins_ms = self.begins_ms(tp)
        return self.start(tp) > 0 and (begins_ms is None or at_ms <= begins_ms)

    def size(self, topics: Collection[str] | None = None) -> int:
        """How many records there are, of all topics or of these."""
        if topics is None:
            return self._one("SELECT count(*) FROM records") or 0
        return sum(self._one("SELECT count(*) FROM records WHERE topic = ?", topic) or 0 for topic in topics)

    def _read(self, where: str, *given: str | int) -> Iterator[Record]:
        for topic, number, at, key, value, headers, at_ms in self._rows.execute(ROW + where, given):
            yield Record(topic, number, at, key, value, _headers(headers), at_ms)

    def _one(self, query: str, *given: str | int) -> int | None:
        found = self._rows.execute(query, given).fetchone()
        return None if found is None else int(found[0])


def _packed(record: Record) -> tuple[Any, ...]:
    headers = json.dumps([[name, value.decode("latin-1")] for name, value in record.headers])
    agent = written_by(record)
    cause = cause_at(record.topic, record.headers) if agent else ""
    place = (record.topic, record.partition, record.offset, record.timestamp_ms)
    return (*place, record.key, record.value, headers, agent, cause)


def _headers(text: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(text))


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
        self._read_so_far = 0

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
                log.committed[group] = await _committed(admin, group, tps)
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
                    kept = [row for row in rows if row.offset < ends[tp] and self._keep(row)]
                    log.add(kept)
                    self._read_so_far += len(kept)
                for tp in list(left):
                    at = await reader.position(tp)
                    if at >= ends[tp]:
                        self._next[tp] = ends[tp]
                        left.discard(tp)
                self._say(f"read {self._read_so_far} records, {len(left)} partitions to go")
        finally:
            await reader.stop()


async def _committed(admin: Admin, group: str, tps: Collection[TP]) -> dict[TP, int]:
    """A broker that has just started does not know them for a while."""
    for _ in range(LOADING_TRIES):
        found = await admin.committed(group, tps)
        if len(found) == len(tps):
            return found
        await asyncio.sleep(LOADING_WAIT_S)
    raise Unavailable(f"the broker does not know the offsets of {group} yet: try again in a moment")


def check_new(file: Path) -> None:
    """Raises `Refused` where a log cannot be written to this file, before anything is read."""
    if file.exists() or not file.parent.is_dir():
        why = "exists" if file.exists() else "has no folder"
        raise Refused(f"{file} {why}; accepted: the name of a new file in a folder", kind="usage", field="record")


def write_file(log: RecordedLog, file: Path) -> int:
    """Write the log to a new file, whole or not at all, for its owner's eyes: it holds customers' text. Returns its size.

    Raises `Refused` where the file exists.
    """
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
        part.unlink(missing_ok=True)  # of a run that was killed
        part.touch(0o600, exist_ok=False)
        with lzma.open(part, "wt", encoding="utf-8", preset=6) as out:
            out.write(_line(head))
            for record in log.all():
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
                log.add((_record(said),))
    except FileNotFoundError:
        raise Refused(f"there is no file {file}", kind="usage", field="log") from None
    except (lzma.LZMAError, EOFError, OSError, KeyError, TypeError, ValueError, AttributeError) as fault:
        where = f"line {number}: " if number else ""
        raise Refused(f"{file} is no recorded log, or is damaged: {where}{fault}", kind="log", field="log") from fault
    return log


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
