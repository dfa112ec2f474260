"""The order topic of a Fold: what its lane took in which order, so that a replay needs no guess.

One record per line of history, key: the partition number, value JSON, written in the lane's transactions:

* `[[topic, first, last], …]`: the runs that a transaction folded, one after the other. `["~tick", ms, ms]` is a tick. Offsets
  between first and last that hold no committed record of the topic (markers, aborted ones) were not folded.
* `{"snapshot": "sha256:…", "position": {"next": {topic: offset}, "tick": ms, "version": n}, "at": ms}`: what had been folded by the
  records before this one, and nothing after, is the state in the artifact of that digest (`streams.snapshot`). A replay may
  start here: read the state, then go on with the next record.
* `{"skip": [topic, offset], "at": ms}`: `ratchet dlq skip` made a dead letter of that record instead of folding it, or
  `ratchet offsets` went on behind it; what was not folded changed no state.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.errors import Undecodable

TICK = "~tick"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a lane's state stands: the next offset of every input, the last tick's time, the version of the state."""

    following: Mapping[str, int]
    tick_ms: int = 0
    version: int = 1

    @staticmethod
    def of(value: bytes | None) -> "Position":
        """Read `~position`. A changelog that says no version is of version 1."""
        return Position.read(json.loads(value or b"{}"))

    @staticmethod
    def read(said: Mapping[str, Any]) -> "Position":
        return Position(said.get("next", {}), int(said.get("tick", 0)), int(said.get("version", 1)))

    def said(self) -> dict[str, Any]:
        """As JSON; version 1 is left out."""
        found: dict[str, Any] = {"next": dict(self.following), "tick": self.tick_ms}
        if self.version != 1:
            found["version"] = self.version
        return found

    def encode(self) -> bytes:
        return json.dumps(self.said(), sort_keys=True).encode()


@dataclass(frozen=True, slots=True)
class Run:
    """Records `first` to `last` of an input, or a tick (`topic` is `~tick`, both are its time)."""

    topic: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The state at this point lies in the artifact store."""

    digest: str
    position: Position
    at_ms: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that became a dead letter by an operator's hand."""

    topic: str
    offset: int
    at_ms: int


def encode_runs(runs: Sequence[Sequence[str | int]]) -> bytes:
    return json.dumps(runs).encode()


def encode_snapshot(taken: SnapshotTaken) -> bytes:
    said = {"snapshot": taken.digest, "position": taken.position.said(), "at": taken.at_ms}
    return json.dumps(said, sort_keys=True).encode()


def encode_skip(skipped: Skipped) -> bytes:
    return json.dumps({"skip": [skipped.topic, skipped.offset], "at": skipped.at_ms}, sort_keys=True).encode()


def decode_order(value: bytes | None) -> list[Run | SnapshotTaken | Skipped]:
    """What one order record says. Undecodable where it is none of the three."""
    try:
        said = json.loads(value or b"null")
        if isinstance(said, list):
            return [Run(str(topic), int(first), int(last)) for topic, first, last in said]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if "snapshot" in said:
            return [SnapshotTaken(str(said["snapshot"]), Position.read(said["position"]), int(said["at"]))]
        return [Skipped(str(said["skip"][0]), int(said["skip"][1]), int(said["at"]))]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise Undecodable(
            "not an order record", kind="order", field="value", accepted="runs, a snapshot or a skip"
        ) from None
