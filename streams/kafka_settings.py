"""The clients' settings. Their reasons are the table in docs/design.md ("Ids, members, values"); no caller changes one."""
# pyright: reportMissingTypeStubs=false

from typing import Any, Final

from aiokafka.coordinator.assignors.range import RangePartitionAssignor

REQUEST_TIMEOUT_MS = 8_000
TRANSACTION_TIMEOUT_MS = 10_000
LARGEST_BYTES = 1_048_588 + 65_536

CONSUMER: Final[dict[str, Any]] = {
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "fetch_max_wait_ms": 50,
    "max_partition_fetch_bytes": LARGEST_BYTES,
    "request_timeout_ms": REQUEST_TIMEOUT_MS,
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 1_000,
    "rebalance_timeout_ms": 10_000,
    "partition_assignment_strategy": (RangePartitionAssignor,),
}
PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "linger_ms": 0,
    "request_timeout_ms": REQUEST_TIMEOUT_MS,
    "max_batch_size": 1 << 20,
    "max_request_size": LARGEST_BYTES,
}
