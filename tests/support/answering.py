"""Trust with real detectors and keys, and what it reads, for tests of what goes out."""

from collections.abc import Callable, Sequence
from typing import Any

from gates import CLINIC

from agents.ports import Clock, Store
from agents.rules.masking import MaskMap
from agents.screen import Screen
from agents.trust.actor import Keys, Learn, Trust
from agents.trust.release import Held
from infra.detect import detect
from infra.sealing import GateKeys
from schemas.compliance import PolicyGate
from schemas.events import ResultCompleted, ReviewSettled
from schemas.findings import Finding
from schemas.policies import PolicyRoute
from schemas.routes import Arm, Route
from streams.shapes import Event, P, Record, View

NOW = 1_800_000_000_000
KEYS = GateKeys(bytes(range(32)))
SUBJECT = "5" * 32
VALUES = MaskMap({"[EMAIL_1]": "anna@example.org", "[CARD_1]": "4111 1111 1111 1111"})
SECRET = "AKIA" + "Z7QX3MRTP2KVW5ND"  # what detectors take for a key of a cloud


def trust(
    view: View,
    clock: Clock,
    store: Store | None = None,
    *,
    keys: Keys = KEYS,
    look: Callable[[str], Sequence[Finding]] = detect,
    monotonic: Callable[[], float] | None = None,
    learn: Learn | None = None,
) -> Trust:
    """Trust as wiring makes it."""
    return Trust(view, clock, Screen(look, monotonic or clock.monotonic), keys, store, learn)


def looked(tenant: str = "default") -> Held:
    """What the shell finds out on a route without a gate: no scan, nothing was replaced."""
    return Held(None, MaskMap(), KEYS.mark_key(tenant))


def sealed(request_id: str = "r1", known: MaskMap = VALUES, *, tenant: str = "clinic", event_id: str = "x0") -> str:
    return KEYS.seal_map(tenant, request_id, event_id, known)


def event_of(payload: P, event_id: str = "x1") -> Event[P]:
    record = Record("ratchet." + payload.TOPIC, 0, 1, payload.event_key().encode(), b"", (), NOW)
    return Event(event_id, payload.event_key(), payload, "test", "", record.place, record)


def route(**changes: Any) -> PolicyRoute:
    told = {"route": "ward", "tenant": "clinic", "arms": (Arm(arm="a", base="sha256:0"),), "champion": "a"}
    settings = Route.model_validate(told | {"release": "immediate", "review_share": 1.0} | changes)
    return PolicyRoute(at_ms=NOW, version=1, route="ward", tenant="clinic", settings=settings)


def clinic(**changes: Any) -> PolicyGate:
    settings = CLINIC.model_copy(update=changes)
    return PolicyGate(at_ms=NOW, version=settings.version, tenant="clinic", settings=settings)


_ABOUT: dict[str, Any] = {
    "tenant": "clinic", "at_ms": NOW, "route": "ward", "request_id": "r1", "request_partition": 0, "request_offset": 4,
    "request_at_ms": NOW - 70, "subject": SUBJECT, "decision_id": "d1", "arm": "a", "mask_map": "",
}  # fmt: skip


def result(text: str, **changes: Any) -> ResultCompleted:
    told = {
        "text": text, "shadow": False, "final": True, "assigned_at_ms": NOW - 50, "window_end_ms": NOW + 60_000,
        "latency_ms": 50.0, "adapter": "sha256:7", "tokens_in": 3, "tokens_out": 2, "ttft_ms": 1.0, "engine_ms": 2.0,
        "finish_reason": "stop", "logprobs": (-0.1, -0.3), "engine": "e",
    }  # fmt: skip
    return ResultCompleted.model_validate(_ABOUT | told | changes)


def settled(text: str, reason: str = "approved", **changes: Any) -> ReviewSettled:
    told = {"text": text, "outcome": "released", "reason": reason, "result_id": "x9", "adapter": "sha256:7"}
    return ReviewSettled.model_validate(_ABOUT | told | changes)
