"""Principals for tests: a ring, and records proven or not."""

from collections.abc import Mapping
from typing import Any

from schemas import codec, ids
from schemas.codec import Encoded
from schemas.payload import Payload
from schemas.principal import Credential, KeyTerm, Principal, Ring, Role, Speaker, commitment
from streams.shapes import Record
from streams.wire import Verify, speaker


def secret(name: str) -> bytes:
    """A principal's key; another for another name."""
    return name.encode().ljust(32, b"-")


def credential(name: str) -> Credential:
    return Credential(name, "k1", secret(name))


def ring_of(roles: Mapping[str, tuple[Role, ...]], **term: Any) -> Ring:
    """Principals with one key each, which counts from the beginning of time unless said."""
    keys = {
        name: {"k1": KeyTerm(**{"not_before_ms": 0, "commitment": commitment(secret(name))} | term)} for name in roles
    }
    return Ring(
        {name: Principal(roles=roles[name], keys=keys[name]) for name in roles},
        {(name, "k1"): secret(name) for name in roles},
    )


class Ears:
    """A `Verify` whose ring may be replaced while agents run."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def __call__(self, record: Record) -> Speaker | None:
        return speaker(self.ring, record)


def encoded(payload: Payload, event_id: str) -> Encoded:
    """An unproven record."""
    return codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))


__all__ = ["Ears", "Verify", "credential", "encoded", "ring_of", "secret"]
