"""The keyring: subjects' keys on a compacted topic, wrapped. Reads it whole, makes keys, opens them.

It is read without a group, from its start, by every process that needs it: after a restart, or with every cache lost, an erased
subject is erased as before. Opened keys are in the memory of this process alone (in no Redis, no file), and go when a marker is read.

A key is published (acks=all) and read back before anything is committed to or sealed under it. What is read back counts: an erasure
that came between is seen by then, for its transaction lies before ours.
"""

import asyncio
import os
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from agents.evidence.keytable import KEY_BYTES, Erased, KeyTable, Live, Missing, Place, SubjectKey, Wanted
from agents.ports import Clock
from infra.kek import Kek
from schemas.compliance import KeyErased, KeyRemoved, KeyWrapped
from schemas.errors import Refused, SubjectErased, Unavailable
from schemas.payload import Payload
from schemas.topics import PREFIX
from streams.port import TP, Admin, Broker, BrokerError, OutOfRange, Reader
from streams.wire import decode

TOPIC: Final = f"{PREFIX}keyring"
MOST_OPEN: Final = 65_536
"""Opened keys in memory."""
READ_BACK_S: Final = 20.0
LOOK_S: Final = 0.05
Key = SubjectKey | Erased | Missing


class KeyPublisher(Protocol):
    """Sends events in one transaction under an id of its own: an earlier owner of it sends no more."""

    async def start(self) -> int | None: ...
    async def publish(self, payloads: Sequence[tuple[Payload, str]], cursor: int) -> None: ...


class Keyring:
    """Without a publisher it opens keys and makes none: for training jobs, and for whoever opens payloads. Calls may overlap."""

    def __init__(self, broker: Broker, kek: Kek, clock: Clock, publisher: KeyPublisher | None = None) -> None:
        self.table = KeyTable()
        self._broker = broker
        self._kek = kek
        self._clock = clock
        self._publisher = publisher
        self._taken = False
        self._open: OrderedDict[tuple[str, str], tuple[str, SubjectKey]] = OrderedDict()
        self._lock = asyncio.Lock()
        self._admin: Admin | None = None
        self._reader: Reader | None = None
        self._positions: dict[TP, int] = {}
        self._partitions = 1

    def __repr__(self) -> str:
        return f"Keyring({TOPIC!r})"

    async def make(self, wanted: Collection[Wanted]) -> dict[Wanted, Key]:
        """The keys, those made that were missing; Erased where there must be none. Raises Unavailable: call again, nothing is lost.

        Raises `Fenced` where another process makes keys.
        """
        async with self._lock:
            await self._catch_up()
            while missing := self._missing(wanted):
                await self._publish(missing)
            return await self._opened(wanted)

    async def held(self, wanted: Collection[Wanted]) -> dict[Wanted, Key]:
        """The keys that there are now, by the topic as it is now."""
        async with self._lock:
            await self._catch_up()
            return await self._opened(wanted)

    async def key(self, wanted: Wanted) -> SubjectKey:
        """One key. Raises SubjectErased, for ever; Refused (kind `no-key`) where there is none."""
        found = (await self.held([wanted]))[wanted]
        if isinstance(found, Erased):
            raise erased(wanted, found)
        if isinstance(found, Missing):
            raise Refused(
                f"there is no key of {wanted}; accepted: one whose requests the evidence log has", kind="no-key"
            )
        return found

    def _missing(self, wanted: Iterable[Wanted]) -> dict[tuple[str, str], int]:
        states = ((one, self.table.state(one)) for one in wanted)
        return {(one.tenant, one.subject): state.epoch for one, state in states if isinstance(state, Missing)}

    async def _publish(self, missing: Mapping[tuple[str, str], int]) -> None:
        """Make keys, and read the topic until they are seen."""
        if self._publisher is None:
            raise AssertionError("this keyring makes no keys: it was given no publisher")
        if not self._taken:
            await self._publisher.start()
            self._taken = True
        by_tenant: defaultdict[str, list[tuple[str, int, bytes]]] = defaultdict(list)
        for (tenant, subject), epoch in missing.items():
            by_tenant[tenant].append((subject, epoch, os.urandom(KEY_BYTES)))
        at_ms = self._clock.now_ms()
        events: list[KeyWrapped] = []
        for tenant, fresh in by_tenant.items():
            wrapped = await self._kek.wrap(tenant, fresh)
            for (subject, epoch, dek), text in zip(fresh, wrapped, strict=True):
                events.append(KeyWrapped(tenant=tenant, at_ms=at_ms, subject=subject, epoch=epoch, wrapped=text))
                self._keep((tenant, subject), text, SubjectKey(epoch, dek))
        rows = [(event, f"{event.event_key()}/{event.epoch}/{event.wrapped}") for event in events]
        await self._publisher.publish(rows, 0)
        until = self._clock.monotonic() + READ_BACK_S
        await self._catch_up()
        while any(self.table.epoch(*whose) < epoch for whose, epoch in missing.items()):
            if self._clock.monotonic() > until:  # a transaction of somebody else's is open before ours
                raise Unavailable(f"keys were published, and {TOPIC} does not show them within {READ_BACK_S:g} s")
            await self._clock.sleep(LOOK_S)
            await self._catch_up()
        await self._take_back({whose: epoch for whose, epoch in missing.items() if self.table.erased(*whose) >= epoch})

    async def _take_back(self, late: Mapping[tuple[str, str], int]) -> None:
        """Remove keys whose erasure was committed while they were made: behind its removal they would lie on the topic for good."""
        if not late or self._publisher is None:
            return
        at_ms = self._clock.now_ms()
        events = [KeyRemoved(tenant=row[0], at_ms=at_ms, subject=row[1], epoch=epoch) for row, epoch in late.items()]
        await self._publisher.publish([(event, f"{event.event_key()}/{event.epoch}/removed") for event in events], 0)
        await self._catch_up()

    async def _opened(self, wanted: Iterable[Wanted]) -> dict[Wanted, Key]:
        found: dict[Wanted, Key] = {}
        closed: defaultdict[str, dict[str, Live]] = defaultdict(dict)
        waiting: list[tuple[Wanted, Live]] = []
        for one in wanted:
            state = self.table.state(one)
            if not isinstance(state, Live):
                found[one] = state
            elif (key := self._kept(one, state)) is not None:
                found[one] = key
            else:
                closed[one.tenant][one.subject] = state
                waiting.append((one, state))
        opened: dict[tuple[str, str], SubjectKey] = {}
        for tenant, rows in closed.items():
            deks = await self._kek.unwrap(
                tenant, [(subject, live.epoch, live.wrapped) for subject, live in rows.items()]
            )
            for (subject, live), dek in zip(rows.items(), deks, strict=True):
                opened[tenant, subject] = key = SubjectKey(live.epoch, dek)
                self._keep((tenant, subject), live.wrapped, key)
        return found | {one: opened[one.tenant, one.subject] for one, _ in waiting}

    def _kept(self, one: Wanted, live: Live) -> SubjectKey | None:
        """An opened key counts only for the very wrapped one that the topic has."""
        wrapped, key = self._open.get((one.tenant, one.subject), ("", None))
        if key is None or wrapped != live.wrapped:
            return None
        self._open.move_to_end((one.tenant, one.subject))
        return key

    def _keep(self, whose: tuple[str, str], wrapped: str, key: SubjectKey) -> None:
        self._open[whose] = wrapped, key
        self._open.move_to_end(whose)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    async def _catch_up(self) -> None:
        """Read every partition to its end as it is now."""
        try:
            await self._read()
        except OutOfRange as error:
            await self._let_go()
            raise Unavailable(
                f"{TOPIC} does not hold what was read of it; accepted: the topic that was, restored where it was made anew"
            ) from error
        except BrokerError as error:
            await self._let_go()
            raise Unavailable(f"cannot read {TOPIC}: {error}") from error

    async def _read(self) -> None:
        if self._admin is None:
            admin = self._broker.admin()
            self._admin = admin
            await admin.start()
            self._partitions = (await admin.partitions([TOPIC])).get(TOPIC, 0)
            if not self._partitions:
                await self._let_go()
                raise Unavailable(f"topic {TOPIC} does not exist: `ratchet up` creates it")
        tps = [(TOPIC, number) for number in range(self._partitions)]
        ends = await self._admin.ends(tps)
        if any(self._positions.get(tp, 0) > ends[tp] for tp in tps):
            raise OutOfRange(f"{TOPIC} ends before what was read of it")
        if self._reader is None:
            starts = await self._admin.starts(tps)
            self._positions = {tp: max(self._positions.get(tp, 0), starts[tp]) for tp in tps}
            self._reader = self._broker.reader(self._positions)
            await self._reader.start()
        while any(self._positions[tp] < ends[tp] for tp in tps):
            for rows in (await self._reader.poll(timeout_s=0.2, max_records=5000)).values():
                for row in rows:
                    if row.value is not None:
                        self._apply(decode(row, self._partitions).data)
            for tp in tps:
                self._positions[tp] = await self._reader.position(tp)

    def _apply(self, event: Payload) -> None:
        self.table.apply(event)
        if isinstance(event, KeyErased | KeyRemoved):
            self._open.pop((event.tenant, event.subject), None)

    async def _let_go(self) -> None:
        reader, self._reader = self._reader, None
        admin, self._admin = self._admin, None
        if reader is not None:
            await reader.stop()
        if admin is not None:
            await admin.stop()

    async def stop(self) -> None:
        """Let go of the broker, and of every opened key."""
        self._open.clear()
        await self._let_go()


def erased(wanted: Wanted, marker: Erased) -> SubjectErased:
    """The error that says so."""
    return SubjectErased(f"{wanted} is erased (command {marker.erasure or 'being read'})", erasure=marker.erasure)


async def open_rows_key(keyring: Keyring, tenant: str, subject: str, place: Place | None) -> bytes:
    """The key that seals a subject's rows of training data, for rows of the request at `place`.

    Raises SubjectErased: such rows are left out; Refused (kind `no-key`) where the evidence log has not made the key yet.
    """
    return (await keyring.key(Wanted(tenant, subject, place))).rows
