"""Topics and consumer groups as the topics table says: made once, checked ever after; lag; is the cluster there."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from schemas.errors import Refused, Unavailable
from schemas.topics import TopicPlan, plans
from streams.kafka import KafkaBroker
from streams.port import NONE, TP, Admin, BrokerError, Denied, TopicSpec
from streams.security import PLAINTEXT, Security

BATCH = 20


@asynccontextmanager
async def _admin(bootstrap: str, given: Admin | None, security: Security) -> AsyncGenerator[Admin]:
    """A started admin; a broker that is away is `Unavailable`, one that lets us not in or not do it is `Refused`."""
    admin = given if given is not None else KafkaBroker(bootstrap, security).admin()
    try:
        if given is None:
            await admin.start()
        yield admin
    except Denied as error:
        raise Refused(str(error), kind="forbidden") from error
    except BrokerError as error:
        raise Unavailable(f"no Kafka broker answers at {bootstrap}: {error}") from error
    finally:
        if given is None:
            await admin.stop()


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What `ensure_topics` made, and what was there already."""

    created: tuple[str, ...]
    kept: tuple[str, ...]


async def ensure_topics(
    bootstrap: str,
    partitions: int,
    replication: int,
    *,
    wanted: Sequence[TopicPlan] | None = None,
    admin: Admin | None = None,
    security: Security = PLAINTEXT,
) -> TopicReport:
    """Create what is missing. Safe to repeat. Refused, naming every topic at once, where one differs from the table.

    A difference is the partition count, or a configuration that the table names.
    """
    specs = specs_of(list(plans()) if wanted is None else wanted, partitions, replication)
    async with _admin(bootstrap, admin, security) as known:
        names = [spec.name for spec in specs]
        counts = await known.partitions(names)
        missing = [spec for spec in specs if spec.name not in counts]
        for first in range(0, len(missing), BATCH):
            await known.create(missing[first : first + BATCH])
        await _created(known, {spec.name: partitions for spec in missing})
        configs = await known.configs(list(counts)) if counts else {}
        wrong = [
            f"{spec.name}: {problem}"
            for spec in specs
            if spec.name in counts
            for problem in _differences(spec, counts[spec.name], configs.get(spec.name, {}))
        ]
    if wrong:
        raise Refused("topics differ from the table:\n  " + "\n  ".join(sorted(wrong)), kind="topics-differ")
    return TopicReport(tuple(spec.name for spec in missing), tuple(sorted(counts)))


def specs_of(wanted: Sequence[TopicPlan], partitions: int, replication: int) -> list[TopicSpec]:
    """The topics as they are to be on this cluster. With three replicas a record counts as kept when two have it."""
    config = {"min.insync.replicas": "2"} if replication >= 3 else {}
    return [TopicSpec(row.full, partitions, replication, row.config | config) for row in wanted]


async def topic_problems(admin: Admin, specs: Sequence[TopicSpec]) -> list[str]:
    """All that differs from the table, each with what is and what should be: existence, partitions, replicas, settings."""
    names = [spec.name for spec in specs]
    counts = await admin.partitions(names)
    configs = await admin.configs(list(counts)) if counts else {}
    replicas = await admin.replication(list(counts)) if counts else {}
    problems: list[str] = []
    for spec in specs:
        if spec.name not in counts:
            problems.append(f"{spec.name} is missing")
            continue
        found = _differences(spec, counts[spec.name], configs.get(spec.name, {}))
        if replicas[spec.name] < spec.replication:
            found.append(f"{replicas[spec.name]} replicas, wanted {spec.replication}")
        problems += [f"{spec.name}: {problem}" for problem in found]
    return problems


async def _created(admin: Admin, wanted: Mapping[str, int]) -> None:
    """Wait until the brokers tell of every new topic: creation is answered before it is known everywhere."""
    for _ in range(100):
        if not wanted or await admin.partitions(list(wanted)) == dict(wanted):
            return
        await _pause()
    raise Unavailable("the broker does not tell of the topics it has created")


def _differences(spec: TopicSpec, partitions: int, config: Mapping[str, str]) -> list[str]:
    found = [f"{partitions} partitions, wanted {spec.partitions}"] if partitions != spec.partitions else []
    found += [
        f"{name}={config.get(name)}, wanted {value}" for name, value in spec.config.items() if config.get(name) != value
    ]
    return found


async def ensure_groups(
    bootstrap: str,
    groups: Mapping[str, Sequence[str]],
    *,
    admin: Admin | None = None,
    security: Security = PLAINTEXT,
) -> dict[str, int]:
    """Give each group (`ratchet.<agent>` -> full input topics) an explicit offset, the log's start, where it has none.

    An existing offset is never moved. Returns how many offsets each group got. Asks again while the broker loads offsets.
    """
    made: dict[str, int] = {}
    async with _admin(bootstrap, admin, security) as known:
        counts = await known.partitions({topic for topics in groups.values() for topic in topics})
        for group, topics in groups.items():
            missing = sorted(set(topics) - set(counts))
            if missing:
                raise Refused(f"{group}: no such topics: {', '.join(missing)}", kind="missing-topic")
            tps = [(topic, number) for topic in topics for number in range(counts[topic])]
            none = [tp for tp, offset in (await committed(known, group, tps)).items() if offset == NONE]
            if none:
                await known.set_offsets(group, await known.starts(none))
            made[group] = len(none)
    return made


async def committed(admin: Admin, group: str, tps: Sequence[TP]) -> dict[TP, int]:
    """Every committed offset, asked for until the broker knows them all."""
    for _ in range(100):
        try:
            found = await admin.committed(group, tps)
        except Denied:
            raise
        except BrokerError:
            found = dict[TP, int]()
        if len(found) == len(tps):
            return found
        await _pause()
    raise Unavailable(f"the broker does not tell the offsets of {group}")


async def _pause() -> None:
    await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind on one partition. `records` counts offsets, markers included."""

    topic: str
    partition: int
    committed: int
    end: int

    @property
    def records(self) -> int:
        return max(0, self.end - self.committed)


async def lag(
    bootstrap: str, group: str, topics: Sequence[str], *, admin: Admin | None = None, security: Security = PLAINTEXT
) -> list[Lag]:
    """The lag of a group by partition. A finished group's lag is not 0: markers take offsets."""
    async with _admin(bootstrap, admin, security) as known:
        counts = await known.partitions(topics)
        tps = [(topic, number) for topic in topics for number in range(counts.get(topic, 0))]
        if not tps:
            return []
        at, ends = await committed(known, group, tps), await known.ends(tps)
    return [Lag(topic, number, at[topic, number], ends[topic, number]) for topic, number in tps]


async def cluster_alive(bootstrap: str, timeout_s: float = 5.0, *, security: Security = PLAINTEXT) -> bool:
    """Whether a broker answers there within the time."""
    try:
        async with asyncio.timeout(timeout_s), _admin(bootstrap, None, security) as known:
            return await known.brokers() > 0
    except (Unavailable, TimeoutError):
        return False
