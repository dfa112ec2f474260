"""Derived identifiers and derived randomness: the same cause gives the same id and the same coin, on any machine."""

import hashlib
import uuid

NAMESPACE = uuid.UUID("8f1f2a52-5b0c-5d0e-9c33-7d8a5f1c4e10")
_NAMESPACE = NAMESPACE.bytes


def derive(cause: str, agent: str, index: int | str) -> str:
    """The id of the `index`-th event that `agent` emits because of `cause`: UUIDv5 (RFC 9562, 5.5).

    As `uuid.uuid5(NAMESPACE, …)` gives it, at a quarter of its cost: every emit of every agent has one.
    """
    name = f"{cause}/{agent}/{index}".encode()
    found = bytearray(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    found[6] = found[6] & 0x0F | 0x50
    found[8] = found[8] & 0x3F | 0x80
    text = found.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def coin(identity: str, label: str) -> int:
    """A uniform 16-bit number (0..65535) drawn from an id: the first 16 bits of SHA-256(id ‖ label)."""
    return int.from_bytes(hashlib.sha256(f"{identity}\x1f{label}".encode()).digest()[:2], "big")


def bucket(experiment: str, identity: str) -> int:
    """The rollout bucket 0..9999 of an id within an experiment. Raising a share never moves an id back out."""
    return int.from_bytes(hashlib.sha256(f"{experiment}\x1f{identity}".encode()).digest()[:8], "big") % 10_000


def short(identity: str) -> str:
    """12 hex digits of an id's SHA-256: to know it again where few are kept."""
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def digest(data: bytes) -> str:
    """The content address `sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def trace_parent(cause: str | None, event_id: str) -> str:
    """The W3C `traceparent` of an event: the trace of its cause, a span derived from the event's own id."""
    span = hashlib.sha256(event_id.encode()).hexdigest()[:16]
    if cause is not None and len(cause) == 55 and cause.startswith("00-"):
        return f"{cause[:36]}{span}-{cause[53:]}"
    trace = hashlib.sha256(b"trace\x1f" + event_id.encode()).hexdigest()[:32]
    return f"00-{trace}-{span}-01"
