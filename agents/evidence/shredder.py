"""The shell of the shredder: erases a subject's keys on command. It holds none, and can unwrap none.

One Kafka transaction holds the command's offset, the marker, the key's removal, the receipt and what trainers are told: after a
crash all of it is there, or none and the command is read again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from agents.evidence import shred
from agents.ports import Clock
from schemas.compliance import CommandErase, CommandForget, KeyErased, KeyEvent, KeyRemoved, KeyWrapped, PolicyGate
from schemas.errors import Refused, Unavailable
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.principal import Prove
from schemas.topics import BY_NAME, with_snapshots, with_texts
from streams.shapes import DeadLetter, Emit, Event, Out, Place, Record, View

NAME = "shredder"
REQUESTS, POLICIES = BY_NAME["requests"].full, BY_NAME["policies"].full
LONGEST_ID = 64
CATCH_UP_S = 10.0
DECIDED_S = 60.0  # by then a transaction was committed or is none
LOOK_S = 0.05
Expire = Callable[[float], object]
"""Removes snapshots that were taken before that time, in seconds since 1970."""
log = logging.getLogger("ratchet")


class Followed(View, Protocol):
    """A view that says how far it has come."""

    def reached(self, ends: Mapping[int, int]) -> bool: ...


class Standing(Protocol):
    """How topics stand. Raises `Unavailable`."""

    async def ends(self, topic: str) -> dict[int, int]: ...
    async def configs(self, topics: Collection[str]) -> dict[str, dict[str, str]]: ...
    async def touch(self, topic: str) -> None: ...


class Voice(Protocol):
    """What it proves with that it speaks to trainers."""

    async def prover(self) -> Prove:
        """Raises `Refused` where proof is asked for and the shredder has no key that counts."""
        ...


class Shredder:
    """Transform `shredder`. One command at a time; the next about a subject waits until what the last one made is in the view."""

    name = NAME
    inputs: Sequence[str] = ("ratchet.commands",)

    def __init__(
        self, policies: Followed, keyring: Followed, standing: Standing, voice: Voice, clock: Clock, backup_ms: int = 0
    ) -> None:
        self._policies = policies
        self._keyring = keyring
        self._standing = standing
        self._voice = voice
        self._clock = clock
        self._backup_ms = backup_ms
        self._made: dict[str, tuple[float, Place, KeyErased]] = {}

    async def __call__(self, event: Event[Payload]) -> Sequence[Out]:
        command = event.data
        if not isinstance(command, CommandErase):
            return ()
        if len(event.id) > LONGEST_ID:
            raise Refused(f"ce_id: {len(event.id)} characters; accepted: {LONGEST_ID}", kind="id", field="ce_id")
        subject = f"{command.tenant}/{command.subject}"
        stand = await self._stand(command.tenant)
        await self._until_seen(subject, event.place)
        made = shred.decide(command, event.id, self._known(subject), stand)
        outs = [Emit(payload, identity, prove=await self._prove(payload)) for identity, payload in made]
        for _, payload in made:
            if isinstance(payload, KeyErased):
                self._made[subject] = self._clock.monotonic(), event.place, payload
        return outs

    def refused(self, record: Record, error: Exception) -> Sequence[Out] | None:
        return None

    def deadline_ms(self, event: Event[Payload]) -> int | None:
        return None

    def expired(self, event: Event[Payload], error: Exception) -> Sequence[Out]:
        return (DeadLetter(event.record, "unavailable", f"nothing was erased: {error}"),)

    async def keep_touching(self) -> None:
        """For ever: have the keyring's segments end in their time, also where nobody writes. A companion of the process."""
        await self._keep(
            lambda: self._standing.touch(shred.KEYRING),
            "removed keys are compacted later than receipts say while this lasts",
        )

    async def keep_expiring(self, expire: Expire) -> None:
        """For ever: remove snapshots of Folds' states, which hold texts, once no topic names them. A companion of the process."""

        async def sweep() -> None:
            kept_ms = shred.snapshots_kept(await self._standing.configs(with_snapshots()))
            if kept_ms < shred.NEVER:
                await asyncio.to_thread(expire, (self._clock.now_ms() - kept_ms) / 1000)

        await self._keep(sweep, "snapshots of states with texts are kept longer than receipts say while this lasts")

    async def _keep(self, do: Callable[[], Awaitable[None]], lasting: str) -> None:
        while True:
            try:
                await do()
            except (Unavailable, OSError) as error:
                log.warning("%s: %s", lasting, error)
                await self._clock.sleep(60)
            else:
                await self._clock.sleep(shred.TOUCH_MS / 2000)

    async def _stand(self, tenant: str) -> shred.Stand:
        """As of now, after the command was read: the views have all that was there."""
        await self._caught_up(self._policies, POLICIES)
        await self._caught_up(self._keyring, shred.KEYRING)
        gate = self._policies.get(PolicyGate, f"gate/{tenant}")
        routes = shred.of_tenant((row.data for row in self._policies.items(PolicyRoute).values()), tenant)
        return shred.Stand(
            now_ms=self._clock.now_ms(),
            gate=None if gate is None else gate.data.settings,
            routes=routes,
            ends=await self._standing.ends(REQUESTS),
            configs=await self._standing.configs((shred.KEYRING, *with_texts())),
            backup_ms=self._backup_ms,
        )

    async def _caught_up(self, view: Followed, topic: str) -> None:
        ends, until_s = await self._standing.ends(topic), self._clock.monotonic() + CATCH_UP_S
        while not view.reached(ends):
            if self._clock.monotonic() >= until_s:
                raise Unavailable(f"the view of {topic} has not come to where it ended")
            await self._clock.sleep(LOOK_S)

    async def _until_seen(self, subject: str, place: Place) -> None:
        """Wait for what another command made of this subject. What this one made once was not committed: else it were not here again."""
        until_s = self._clock.monotonic() + CATCH_UP_S
        while (held := self._made.get(subject)) is not None:
            made_s, made_at, marker = held
            over = self._clock.monotonic() - made_s > DECIDED_S
            if over or made_at == place or shred.covers(self._known(subject).marker, marker):
                del self._made[subject]
            elif self._clock.monotonic() >= until_s:
                raise Unavailable("another erasure of the subject is not committed yet")
            else:
                await self._clock.sleep(LOOK_S)

    def _known(self, subject: str) -> shred.Known:
        key = self._keyring.get(KeyEvent, subject)
        marker = self._keyring.get(KeyErased, f"{subject}/erased")
        held = None if key is None else key.data
        last = None if marker is None else marker.data
        return shred.known(held if isinstance(held, KeyWrapped | KeyRemoved) else None, last)

    async def _prove(self, payload: Payload) -> Prove | None:
        return await self._voice.prover() if isinstance(payload, CommandForget) else None
