"""What the published log tells `ratchet.audit`: each finding, violation, erasure, step of an incident and checkpoint once, by its index.

The log is the outbox: below the cursor, which moves in the transaction that sends, everything is said. Statements that
entries call for are signed on the same walk, and lie beside the log before the cursor passes them.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, cast

from agents.evidence.attest import STATEMENTS, path_of
from agents.evidence.coverage import FINDING
from agents.evidence.ports import Attestor, AuditPublisher, Clock, RolledBack
from agents.evidence.sequencer import Sequencer, Signed
from agents.evidence.violations import VIOLATION
from schemas import canonical
from schemas.compliance import AuditRecorded, ComplianceViolation
from schemas.events import AuditCheckpoint, AuditFinding
from schemas.payload import Payload
from schemas.tlog.strict import encode_base64

_TYPE = b'"type":"'
_ERASED, _INCIDENT = "subject.erased", "incident."
_BEGINNINGS = tuple(kind.encode() for kind in (FINDING, VIOLATION, _ERASED, _INCIDENT, *STATEMENTS))
_AT_ONCE = 500


class Announcer:
    """Walks the published log from its cursor."""

    def __init__(
        self, sequencer: Sequencer, publisher: AuditPublisher, clock: Clock, attestor: Attestor | None = None
    ) -> None:
        self._sequencer = sequencer
        self._publisher = publisher
        self._clock = clock
        self._attestor = attestor
        self._told = 0

    async def check(self) -> None:
        """Raise RolledBack when more was announced than our directory holds. Before anything new is signed."""
        cursor = await self._publisher.start()
        if cursor is not None and cursor > self._sequencer.size:
            raise RolledBack(
                f"a checkpoint of {cursor} entries was announced, the log's directory has {self._sequencer.size}; accepted: "
                "the newest directory of this log"
            )

    async def catch_up(self) -> None:
        """Announce what is published and was not announced. Raises Unavailable: call again, nothing is said twice."""
        published = self._sequencer.published
        if published is None or published.checkpoint.size <= self._told:
            return
        size = published.checkpoint.size
        cursor = await self._publisher.start() or 0
        if cursor < size:
            told: list[tuple[Payload, str]] = []
            for index, entry, said in await asyncio.to_thread(list, self._noteworthy(cursor, size)):
                if said["type"] in STATEMENTS:
                    await self._attest(index, entry, said["type"])
                    continue
                told.append((self._payload(index, said), f"{self._sequencer.origin}/{index}"))
                if len(told) == _AT_ONCE:
                    await self._publisher.publish(told, index + 1)
                    told = []
            await self._publisher.publish([*told, self._checkpoint(published)], size)
        self._told = size

    def _noteworthy(self, first: int, end: int) -> Iterator[tuple[int, bytes, Mapping[str, Any]]]:
        """What is announced or calls for a statement: (index, entry, its value)."""
        for index, entry in self._sequencer.entries(first, end):
            kind = entry[entry.rfind(_TYPE) + len(_TYPE) :]  # keys are sorted: the entry's own is the last one
            if kind.startswith(_BEGINNINGS):
                said = cast("Mapping[str, Any]", canonical.decode(entry))
                if _is_told(said):
                    yield index, entry, said

    async def _attest(self, index: int, entry: bytes, kind: str) -> None:
        name = path_of(index, kind)
        if self._attestor is None or await asyncio.to_thread(self._sequencer.attached, name):
            return
        envelope = await self._attestor.attest(index, entry)
        await asyncio.to_thread(self._sequencer.attach, name, envelope)

    def _payload(self, index: int, said: Mapping[str, Any]) -> Payload:
        at_ms = self._clock.now_ms()
        if said["type"] == FINDING:
            detail = {name: value for name, value in said.items() if name not in ("v", "type", "kind")}
            told = canonical.encode(detail).decode()
            return AuditFinding(at_ms=at_ms, log_index=index, kind=said["kind"], detail=told)
        if said["type"] == VIOLATION:
            controls = tuple(said["controls"])
            return ComplianceViolation(at_ms=at_ms, log_index=index, finding=said["finding"], controls=controls)
        return AuditRecorded(at_ms=at_ms, tenant=said["tenant"], log_index=index, id=said["id"], of=said["type"])

    def _checkpoint(self, published: Signed) -> tuple[Payload, str]:
        checkpoint = published.checkpoint
        payload = AuditCheckpoint(
            at_ms=self._clock.now_ms(),
            log_index=checkpoint.size - 1,
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=encode_base64(checkpoint.root),
            note=published.note.decode(),
        )
        return payload, f"{checkpoint.origin}/{checkpoint.size}"


def _is_told(said: Mapping[str, Any]) -> bool:
    """What somebody sent under the name of a finding is none of ours: ours have no id."""
    kind = str(said["type"])
    if kind in (FINDING, VIOLATION):
        return "id" not in said
    return kind in STATEMENTS or kind == _ERASED or kind.startswith(_INCIDENT)
