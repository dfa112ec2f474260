"""What a training job reads and tells: cases, tenants, keys, facts; without the libraries that train, which take seconds to load."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from agents.evidence.keyring import Keyring
from agents.evidence.keytable import Erased, SubjectKey, Wanted
from agents.trainer.dataset import Whose
from schemas import codec
from schemas.compliance import PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.events import CaseClosed
from schemas.gate import GateTenant
from schemas.payload import Payload
from schemas.topics import PREFIX
from streams.facts import Facts
from streams.port import TP, Broker, BrokerError, OutOfRange
from streams.restore import last_under, read_to
from streams.shapes import Record
from streams.wire import partition_of


class KafkaCases:
    """Cases of a range of offsets, committed ones only."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]:
        """Raises Refused where retention has removed some of the range, Unavailable while the broker is away."""
        try:
            return await self._read(route, partition, first, last)
        except OutOfRange as error:
            raise Refused(f"cases {first} to {last} are no longer all in the log: {error}", kind="range") from error
        except BrokerError as error:
            raise Unavailable(f"the cases cannot be read: {error}") from error

    async def _read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]:
        tp = (PREFIX + "cases", partition)
        found: list[CaseClosed] = []

        async def take(records: Sequence[Record], position: int) -> bool:
            found.extend(case for record in records if record.offset <= last for case in _case(record, route))
            return True

        await read_to(self._broker, tp, first, last + 1, take)
        return found


def _case(record: Record, route: str) -> list[CaseClosed]:
    model = codec.payload_class(dict(record.headers).get("ce_type", b"").decode())
    if not issubclass(model, CaseClosed):
        return []
    case = codec.decode_payload(model, record.value)
    return [case] if isinstance(case, CaseClosed) and case.route == route else []


class PolicyTenants:
    """What the gate permits tenants, from the topic of policies as it is when somebody asks."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def settings(self, tenant: str) -> GateTenant | None:
        """Raises Unavailable while the broker is away."""
        try:
            return await self._newest(tenant)
        except BrokerError as error:
            raise Unavailable(f"the gate's policies cannot be read: {error}") from error

    async def _newest(self, tenant: str) -> GateTenant | None:
        topic, key = PREFIX + PolicyGate.TOPIC, f"{PolicyGate.KIND}/{tenant}".encode()
        admin = self._broker.admin()
        await admin.start()
        try:
            count = (await admin.partitions([topic])).get(topic, 0)
            if not count:
                raise Unavailable(f"topic {topic} does not exist: `ratchet up` creates it")
            tp: TP = topic, partition_of(key, count)
            starts, ends = await admin.starts([tp]), await admin.ends([tp])
        finally:
            await admin.stop()
        value = await last_under(self._broker, tp, starts[tp], ends[tp], key)
        policy = None if value is None else codec.decode_payload(PolicyGate, value)
        return policy.settings if isinstance(policy, PolicyGate) else None


class KeyringKeys:
    """Subjects' keys for rows, from the keyring as it is when somebody asks."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def held(self, tenant: str, wanted: Collection[Whose]) -> Mapping[Whose, bytes | str]:
        """The keyring makes none here: whoever the evidence log has not seen yet has none, and is left out."""
        if not wanted:
            return {}
        names = {one: Wanted(tenant, one[0], (one[1], one[2])) for one in wanted}
        found = await self._keyring.held(names.values())
        return {one: _rows_key(found[name]) for one, name in names.items()}


def _rows_key(found: object) -> bytes | str:
    if isinstance(found, SubjectKey):
        return found.rows
    return "of erased subjects" if isinstance(found, Erased) else "of subjects without a key"


class TracedFacts:
    """Facts of the order's trace."""

    def __init__(self, facts: Facts, traceparent: str) -> None:
        self._facts = facts
        self._traceparent = traceparent

    async def send(self, payload: Payload, identity: str) -> None:
        await self._facts.send(payload, identity, self._traceparent)


def sweep(checkpoints: Path, before_s: float) -> None:
    """Remove checkpoints that were last written before that time: weights that saw rows, of jobs that were killed."""
    for folder in checkpoints.iterdir() if checkpoints.is_dir() else ():
        newest = max((file.stat().st_mtime for file in (folder, *folder.glob("*"))), default=before_s)
        if newest < before_s:
            shutil.rmtree(folder, ignore_errors=True)
