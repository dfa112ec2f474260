"""The recorded log of the repository, and ways to change it.

`tests/data/recorded/loop.xz` was written by `python tests/support/replay_scenario.py tests/data/recorded/loop.xz 24`.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from streams.difference import Rederived
from streams.recorded import RecordedLog, read_file
from streams.replay import Window
from streams.shapes import Record
from tools.cli.replay import replay_log

LOOP = Path(__file__).resolve().parents[1] / "data" / "recorded" / "loop.xz"
Change = Callable[[Record], Iterable[Record]]


def again(log: RecordedLog, *agents: str, window: Window | None = None) -> list[Rederived]:
    return asyncio.run(replay_log(log, agents, window or Window()))


def changed(change: Change) -> RecordedLog:
    """The recorded log with every record put through `change`."""
    log = read_file(LOOP)
    made = RecordedLog(log.partitions, log.starts, log.committed)
    made.artifacts |= log.artifacts
    made.add(row for old in log.all() for row in change(old))
    return made


BOUND = b'"session":"'  # what else was decided for it cannot be known without its decision


def one(topic: str, change: Change, ce_type: str = "", *, but: bytes = b"", having: bytes = b"") -> Change:
    """A change of the first record of a topic (and type) only: one that has these bytes, is not of the key `but`, and whose decision no
    session bound."""
    done: list[Record] = []

    def apply(record: Record) -> Iterable[Record]:
        said = dict(record.headers).get("ce_type", b"").decode()
        value = record.value or b""
        if (
            done
            or record.topic != topic
            or ce_type not in said
            or record.key == but
            or BOUND in value
            or having not in value
        ):
            return (record,)
        done.append(record)
        return change(record)

    return apply


def put(*path: str | int, value: Any) -> Change:
    """Another value at a path of the payload."""

    def apply(record: Record) -> Sequence[Record]:
        data = json.loads(record.value or b"")
        at = data
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        return (replace(record, value=text.encode()),)

    return apply


def headed(name: str, value: bytes) -> Change:
    """Another value of one header."""

    def apply(record: Record) -> Sequence[Record]:
        headers = tuple((key, value if key == name else old) for key, old in record.headers)
        return (replace(record, headers=headers),)

    return apply
