"""The gate's keys in a running process, and how an operator rotates them.

The secret `gate` has a field for each key (`infra.sealing`). A new one seals from `LEAD_MS` on, and every process looks again each
`REFRESH_S`: so trust has it before a router uses it. Where it has not all the same, because it could not ask, it asks once more before
an answer is withheld. A key is taken away by being retired: one that is gone without that is kept, and said.

Who rotates names fields and writes new ones: no key has to be read for it.
"""

import asyncio
import itertools
import logging
import secrets as entropy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from infra.keys import LEAD_MS, REFRESH_S, TRIES
from infra.sealing import (
    GATE_SECRET,
    KEY_BYTES,
    Encodes,
    GateKeys,
    Reads,
    field_of,
    gate_keys,
    ids_of,
    map_key,
    open_gate_keys,
    retired_field,
)
from schemas.errors import Refused, Unavailable
from schemas.gate import FIRST_KEY

log = logging.getLogger("ratchet")


class Asks(Reads, Protocol):
    """What is needed of a secret source to follow a secret."""

    async def latest(self, path: str) -> Mapping[str, str]:
        """Raises `Unavailable` rather than give what is remembered."""
        ...


class Changes(Protocol):
    """What is needed of a secret source to rotate."""

    async def fields(self, path: str) -> frozenset[str]: ...

    async def patch(self, path: str, before: Collection[str], changes: Mapping[str, str | None]) -> bool: ...


class GateKeyring:
    """The keys of a process, kept up to date by `follow`."""

    def __init__(self, source: Asks, keys: GateKeys) -> None:
        self._source = source
        self._reading = asyncio.Lock()
        self.keys = keys

    @classmethod
    async def open(cls, source: Asks) -> "GateKeyring":
        """Raises `Refused` or `Unavailable`: without a key there is no start."""
        return cls(source, await open_gate_keys(source))

    def key_at(self, at_ms: int) -> int:
        return self.keys.key_at(at_ms)

    def mark_key(self, tenant: str, key_id: int) -> bytes:
        return self.keys.mark_key(tenant, key_id)

    def seal_map(self, tenant: str, request_id: str, event_id: str, found: Encodes, at_ms: int) -> str:
        return self.keys.seal_map(tenant, request_id, event_id, found, at_ms)

    def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
        return self.keys.open_map(tenant, request_id, sealed)

    async def learn(self, sealed: str) -> None:
        """Ask the source for the key of a mask map where it is not held. `Unavailable`: whether there is one could not be found out."""
        key_id = map_key(sealed)
        if key_id in self.keys or key_id in self.keys.retired:
            return
        async with self._reading:
            if key_id in self.keys:  # another answer has asked
                return
            try:
                self._take(gate_keys(await self._source.latest(GATE_SECRET)))
            except Refused as fault:
                raise Unavailable(f"the gate's {field_of(key_id)} cannot be looked up: {fault}") from fault

    async def refresh(self) -> None:
        """Look again. What cannot be read changes nothing and is said."""
        try:
            self._take(await open_gate_keys(self._source))
        except (Refused, Unavailable) as fault:
            log.warning("the gate's keys stay as they were: %s", fault)

    async def follow(self, every_s: float = REFRESH_S) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.refresh()

    def _take(self, fresh: GateKeys) -> None:
        held = self.keys.masters
        if (fresh.masters, fresh.retired) == (held, self.keys.retired):
            return
        lost = {key_id for key_id in held if fresh.masters.get(key_id) != held[key_id]} - fresh.retired
        if lost:  # what is under way under them has to open
            names = ", ".join(field_of(key_id) for key_id in sorted(lost))
            log.error(
                "the secret %r has lost %s, kept here: keys are retired, not removed or changed", GATE_SECRET, names
            )
        kept = dict(fresh.masters) | {key_id: held[key_id] for key_id in lost}
        self.keys = GateKeys(kept.pop(FIRST_KEY, None), kept, fresh.retired)


State = Literal["seals", "opens", "not yet", "retired"]


@dataclass(frozen=True, slots=True)
class Listed:
    """A key as it may be shown. `until_ms`: when it stopped sealing, or will; None: nobody knows yet."""

    key_id: int
    state: State
    until_ms: int | None

    @property
    def name(self) -> str:
        return field_of(self.key_id)


async def listed(source: Changes, now_ms: int) -> list[Listed]:
    """Every key, the oldest first. Raises `Refused` where there is none."""
    return _listed(await _fields(source), now_ms)


def _listed(fields: Collection[str], now_ms: int) -> list[Listed]:
    held, gone = ids_of(fields)
    seals = max((key_id for key_id in held if key_id <= now_ms), default=min(held, default=0))
    every = sorted([*held, *gone])
    ends = dict(itertools.pairwise(every))

    def state(key_id: int) -> State:
        if key_id in gone:
            return "retired"
        return "seals" if key_id == seals else "opens" if key_id < seals else "not yet"

    return [Listed(key_id, state(key_id), ends.get(key_id)) for key_id in every]


async def rotate(source: Changes, now_ms: int) -> Listed:
    """Another key, which seals from `LEAD_MS` on; the former ones open and check. Raises `Refused` while one is on its way."""
    for _ in range(TRIES):
        fields = await _fields(source)
        coming = [row for row in _listed(fields, now_ms) if row.key_id > now_ms]
        if coming:
            raise Refused(
                f"{coming[-1].name} is made and does not seal yet: nothing was done; accepted: another rotation when it does",
                kind="gate-key",
                field="key",
            )
        key_id = now_ms + LEAD_MS
        if await source.patch(GATE_SECRET, fields, {field_of(key_id): entropy.token_hex(KEY_BYTES)}):
            return Listed(key_id, "not yet", None)
    raise Unavailable(f"others keep changing the secret {GATE_SECRET!r}: try again", retry_after_s=1.0)


async def to_retire(source: Changes, name: str, now_ms: int) -> Listed:
    """The key of that name, where it may go. Raises `Refused` where nobody knows it, or it seals, or has until just now."""
    return _to_retire(await _fields(source), name, now_ms)


def _to_retire(fields: Collection[str], name: str, now_ms: int) -> Listed:
    rows = {row.name: row for row in _listed(fields, now_ms)}
    row = rows.get(name)
    able = ", ".join(known for known, one in rows.items() if one.state == "opens") or "none yet"
    if row is None:
        raise Refused(
            f"the gate has no key {name!r}; accepted, for they only open: {able}", kind="gate-key", field="key"
        )
    if row.state in ("seals", "not yet"):
        todo = "`ratchet gate rotate` makes another" if row.state == "seals" else "it is the next one"
        raise Refused(
            f"{name} {'seals now' if row.state == 'seals' else 'is to seal'}: {todo}; accepted, for they only open: {able}",
            kind="gate-key",
            field="key",
        )
    if row.state == "opens" and row.until_ms is not None and now_ms < row.until_ms + LEAD_MS:
        raise Refused(
            f"{name} sealed until just now: accepted {LEAD_MS // 1000} s after it stopped", kind="gate-key", field="key"
        )
    return row


async def retire(source: Changes, name: str, now_ms: int) -> Listed:
    """Take a key away: what it sealed opens no more, what it marked can be checked no more. One that is retired stays so."""
    for _ in range(TRIES):
        fields = await _fields(source)
        row = _to_retire(fields, name, now_ms)
        if row.state == "retired":
            return row
        changes = {name: None, retired_field(row.key_id): str(now_ms)}
        if await source.patch(GATE_SECRET, fields, changes):
            return Listed(row.key_id, "retired", row.until_ms)
    raise Unavailable(f"others keep changing the secret {GATE_SECRET!r}: try again", retry_after_s=1.0)


async def _fields(source: Changes) -> frozenset[str]:
    found = await source.fields(GATE_SECRET)
    if not ids_of(found)[0]:
        raise Refused(
            f"the secret {GATE_SECRET!r} has no key: `ratchet up` makes the first; in a Vault of your own put one there "
            "(docs/security.md)",
            kind="secrets",
        )
    return found
