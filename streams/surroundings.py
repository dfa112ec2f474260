"""What the lanes of one process share: settings, what they tell, and how they end the process."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schemas.errors import Refused
from streams.port import Admin, Artifacts, Broker, Clock, Fault
from streams.shapes import AnyFold, Place
from streams.state import MemoryState, StateStore
from streams.wire import Decoder


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Constants of the runtime; tests shorten the waits. Times in seconds."""

    workers: int = 32  # per lane and input topic
    window: int = 512  # events in work or finished and uncommitted, per lane and input topic
    batch: int = 500
    linger_s: float = 0.02
    transactions: int = 8  # open at once in a process
    commit_bound_s: float = 10.0  # above the client's request timeout of 8
    open_bound_s: float = 60.0
    revoke_bound_s: float = 2.0  # for all that happens while partitions are taken away
    fenced_wait_s: float = 2.0  # two heartbeats
    backoff_s: float = 0.2
    backoff_max_s: float = 3.0
    retry_s: float = 3.0  # how long `Unavailable` is retried in place
    defer_s: float = 30.0
    rounds: int = 5
    tick_s: float = 1.0
    snapshot_s: float = 86_400.0  # how often a Fold's lane leaves its state in the artifact store
    touch_s: float = 1800.0  # how often a quiet Fold's lane says where it stands: Kafka compacts only what has ended
    look_s: float = 5.0  # how often lag is told and halted lanes are looked after
    drain_s: float = 5.0  # what a graceful stop waits for work to finish


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened, as data. `kind` is one of the words below, `value` a count or seconds.

    accepted committed emitted commit_s worked_s opened dropped fenced halted dead_letter refused deferred expired tick
    restoring (the share done, `text`: records read of how many) restored (seconds)
    snapshot (seconds, `text`: its digest) lag (records behind the last stable offset) state_keys closed
    stall_s (of the whole process: the longest time that its event loop was held up, of the last few seconds)
    """

    kind: str
    agent: str
    partition: int
    value: float = 1.0
    text: str = ""


Observe = Callable[[Notice], None]


class MissingOffset(Refused):
    """A group has no committed offset where it must have one."""


class AgentCrashed(Exception):
    """An agent raised what is none of the three kinds of error: the process ends, the log makes restarting safe."""

    def __init__(self, agent: str, place: str) -> None:
        super().__init__(f"{agent} crashed at {place}")
        self.agent = agent
        self.place = place


class Fatal(Protocol):
    """Told of what ends the process."""

    def __call__(self, error: BaseException, agent: str, partition: int, place: Place | None) -> None: ...


@dataclass(slots=True)
class Surroundings:
    """What the lanes of one process share."""

    broker: Broker
    admin: Admin
    clock: Clock
    settings: RuntimeSettings
    gate: asyncio.Semaphore
    decoder: Decoder
    observe: Observe
    fatal: Fatal
    fault: Fault | None
    state_dir: Path | None
    state: Callable[[AnyFold], StateStore] = MemoryState
    artifacts: Artifacts | None = None
    partitions: int = 1
