"""What `ratchet doctor` says of the Kafka that the settings name."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.clock import SystemClock
from infra.settings import Settings
from schemas.topics import plans
from streams.admin import specs_of
from streams.memory import MemoryAdmin, MemoryBroker
from tools.doctor import Check, problems_of, run_checks


def checked(tmp_path: Path, where: str, ca: Path) -> dict[str, Check]:
    """Every check by name, of settings whose other servers are away."""
    settings = Settings(
        state_dir=tmp_path,
        kafka_bootstrap=where,
        kafka_security="sasl_ssl",
        kafka_ca=ca,
        redis_url="redis://127.0.0.1:1/0",
        ray_address="127.0.0.1:1",
    )
    return {check.name: check for check in run_checks(settings)}


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_an_authority_that_is_none_is_a_failed_check(tmp_path: Path, content: bytes | None) -> None:
    """The file is named, all other checks are made, and nothing is asked of a broker that cannot be trusted."""
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    found = checked(tmp_path, "127.0.0.1:1", ca)
    assert not found["kafka"].ok
    assert f"RATCHET_KAFKA_CA={ca}" in found["kafka"].detail
    assert {"redis", "ray", "engine", "stack"} < found.keys()
    assert not {"transport", "topics"} & found.keys()


def test_over_tls_no_number_of_brokers_is_said(tmp_path: Path, tls_broker: tuple[str, Path]) -> None:
    """A broker that does not know who asks tells that it answers, and no more."""
    where, authority = tls_broker
    assert checked(tmp_path, where, authority)["kafka"] == Check(
        "kafka", True, f"answers at {where}", "start the brokers, or unset KAFKA_BOOTSTRAP to have one started here"
    )
    assert not checked(tmp_path, "127.0.0.1:1", authority)["kafka"].ok


class Cluster(MemoryAdmin):
    """The broker in memory as so many."""

    def __init__(self, size: int) -> None:
        super().__init__(MemoryBroker(2, clock=SystemClock()))
        self.size = size

    async def brokers(self) -> int:
        await super().brokers()
        return self.size


@pytest.mark.parametrize(
    ("size", "replication", "few"), [(1, 1, False), (2, 1, False), (3, 1, True), (5, 2, True), (3, 3, False)]
)
async def test_fewer_replicas_than_the_cluster_could_keep_are_named(size: int, replication: int, few: bool) -> None:
    """Topics are as the settings ask for them; on three brokers or more, the settings must ask for three replicas."""
    admin = Cluster(size)
    await admin.create(specs_of(list(plans()), 2, replication))
    problems = await problems_of(admin, Settings(partitions=2, replication=replication))
    said = f"RATCHET_REPLICATION={replication} on {size} brokers: what they acknowledge may be lost, wanted 3"
    assert problems == ([said] if few else [])


@pytest.mark.parametrize("name", ["max.compaction.lag.ms", "segment.ms", "delete.retention.ms", "cleanup.policy"])
async def test_a_keyring_that_keeps_removed_keys_is_named(name: str) -> None:
    """Each setting that an erasure goes by, with what it is and what it should be."""
    admin = Cluster(1)
    rows = specs_of(list(plans()), 2, 1)
    wrong = [
        replace(row, config=dict(row.config) | {name: "1"}) if row.name == "ratchet.keyring" else row for row in rows
    ]
    await admin.create(wrong)
    (said,) = await problems_of(admin, Settings(partitions=2))
    assert said.startswith(f"ratchet.keyring: {name}=1, wanted ")
