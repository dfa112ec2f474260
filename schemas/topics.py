"""The topics table: key and retention. Topics and the AsyncAPI document are made from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PREFIX = "ratchet."
DAY_MS = 86_400_000
LONGEST_OUTAGE_MS = 31 * DAY_MS  # what topics of texts keep: who was away for longer has lost records anyway
Kept = Literal["time", "long", "compact"]
# What an erased key's record may still be read for is `segment.ms` + `max.compaction.lag.ms`; a reader that was away for less than
# `delete.retention.ms` misses no removal. The longest outage that is allowed is what topics of `time` keep.
KEYRING: dict[str, str] = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": str(DAY_MS),
    "segment.ms": str(DAY_MS),
    "delete.retention.ms": str(32 * DAY_MS),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """One row of the table. `name` is without prefix; `kept`: `time` (31 days), `long` (400 days) or `compact`.

    `recorded` topics go into the evidence log; `dead_letters` says whether the topic has a `.dlq`.
    """

    name: str
    key: str
    kept: Kept
    recorded: bool = True
    dead_letters: bool = True

    @property
    def full(self) -> str:
        return PREFIX + self.name

    @property
    def dlq(self) -> str:
        return self.full + ".dlq"


TOPICS: tuple[Topic, ...] = (
    Topic("requests", "request id", "time"),
    Topic("decisions", "request id", "time"),
    Topic("shadows", "request id", "time"),
    Topic("results", "request id", "time"),
    Topic("scores", "request id", "time"),
    Topic("answers", "request id", "time"),
    Topic("reviews", "request id", "time"),
    Topic("verdicts", "request id", "time"),
    Topic("cases", "route", "time"),
    Topic("policies", "kind/route, gate/tenant or live/instance", "compact"),
    Topic("promotions", "route", "long"),
    Topic("training", "route", "long"),
    Topic("commands", "route, else tenant", "long"),
    Topic("observations", "tenant", "long"),
    Topic("audit", "tenant", "long", recorded=False),
    Topic("keyring", "tenant/subject", "compact", recorded=False, dead_letters=False),
)
BY_NAME = {topic.name: topic for topic in TOPICS}
TRANSFORMS = ("router", "inference", "trust", "jobs", "grader", "shredder")
# A proof counts by when a record was written: what outsiders write has the broker's time, not the one that they claim.
SPOKEN = frozenset({"requests", "verdicts", "commands"})
FOLDS = ("cases", "ladder", "judge", "trainer", "estimator", "learner", "compliance")


def full(topic: str) -> str:
    """`requests` or `ratchet.requests` as the broker knows it."""
    return topic if topic.startswith(PREFIX) else PREFIX + topic


def state_topic(agent: str) -> str:
    """The changelog of a Fold's state (compacted, internal)."""
    return f"{PREFIX}{agent}.state"


def order_topic(agent: str) -> str:
    """In what order a Fold took its inputs (internal)."""
    return f"{PREFIX}{agent}.order"


def deferred_topic(agent: str) -> str:
    """Events a Transform will try again later (internal)."""
    return f"{PREFIX}{agent}.deferred"


def dlq_of(full: str) -> str:
    """The dead-letter topic of a full topic name; a deferred topic's letters are its source's (see the header)."""
    return full + ".dlq"


def recorded() -> tuple[str, ...]:
    """Full names of every topic whose records become evidence, dead letters included."""
    rows = [topic for topic in TOPICS if topic.recorded]
    return tuple(topic.full for topic in rows) + tuple(topic.dlq for topic in rows if topic.dead_letters)


def with_texts() -> tuple[str, ...]:
    """Full names of every topic by which texts of requests or answers are kept: what is kept by time, their letters, what agents
    parked, and the states of Folds, for cases hold texts and the trainer digests of them. Snapshots of these states lie in the
    artifact store for as long as the order topics name them. Training's topic names rows by digests, and policies are nobody's data."""
    rows = [topic for topic in TOPICS if topic.kept == "time"]
    letters = tuple(topic.dlq for topic in rows if topic.dead_letters)
    folded = (*map(state_topic, FOLDS), *with_snapshots())
    return (*(topic.full for topic in rows), *letters, *map(deferred_topic, TRANSFORMS), *folded)


def with_snapshots() -> tuple[str, ...]:
    """Full names of the topics that name snapshots of Folds' states: a snapshot that none of them names any more serves nobody."""
    return tuple(map(order_topic, FOLDS))


def compacted() -> frozenset[str]:
    """Full names of the topics whose older records the broker removes: of these alone offsets may be missing without a loss."""
    return frozenset(topic.full for topic in TOPICS if topic.kept == "compact")


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as the broker shall have it."""

    full: str
    config: dict[str, str]


def plans(*, time_days: int = 31, long_days: int = 400) -> Iterator[TopicPlan]:
    """Every topic to create: the table, its dead letters, and the agents' internal topics."""
    time_ms, long_ms = str(time_days * DAY_MS), str(long_days * DAY_MS)

    def retention(kept: Kept) -> dict[str, str]:
        if kept == "compact":
            return {"cleanup.policy": "compact", "min.compaction.lag.ms": time_ms}
        return {"cleanup.policy": "delete", "retention.ms": time_ms if kept == "time" else long_ms}

    for topic in TOPICS:
        if topic.name == "keyring":
            yield TopicPlan(topic.full, KEYRING)
            continue
        stamped = {"message.timestamp.type": "LogAppendTime"} if topic.name in SPOKEN else {}
        yield TopicPlan(topic.full, retention(topic.kept) | stamped)
        if topic.dead_letters:
            kept: Kept = "long" if topic.kept == "long" else "time"
            yield TopicPlan(topic.dlq, retention(kept) | {"max.message.bytes": str(1_048_588 + 65_536)})
    # States hold texts of cases for as long as those are open, and nothing is removed of a segment that is not compacted.
    compact = {"cleanup.policy": "compact", "max.compaction.lag.ms": str(7 * DAY_MS)}
    for agent in (*FOLDS, "evidence"):
        yield TopicPlan(state_topic(agent), compact)
    for agent in FOLDS:
        yield TopicPlan(order_topic(agent), retention("time"))
    for agent in TRANSFORMS:
        yield TopicPlan(deferred_topic(agent), retention("time") | {"max.message.bytes": str(1_048_588 + 65_536)})
