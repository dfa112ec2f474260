"""Principals' keys in the secret store: who may speak, with what key, and when it counts.

`principals` holds one JSON text per principal (roles, tenants, key ids, their times, commitments: no secret); `principals/<name>`
holds that principal's keys by id, so that a policy can let it read its own and no other. A key is never overwritten or removed.

What changes, changes for times at least `LEAD_MS` ahead, and every process looks again each `REFRESH_S`: so two of them, or a
replay years later, say the same of a record, as long as none has been without the store for the difference. One that has goes on
with what it holds.
"""

import asyncio
import json
import logging
import secrets as entropy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from infra.clock import Clock
from schemas.errors import Refused, Unavailable
from schemas.principal import EMPTY, KEY_BYTES, Credential, KeyTerm, Principal, Prove, Ring, Role, commitment, is_name

INDEX = "principals"
REFRESH_S = 3.0
LEAD_MS = 10_000
TRIES = 20
LOCAL: dict[str, tuple[Role, ...]] = {
    "operator": ("operator",),
    "reviewer": ("reviewer",),
    "demo": ("upstream",),
    "grader": ("grader",),
    "shredder": ("shredder",),
}
"""Whom a local stack has from its start on; who speaks in a role when nobody is named."""
log = logging.getLogger("ratchet")


class Reads(Protocol):
    """What is needed of a secret source to verify and to prove."""

    async def get(self, path: str) -> Mapping[str, str]: ...


class Keeps(Reads, Protocol):
    """And to hand out keys."""

    async def swap(self, path: str, before: Mapping[str, str], after: Mapping[str, str]) -> bool:
        """Keep `after` under `path` if `before` is what is there; False where somebody else was faster."""
        ...


async def principals(source: Reads) -> dict[str, Principal]:
    """Every principal. Raises `Refused` where the store holds something else."""
    found: dict[str, Principal] = {}
    for name, text in (await source.get(INDEX)).items():
        try:
            found[name] = Principal.model_validate_json(text)
        except ValidationError as fault:
            field = ".".join(str(part) for part in fault.errors(include_input=False)[0]["loc"])
            raise Refused(
                f"the secret {INDEX!r} says of {name!r} what is no principal (field {field or 'value'}): restore it",
                kind="secrets",
            ) from None
    return found


async def load_ring(source: Reads, known: Ring = EMPTY) -> Ring:
    """The ring as the store holds it. Keys that `known` has are not read again: they never change."""
    found = await principals(source)
    if found == known.principals:
        return known
    keys: dict[tuple[str, str], bytes] = {}
    for name, principal in found.items():
        before = known.principals.get(name)
        if before is not None and set(principal.keys) <= set(before.keys):
            keys |= {(name, kid): known.key(name, kid) for kid in principal.keys}
            continue
        held = await source.get(f"{INDEX}/{name}")
        keys |= {(name, kid): _key(held, name, kid, term) for kid, term in principal.keys.items()}
    return Ring(found, keys)


def _key(held: Mapping[str, str], name: str, kid: str, term: KeyTerm) -> bytes:
    try:
        key = bytes.fromhex(held.get(kid, ""))
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES or commitment(key) != term.commitment:
        raise Refused(
            f"the secret {INDEX}/{name} has no key {kid!r} that fits its commitment: restore it", kind="secrets"
        )
    return key


class Keyring:
    """The ring of a process, kept up to date by `follow`.

    `seen`: a file that says that there was a key once, so that a store which was emptied turns the proof off at no restart.
    """

    def __init__(self, source: Reads, seen: Path) -> None:
        self._source = source
        self._seen = seen
        self.ring = EMPTY

    @classmethod
    async def open(cls, source: Reads, seen: Path) -> "Keyring":
        """Raises `Refused` or `Unavailable`: without knowing the keys there is no start."""
        keyring = cls(source, seen)
        keyring._take(await load_ring(source))
        keyring._check_kept()
        return keyring

    def _check_kept(self) -> None:
        if self.ring.since_ms is None and self._seen.exists():
            raise Refused(
                f"the secret store holds no principal's key, and {self._seen} says that it did: restore it; whoever gives up "
                "proof for good removes that file",
                kind="secrets",
            )

    def _take(self, ring: Ring) -> None:
        """This ring from now on; that there is a key is remembered with the first."""
        if ring.since_ms is not None and self.ring.since_ms is None:
            self._seen.touch(0o600)
        self.ring = ring

    async def refresh(self) -> None:
        """Look again. What cannot be read, or has lost a key, changes nothing and is said."""
        try:
            fresh = await load_ring(self._source, self.ring)
        except (Refused, Unavailable) as fault:
            log.warning("principals' keys stay as they were: %s", fault)
            return
        lost = [
            f"{name}/{kid}"
            for name, principal in self.ring.principals.items()
            for kid in principal.keys
            if name not in fresh.principals or kid not in fresh.principals[name].keys
        ]
        if lost:  # else whoever can empty the store turns the proof off
            log.error("principals' keys stay as they were: the store has lost %s; keys are revoked, not removed", lost)
            return
        self._take(fresh)

    async def follow(self, every_s: float = REFRESH_S) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(every_s)
            await self.refresh()


async def credential(source: Reads, name: str, role: Role, now_ms: int) -> Credential:
    """What `name` proves with in a role: its newest key that counts now. Raises `Refused` that says who could."""
    found = await principals(source)
    able = sorted(who for who, row in found.items() if role in row.roles)
    principal = found.get(name)
    if principal is None or role not in principal.roles:
        said = f"has not the role {role}" if principal is not None else "is not known"
        todo = "" if principal is not None else f"; `ratchet principal add {name} --role {role}` adds it"
        raise Refused(
            f"principal {name!r} {said}; accepted: {', '.join(able) or 'nobody yet'} (--as NAME){todo}",
            kind="principal",
            field="principal",
        )
    counting = sorted((term.not_before_ms, kid) for kid, term in principal.keys.items() if counts(term, now_ms))
    if not counting:
        raise Refused(
            f"no key of principal {name!r} counts now: `ratchet principal list` says why, `rotate {name}` makes a new one",
            kind="principal",
            field="principal",
        )
    kid = counting[-1][1]
    return Credential(name, kid, _key(await source.get(f"{INDEX}/{name}"), name, kid, principal.keys[kid]))


class Voice:
    """What one principal of ours proves with: its newest key, looked up again each `REFRESH_S`."""

    def __init__(self, source: Reads, name: str, role: Role, clock: Clock) -> None:
        self._source = source
        self._name = name
        self._role: Role = role
        self._clock = clock
        self._held: tuple[float, Prove] | None = None

    async def prover(self) -> Prove:
        """Puts a proof on a record; nothing where no key was ever set. Raises `Refused` where only this one has none that counts."""
        now = self._clock.monotonic()
        if self._held is None or now - self._held[0] >= REFRESH_S:
            self._held = now, await self._found()
        return self._held[1]

    async def _found(self) -> Prove:
        if not any(row.keys for row in (await principals(self._source)).values()):
            return lambda row: row
        held = await credential(self._source, self._name, self._role, self._clock.now_ms())
        return lambda row: held.prove(row, at_ms=self._clock.now_ms())


def counts(term: KeyTerm, now_ms: int) -> bool:
    """Whether a key counts at a time."""
    return term.not_before_ms <= now_ms and (term.not_after_ms is None or now_ms < term.not_after_ms)


async def add(
    source: Keeps,
    name: str,
    roles: Sequence[Role],
    tenants: Sequence[str],
    *,
    now_ms: int,
    lead_ms: int = LEAD_MS,
    valid_ms: int | None = None,
) -> str:
    """A new principal with its first key, which counts from `lead_ms` on; the key's id. Raises `Refused` where it is there."""
    for word, text in (("principal", name), *(("tenant", tenant) for tenant in tenants)):
        if not is_name(text):
            raise Refused(
                f"{word} {text!r} is not accepted: letters, digits, . _ - and at most 64 of them",
                kind="principal",
                field=word,
            )
    if name in await principals(source):
        raise Refused(
            f"principal {name!r} is there already: `ratchet principal rotate {name}` gives it another key",
            kind="principal",
            field="principal",
        )
    kid, term = await _made(source, name, now_ms + lead_ms, valid_ms)
    fresh = Principal(roles=tuple(dict.fromkeys(roles)), tenants=tuple(dict.fromkeys(tenants)), keys={kid: term})
    await _announce(source, name, None, fresh)
    return kid


async def rotate(source: Keeps, name: str, *, now_ms: int, overlap_ms: int, valid_ms: int | None = None) -> str:
    """Another key, which counts from `LEAD_MS` on; older ones stop `overlap_ms` after that. The new key's id."""
    before = await _known(source, name)
    kid, term = await _made(source, name, now_ms + LEAD_MS, valid_ms)
    ended = {old: _ending(row, now_ms + LEAD_MS + overlap_ms) for old, row in before.keys.items()}
    await _announce(source, name, before, before.model_copy(update={"keys": {**ended, kid: term}}))
    return kid


async def revoke(source: Keeps, name: str, *, now_ms: int, kid: str | None = None) -> tuple[str, ...]:
    """End a key, or all of them, `LEAD_MS` from now; the ids that ended. What was written before stays proven."""
    before = await _known(source, name)
    if kid is not None and kid not in before.keys:
        raise Refused(
            f"principal {name!r} has no key {kid!r}; known: {', '.join(sorted(before.keys))}",
            kind="principal",
            field="key",
        )
    chosen = tuple(one for one in before.keys if kid in (None, one))
    ended = {one: _ending(before.keys[one], now_ms + LEAD_MS) for one in chosen}
    await _announce(source, name, before, before.model_copy(update={"keys": before.keys | ended}))
    return chosen


async def ensure(source: Keeps, wanted: Mapping[str, Sequence[Role]], *, now_ms: int) -> tuple[str, ...]:
    """Add those that are missing, in force at once: for a stack whose agents do not run yet. Who was added."""
    missing = [name for name in wanted if name not in await principals(source)]
    for name in missing:
        await add(source, name, wanted[name], (), now_ms=now_ms, lead_ms=0)
    return tuple(missing)


def _ending(term: KeyTerm, at_ms: int) -> KeyTerm:
    """It ends then, or earlier where it does already."""
    last = at_ms if term.not_after_ms is None else min(at_ms, term.not_after_ms)
    return term.model_copy(update={"not_after_ms": last})


async def _known(source: Reads, name: str) -> Principal:
    found = await principals(source)
    if name not in found:
        raise Refused(
            f"principal {name!r} is not known; known: {', '.join(sorted(found)) or 'none yet'}",
            kind="principal",
            field="principal",
        )
    return found[name]


async def _made(source: Keeps, name: str, not_before_ms: int, valid_ms: int | None) -> tuple[str, KeyTerm]:
    """A key, in the principal's own secret. Nobody takes it before it is announced."""
    kid, key = f"k-{entropy.token_hex(4)}", entropy.token_bytes(KEY_BYTES)
    for _ in range(TRIES):
        held = await source.get(f"{INDEX}/{name}")
        if await source.swap(f"{INDEX}/{name}", held, {**held, kid: key.hex()}):
            until = None if valid_ms is None else not_before_ms + valid_ms
            return kid, KeyTerm(not_before_ms=not_before_ms, not_after_ms=until, commitment=commitment(key))
    raise Unavailable(f"others keep changing the secret {INDEX}/{name}: try again", retry_after_s=1.0)


async def _announce(source: Keeps, name: str, before: Principal | None, after: Principal) -> None:
    """Put the principal into the index, if it still is what it was."""
    for _ in range(TRIES):
        index = await source.get(INDEX)
        now = Principal.model_validate_json(index[name]) if name in index else None
        if now != before:
            raise Refused(
                f"principal {name!r} was changed by somebody else meanwhile: look, then try again", kind="principal"
            )
        if await source.swap(INDEX, index, {**index, name: json.dumps(after.model_dump(mode="json"))}):
            return
    raise Unavailable(f"others keep changing the secret {INDEX!r}: try again", retry_after_s=1.0)
