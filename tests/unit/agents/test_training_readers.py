"""Where a training job reads what holds at its time: policies and keys, over a broker in memory; and what it sweeps."""

import os
from pathlib import Path

import pytest

from agents.evidence.keyring import Keyring
from agents.evidence.keytable import Wanted
from agents.training_ports import KeyringKeys, PolicyTenants, sweep
from infra.clock import ManualClock
from infra.kek import LocalKek
from schemas.codec import encode
from schemas.compliance import Cut, KeyErased, KeyRemoved, PolicyGate
from schemas.errors import Unavailable
from schemas.gate import GateTenant
from schemas.payload import Payload
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.port import Outgoing
from streams.wire import partition_of

TRACE = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
ANN, BEN = "a" * 32, "b" * 32


async def put(broker: MemoryBroker, *payloads: Payload) -> None:
    producer = broker.producer()
    await producer.start()
    for number, payload in enumerate(payloads):
        row = encode(payload, event_id=f"e{number}", source="ratchet/test", traceparent=TRACE)
        topic = "ratchet." + payload.TOPIC
        record = Outgoing(row.key, row.value, row.headers)
        await producer.send(topic, partition_of(row.key, broker.count), [record])
    await producer.stop()


def policy(tenant: str, version: int) -> PolicyGate:
    settings = GateTenant(tenant=tenant, version=version)
    return PolicyGate(tenant=tenant, at_ms=1, version=version, settings=settings)


async def test_the_newest_configuration_of_the_tenant_counts() -> None:
    """Of several versions the last; another tenant's is not it; nothing configured is None, also where the topic is empty."""
    broker = MemoryBroker(partitions=3)
    tenants = PolicyTenants(broker)
    assert await tenants.settings("acme") is None
    await put(broker, policy("acme", 1), policy("globex", 7), policy("acme", 2))
    found = await tenants.settings("acme")
    assert found is not None
    assert (found.tenant, found.version) == ("acme", 2)
    assert await tenants.settings("initech") is None


async def test_keys_for_rows_are_those_of_the_keyring() -> None:
    """A key per subject, another one after an erasure, none for requests below its cut, none where none was made."""
    broker, clock, kek = MemoryBroker(partitions=3), ManualClock(1), LocalKek(bytes(32))
    maker = Keyring(broker, kek, clock, Publisher(broker, 3, owner="keys"))
    await maker.make([Wanted("acme", ANN)])
    keys = KeyringKeys(Keyring(broker, kek, clock))
    old, new, other = (ANN, 0, 5), (ANN, 0, 50), (BEN, 0, 5)
    before = await keys.held("acme", [old, new, other])
    assert before[old] == before[new] != b""
    assert before[other] == "of subjects without a key"
    cut = (Cut(partition=0, offset=9),)
    gone = KeyErased(tenant="acme", at_ms=1, subject=ANN, epoch=1, cut=cut, erasure="e1")
    await put(broker, KeyRemoved(tenant="acme", at_ms=1, subject=ANN, epoch=1), gone)
    await maker.make([Wanted("acme", ANN, (0, 50))])
    after = await keys.held("acme", [old, new])
    assert after[old] == "of erased subjects"
    assert isinstance(after[new], bytes)
    assert after[new] != before[new]
    assert await keys.held("acme", []) == {}


async def test_where_nobody_asks_about_a_subject_no_keyring_is_read() -> None:
    """Rows of nobody are trained on though there is no keyring at all; a row of somebody is not."""
    broker = MemoryBroker()
    broker.counts["ratchet.keyring"] = 0
    keys = KeyringKeys(Keyring(broker, LocalKek(bytes(32)), ManualClock(1)))
    assert await keys.held("acme", []) == {}
    with pytest.raises(Unavailable, match="keyring"):
        await keys.held("acme", [(ANN, 0, 1)])


def test_only_old_checkpoints_are_swept(tmp_path: Path) -> None:
    """A folder in which something was written since stays; one that is old goes whole; no folder is no error."""
    for name, written in (("old", 100), ("new", 300)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pt").write_bytes(b"w")
        for path in (tmp_path / name / "checkpoint.pt", tmp_path / name):
            os.utime(path, (written, written))
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "checkpoint.pt").write_bytes(b"w")
    os.utime(tmp_path / "long", (100, 100))
    sweep(tmp_path, 200)
    sweep(tmp_path / "none", 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long", "new"]
