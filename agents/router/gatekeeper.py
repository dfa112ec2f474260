"""The shell of the gate: the detectors' scan of a request, the word of the rules on it, and what was taken out, sealed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.router import gate
from agents.router.observed import Gated, Policies
from agents.rules.masking import MaskMap
from schemas.events import RequestSubmitted
from schemas.gate import Scan

SealMap = Callable[[str, str, str, MaskMap, int], str]
"""(tenant, request id, event id, map, when) -> the map sealed, the same for the same arguments."""


class Scans(Protocol):
    """The detectors."""

    async def scan(
        self, texts: Sequence[str], *, most_characters: int, budget_us: int, names: str | None = None
    ) -> Scan:
        """Never raises for what a detector did."""
        ...


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """What a route with a gate needs."""

    screen: Scans
    seal_map: SealMap

    async def look(
        self, request: RequestSubmitted, key: str, event_id: str, policies: Policies, now_ms: int
    ) -> tuple[Gated, str]:
        """What goes on of the request, or why nothing does; and what its placeholders stand for, sealed, "" where there are none.

        `key`: the record's.
        """
        characters, microseconds = gate.scan_limits(now_ms)
        *texts, names = gate.texts_of(request, key)
        scan = await self.screen.scan(texts, most_characters=characters, budget_us=microseconds, names=names)
        gated = gate.gated(request, policies, scan, now_ms, key)
        if not gated.map.values:
            return gated, ""
        return gated, self.seal_map(request.tenant, request.request_id, event_id, gated.map, now_ms)
