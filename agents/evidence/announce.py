"""What the published log tells `ratchet.audit`: each finding and each checkpoint once, named by their indices.

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
from schemas import canonical
from schemas.events import AuditCheckpoint, AuditFinding
from schemas.payload import Payload
from schemas.tlog.strict import encode_base64

_MARKS = tuple(f'"type":"{kind}"'.encode() for kind in (FINDING, *STATEMENTS))
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
            findings: list[tuple[Payload, str]] = []
            for index, entry, kind in await asyncio.to_thread(list, self._noteworthy(cursor, size)):
                if kind != FINDING:
                    await self._attest(index, entry, kind)
                    continue
                findings.append(self._finding(index, entry))
                if len(findings) == _AT_ONCE:
                    await self._publisher.publish(findings, index + 1)
                    findings = []
            await self._publisher.publish([*findings, self._checkpoint(published)], size)
        self._told = size

    def _noteworthy(self, first: int, end: int) -> Iterator[tuple[int, bytes, str]]:
        """Findings and what calls for a statement: (index, entry, type)."""
        for index, entry in self._sequencer.entries(first, end):
            if any(mark in entry for mark in _MARKS):  # nested, they may be somebody's facts
                said = cast("Mapping[str, Any]", canonical.decode(entry))
                ours = "id" not in said  # what somebody sent under the name of a finding is none
                if said["type"] in STATEMENTS or (said["type"] == FINDING and ours):
                    yield index, entry, said["type"]

    async def _attest(self, index: int, entry: bytes, kind: str) -> None:
        name = path_of(index, kind)
        if self._attestor is None or await asyncio.to_thread(self._sequencer.attached, name):
            return
        envelope = await self._attestor.attest(index, entry)
        await asyncio.to_thread(self._sequencer.attach, name, envelope)

    def _finding(self, index: int, entry: bytes) -> tuple[Payload, str]:
        said = dict(cast("Mapping[str, Any]", canonical.decode(entry)))
        kind = said.pop("kind")
        detail = {name: value for name, value in said.items() if name not in ("v", "type")}
        payload = AuditFinding(
            at_ms=self._clock.now_ms(), log_index=index, kind=kind, detail=canonical.encode(detail).decode()
        )
        return payload, f"{self._origin}/{index}"

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

    @property
    def _origin(self) -> str:
        return self._sequencer.origin
