"""Trust with real detectors and keys, for tests of what goes out."""

from agents.ports import Clock, Store
from agents.rules.masking import MaskMap
from agents.screen import Screen
from agents.trust.actor import Trust
from agents.trust.release import Held
from infra.detect import detect
from infra.sealing import GateKeys
from streams.shapes import View

KEYS = GateKeys(bytes(range(32)))


def trust(view: View, clock: Clock, store: Store | None = None, *, keys: GateKeys = KEYS) -> Trust:
    """Trust as wiring makes it."""
    return Trust(view, clock, Screen(detect, clock.monotonic), keys, store)


def looked(tenant: str = "default") -> Held:
    """What the shell finds out on a route without a gate: no scan, nothing was replaced."""
    return Held(None, MaskMap(), KEYS.mark_key(tenant))
