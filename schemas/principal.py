"""Who a record is from: proofs by HMAC-SHA-256 in its headers (docs/contract.md, "Proving who speaks"). Pure: no clock, no store.

Rules:
1. A proof covers principal, key, times, id, type, record key and payload: one changed bit of any of them is refused.
2. The answer depends on the record and the ring alone. Time is when the broker appended the record, never the wall clock, and a
   ring only ever changes for times that lie ahead (`infra.keys`): so a later reader, or a replay, answers the same.
3. No key is no proof: only where a ring holds no key at all is a record taken unproven. Revoking the last key does not open it.
4. Comparing takes constant time; neither a refusal nor a repr holds a key.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from schemas.codec import Encoded, Headers
from schemas.compliance import CommandForget, CommandTenant
from schemas.errors import Refused
from schemas.events import Command, CommandApply, TenantCommand, VerdictGiven
from schemas.payload import ID_PATTERN, Payload
from schemas.topics import BY_NAME

Role = Literal["upstream", "reviewer", "operator", "grader", "shredder"]
SPEAKS: dict[Role, tuple[str, ...]] = {
    "upstream": (BY_NAME["requests"].full, BY_NAME["verdicts"].full),
    "reviewer": (BY_NAME["verdicts"].full,),
    "operator": (BY_NAME["commands"].full,),
    "grader": (BY_NAME["verdicts"].full,),
    "shredder": (BY_NAME["commands"].full,),
}
GRADES = "model."  # a judge model's verdict is `by` this and its arm's name
Prove = Callable[[Encoded], Encoded]
PROVEN = frozenset(topic for topics in SPEAKS.values() for topic in topics)

DOMAIN = b"ratchet-proof/1"
PRINCIPAL, KEY, AT, UNTIL, PROOF = (
    "ratchet-principal",
    "ratchet-key",
    "ratchet-proof-at",
    "ratchet-proof-until",
    "ratchet-proof",
)
OURS = (PRINCIPAL, KEY, AT, UNTIL, PROOF)
_COVERED = frozenset((*OURS, "ce_id", "ce_type"))
KEY_BYTES = 32
AHEAD_MS = 5 * 60_000  # how far the sender's clock may run before the broker's
LONGEST_MS = 24 * 3_600_000
SPAN_MS = 10 * 60_000  # how long our own senders' proofs hold
_MS = re.compile(rb"0|[1-9][0-9]{0,15}")

# No fold gives these to a dead letter of its own: so the log says what was refused for lack of proof (`streams.replay`).
KINDS = frozenset(
    (
        "unproven",  # none or not all of the headers
        "proof-malformed",
        "unknown-key",
        "forged",
        "key-not-valid",  # outside the key's own time: not yet, rotated out, revoked
        "proof-expired",
        "wrong-role",
        "wrong-principal",
        "foreign-tenant",
    )
)


class KeyTerm(BaseModel):
    """When a key counts: `not_before_ms` ≤ append time < `not_after_ms` (None: no end yet). `commitment`: SHA-256 of the key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    not_before_ms: int = Field(ge=0)
    not_after_ms: int | None = Field(default=None, ge=0)
    commitment: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Principal(BaseModel):
    """Who may speak: in which roles, for which tenants (none named: for every one), with which keys. Holds no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roles: tuple[Role, ...] = Field(min_length=1)
    tenants: tuple[str, ...] = ()
    keys: dict[str, KeyTerm] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A principal whose proof held, for one record. `grades`: it speaks for judge models, and so never as a person. `shreds`: it
    tells trainers what to forget, and nothing else; nobody else does."""

    name: str
    tenants: tuple[str, ...]
    grades: bool = False
    shreds: bool = False

    def admits(self, payload: Payload) -> None:
        """Raises `Refused` where the payload speaks for another: another name, or a tenant that the principal is not bound to."""
        named: tuple[str, str] | None = None
        if isinstance(payload, CommandForget) != self.shreds:
            accepted = CommandForget.TYPE if self.shreds else "a principal in the role shredder"
            _refuse("wrong-role", "ce_type", f"{self.name!r} does not say {payload.TYPE}", accepted)
        if isinstance(payload, VerdictGiven) and self.grades:
            if payload.kind != "model":
                _refuse("wrong-role", "kind", f"{self.name!r} speaks for judge models only", "'model'")
            if not payload.by.startswith(GRADES):
                _refuse("wrong-principal", "by", f"{self.name!r} speaks for judge models only", f"{GRADES}<arm>")
        elif isinstance(payload, VerdictGiven):
            named = ("by", payload.by)
        elif isinstance(payload, Command | TenantCommand):
            named = ("operator", payload.operator)
        if named is not None and named[1] != self.name:
            _refuse("wrong-principal", named[0], f"is not {self.name!r}, who proved it", f"{self.name!r}")
        tenants = {payload.tenant}
        if isinstance(payload, CommandApply | CommandTenant):
            tenants.add(payload.settings.tenant)
        if self.tenants and not tenants <= set(self.tenants):
            _refuse("foreign-tenant", "tenant", f"{self.name!r} does not speak for it", " or ".join(self.tenants))


@dataclass(frozen=True, slots=True)
class _Held:
    key: bytes
    term: KeyTerm
    topics: frozenset[str]
    speaker: Speaker

    def __repr__(self) -> str:
        return f"_Held({self.speaker.name!r})"


class Ring:
    """Every principal with its keys, as the secret store held them at one moment. `keys`: (principal, key id) -> key."""

    def __init__(self, principals: Mapping[str, Principal], keys: Mapping[tuple[str, str], bytes]) -> None:
        self.principals = dict(principals)
        self._held: dict[tuple[bytes, bytes], _Held] = {}
        for name, principal in principals.items():
            topics = frozenset(topic for role in principal.roles for topic in SPEAKS[role])
            roles = principal.roles
            speaker = Speaker(name, principal.tenants, grades="grader" in roles, shreds="shredder" in roles)
            for kid, term in principal.keys.items():
                self._held[name.encode(), kid.encode()] = _Held(keys[name, kid], term, topics, speaker)

    def __repr__(self) -> str:
        return f"Ring({sorted(self.principals)})"

    @cached_property
    def since_ms(self) -> int | None:
        """From when on every record must be proven: the start of the first key there ever was. None: no key was ever set."""
        return min((held.term.not_before_ms for held in self._held.values()), default=None)

    def find(self, principal: bytes, kid: bytes) -> _Held | None:
        return self._held.get((principal, kid))

    def key(self, name: str, kid: str) -> bytes:
        """The key itself: for another ring."""
        return self._held[name.encode(), kid.encode()].key


EMPTY = Ring({}, {})


def verify(
    ring: Ring, *, topic: str, headers: Headers, key: bytes | None, value: bytes | None, at_ms: int
) -> Speaker | None:
    """Who speaks in a record of one of the `PROVEN` topics, appended at `at_ms`; None where nothing has to be proven yet.

    Raises `Refused` of one of the `KINDS`. The payload is still to be shown to `Speaker.admits`.
    """
    if ring.since_ms is None or at_ms < ring.since_ms:
        return None
    found: dict[str, bytes] = {}
    for name, data in headers:
        if name in _COVERED:
            if name in found:
                _refuse("proof-malformed", name, "stands there twice", "each header once")
            found[name] = data
    if missing := [name for name in OURS if name not in found]:
        _refuse("unproven", missing[0], "is missing", "the headers " + ", ".join(OURS))
    if "ce_id" not in found or "ce_type" not in found or key is None or value is None:
        _refuse("proof-malformed", "ce_id", "a proof covers id, type, key and payload", "a record that has all four")
    held = ring.find(found[PRINCIPAL], found[KEY])
    if held is None:
        _refuse("unknown-key", KEY, "no such key of such a principal is known", "a principal's key that was handed out")
    made = _mac(
        held.key,
        canonical(found[PRINCIPAL], found[KEY], found[AT], found[UNTIL], found["ce_id"], found["ce_type"], key, value),
    )
    if not hmac.compare_digest(made, found[PROOF]):
        _refuse("forged", PROOF, "does not fit the record", "64 lower-case hex digits over this very record")
    _in_time(held.term, found[AT], found[UNTIL], at_ms)
    if topic not in held.topics:
        accepted = ", ".join(sorted(held.topics))
        _refuse("wrong-role", PRINCIPAL, f"{held.speaker.name!r} does not speak on {topic}", accepted)
    return held.speaker


def _in_time(term: KeyTerm, since: bytes, until: bytes, at_ms: int) -> None:
    if not (_MS.fullmatch(since) and _MS.fullmatch(until)):
        _refuse("proof-malformed", AT, "is no time", "Unix epoch milliseconds in decimal")
    if not term.not_before_ms <= at_ms or (term.not_after_ms is not None and at_ms >= term.not_after_ms):
        _refuse("key-not-valid", KEY, "the key did not count when the record was written", "the principal's newest key")
    first, last = int(since), int(until)
    if not first <= last <= first + LONGEST_MS:
        _refuse("proof-malformed", UNTIL, "is before the proof or too long after it", "at most a day after the proof")
    if not first - AHEAD_MS <= at_ms <= last:
        said = "has passed" if at_ms > last else "lies more than five minutes ahead"
        _refuse("proof-expired", UNTIL, f"the proof's time {said}", "a proof made anew")


def _refuse(kind: str, field: str, said: str, accepted: str) -> NoReturn:
    raise Refused(f"{field}: {said}; accepted: {accepted}", kind=kind, field=field, accepted=accepted)


def canonical(
    principal: bytes, kid: bytes, at: bytes, until: bytes, ce_id: bytes, ce_type: bytes, key: bytes, value: bytes
) -> bytes:
    """The bytes that a proof is over: each part after its length as four bytes, the greatest first; of the payload its SHA-256."""
    parts = (DOMAIN, principal, kid, at, until, ce_id, ce_type, key, hashlib.sha256(value).digest())
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256").hex().encode()


@dataclass(frozen=True, slots=True)
class Credential:
    """What a principal proves with: its name, a key's id, the key."""

    name: str
    kid: str
    key: bytes

    def __repr__(self) -> str:
        return f"Credential({self.name!r}, {self.kid!r})"

    def prove(self, row: Encoded, *, at_ms: int, span_ms: int = SPAN_MS) -> Encoded:
        """The record with its proof, in place of any that it had."""
        headers = tuple(pair for pair in row.headers if pair[0] not in OURS)
        told = dict(headers)
        name, kid = self.name.encode(), self.kid.encode()
        at, until = str(at_ms).encode(), str(at_ms + span_ms).encode()
        body = canonical(name, kid, at, until, told["ce_id"], told["ce_type"], row.key, row.value)
        proof = (PRINCIPAL, name), (KEY, kid), (AT, at), (UNTIL, until), (PROOF, _mac(self.key, body))
        return Encoded(row.key, row.value, (*headers, *proof))


def is_name(text: str) -> bool:
    """Whether a text can be a principal's name or a key's id."""
    return re.fullmatch(ID_PATTERN, text) is not None


def commitment(key: bytes) -> str:
    """What may be shown of a key."""
    return "sha256:" + hashlib.sha256(b"ratchet-key/1" + key).hexdigest()
