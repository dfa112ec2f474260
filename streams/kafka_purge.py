"""Deletion of records before their time, as an administrator can: for tests and demonstrations of what notices it."""
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# aiokafka ships no types.

from collections.abc import Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from streams.kafka_clients import close, start
from streams.kafka_edge import starting, translated
from streams.kafka_settings import REQUEST_TIMEOUT_MS
from streams.port import TP
from streams.security import PLAINTEXT, Security


async def delete_before(bootstrap: str, offsets: Mapping[TP, int], security: Security = PLAINTEXT) -> None:
    """Nothing below these offsets can be read any more; whoever has not read it has lost it."""
    client = AIOKafkaAdminClient(
        bootstrap_servers=bootstrap,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        client_id="ratchet-purge",
        **security.client(),
    )
    async with starting("delete records", bootstrap, security, first=True):
        await start(client)
    try:
        with translated("delete records", security):
            await client.delete_records(
                {TopicPartition(*tp): RecordsToDelete(before) for tp, before in offsets.items()}
            )
    finally:
        await close(client)
