"""The broker port's admin part on aiokafka: topics, groups' offsets, ends."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportUnknownLambdaType=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportIncompatibleMethodOverride=false
# aiokafka ships no types, as in kafka.py.

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from streams.kafka_clients import close, start
from streams.kafka_edge import denied, quiet_client_logs, starting, translated
from streams.kafka_settings import REQUEST_TIMEOUT_MS
from streams.port import NONE, TP, Lost, Rejected, TopicSpec
from streams.security import PLAINTEXT, Security

UNKNOWN_GROUP = 69


class KafkaAdmin:
    """Topics, offsets, ends."""

    def __init__(self, bootstrap: str, security: Security = PLAINTEXT) -> None:
        self.bootstrap = bootstrap
        self.security = security
        self._admin: Any = None
        self._reader: Any = None
        self._coordinators: dict[str, int] = {}

    async def start(self) -> None:
        quiet_client_logs()
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self.bootstrap,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            client_id="ratchet-admin",
            **self.security.client(),
        )
        self._reader = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            isolation_level="read_committed",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            enable_auto_commit=False,
            **self.security.client(),
        )
        async with starting("admin start", self.bootstrap, self.security, first=True):
            await start(self._admin, self._reader)

    async def stop(self) -> None:
        with translated("admin stop", self.security):
            try:
                if self._admin is not None:
                    await close(self._admin)
            finally:
                if self._reader is not None:
                    await close(self._reader)

    async def committed(self, group: str, partitions: Collection[TP]) -> dict[TP, int]:
        with translated(f"{group}: committed offsets", self.security):
            try:
                if group not in self._coordinators:
                    self._coordinators[group] = await self._admin.find_coordinator(group)
                found = await self._admin.list_consumer_group_offsets(
                    group, self._coordinators[group], [TopicPartition(*tp) for tp in partitions]
                )
            except KafkaError:
                self._coordinators.pop(group, None)
                raise
        if not found:  # the top-level error is not told: loading, or not the coordinator any more
            self._coordinators.pop(group, None)
        return {(tp.topic, tp.partition): NONE if row.offset < 0 else int(row.offset) for tp, row in found.items()}

    async def members(self, group: str) -> tuple[str, ...]:
        with translated(f"{group}: members", self.security):
            answers = await self._admin.describe_consumer_groups([group])
        rows = [row for answer in answers for row in answer.to_object()["groups"]]
        failed = [row["error_code"] for row in rows if row["error_code"] not in (0, UNKNOWN_GROUP)]
        if failed:
            raise Lost(f"{group}: members: error {failed[0]}")
        return tuple(sorted(member["client_id"] for row in rows for member in row["members"]))

    async def set_offsets(self, group: str, offsets: Mapping[TP, int]) -> None:
        member = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self.security.client(),
        )
        with translated(f"{group}: set offsets", self.security):
            try:
                await start(member)
                member.assign([TopicPartition(*tp) for tp in offsets])
                await member.commit({TopicPartition(*tp): offset for tp, offset in offsets.items()})
            finally:
                await close(member)

    async def _may_see(self, partitions: Collection[TP]) -> None:
        """Denied at once where a topic is hidden from us: asked for its offsets the client would try until its time is up."""
        topics = {topic for topic, _ in partitions}
        if not self.security.open:
            await self.partitions(topics)
        client = self._reader._client  # noqa: SLF001  of itself it would learn of one new topic each 0.1 s
        await asyncio.gather(*map(client.add_topic, topics))

    async def ends(self, partitions: Collection[TP]) -> dict[TP, int]:
        await self._may_see(partitions)
        with translated("end offsets", self.security):
            found = await self._reader.end_offsets([TopicPartition(*tp) for tp in partitions])
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def starts(self, partitions: Collection[TP]) -> dict[TP, int]:
        await self._may_see(partitions)
        with translated("start offsets", self.security):
            found = await self._reader.beginning_offsets([TopicPartition(*tp) for tp in partitions])
        return {(tp.topic, tp.partition): int(offset) for tp, offset in found.items()}

    async def offsets_at(self, partitions: Collection[TP], at_ms: int) -> dict[TP, int]:
        ends = await self.ends(partitions)
        with translated("offsets by time", self.security):
            found = await self._reader.offsets_for_times({TopicPartition(*tp): at_ms for tp in partitions})
        return {
            tp: ends[tp] if (row := found.get(TopicPartition(*tp))) is None else int(row.offset) for tp in partitions
        }

    async def partitions(self, topics: Collection[str]) -> dict[str, int]:
        return {row["topic"]: len(row["partitions"]) for row in await self._described(topics)}

    async def replication(self, topics: Collection[str]) -> dict[str, int]:
        rows = await self._described(topics)
        return {row["topic"]: min(len(part["replicas"]) for part in row["partitions"]) for row in rows}

    async def _described(self, topics: Collection[str]) -> list[Any]:
        """What the cluster says of those of the topics that there are."""
        with translated("describe topics", self.security):
            found = await self._admin.describe_topics(sorted(topics))
        if hidden := sorted(row["topic"] for row in found if row["error_code"] == TopicAuthorizationFailedError.errno):
            raise denied(self.security, "describe topics", TopicAuthorizationFailedError(hidden))
        return [row for row in found if not row["error_code"]]

    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(topics)]
        with translated("describe configs", self.security):
            answers = await self._admin.describe_configs(wanted)
        return {
            resource[3]: {row[0]: str(row[1]) for row in resource[4]}
            for answer in answers
            for resource in answer.resources
            if not resource[0]
        }

    async def create(self, topics: Sequence[TopicSpec]) -> None:
        rows = [NewTopic(row.name, row.partitions, row.replication, topic_configs=dict(row.config)) for row in topics]
        with translated("create topics", self.security):
            answer = await self._admin.create_topics(rows)
        if refused := sorted(row[0] for row in answer.topic_errors if row[1] == TopicAuthorizationFailedError.errno):
            raise denied(self.security, "create topics", TopicAuthorizationFailedError(refused))
        bad = [f"{row[0]}: {row[2] or row[1]}" for row in answer.topic_errors if row[1] not in (0, 36)]
        if bad:
            raise Rejected("topics not created: " + "; ".join(bad))

    async def brokers(self) -> int:
        with translated("describe cluster", self.security):
            return len((await self._admin.describe_cluster())["brokers"])
