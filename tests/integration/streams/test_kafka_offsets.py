"""What is told of each offset, on a real broker."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from offsets_contract import *  # noqa: F403  the suite's tests are collected here
from offsets_contract import Logs

from streams.kafka import KafkaBroker
from streams.port import TP


class Kafka:
    """Through the client's own administration."""

    def __init__(self, admin: AIOKafkaAdminClient) -> None:
        self.admin = admin

    async def evict(self, tp: TP, before: int) -> None:
        await self.admin.delete_records({TopicPartition(*tp): RecordsToDelete(before)})

    async def delete(self, topic: str) -> None:
        await self.admin.delete_topics([topic])

    async def compact(self, topic: str) -> None:
        """The cleaner comes by itself, each 15 s."""


@pytest.fixture
async def logs(kafka: str) -> AsyncIterator[Logs]:
    """The shared broker."""
    own = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await own.start()
    broker = KafkaBroker(kafka)
    made = Logs(broker, broker.admin(), broker.producer(), Kafka(own))
    await made.admin.start()
    await made.producer.start()
    yield made
    await made.producer.stop()
    await made.admin.stop()
    await own.close()
