"""The collector: reads every recorded topic and appends to the log, a checkpoint per batch."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from agents.evidence import coverage
from agents.evidence.announce import Announcer
from agents.evidence.ports import Attestor, AuditPublisher, Clock, EvidenceKeys, Frontier, LogReader, Read, Source
from agents.evidence.record import Draft, pseudonym
from agents.evidence.sequencer import MAX_BATCH, Sequencer, Signed
from schemas.errors import Unavailable

BATCH_S = 0.2
LINGER_S = 0.5
"""So long a batch waits for its checkpoint's witnesses; then the next one is recorded while they are still being asked."""
_RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Collector:
    """Source positions live in the log: after a crash it goes on where the last signed coverage ends.

    A batch is at most 4,096 reads or what comes in 0.2 s. When notary, disk or broker stay away longer than the retries
    last, `run` raises Unavailable: nothing unsigned was published, and the next start goes on. Witnesses that are away hold
    up publishing alone. RolledBack, SplitView, LogDamaged end it: a person must look.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        reader: LogReader,
        keys: EvidenceKeys,
        publisher: AuditPublisher,
        clock: Clock,
        attestor: Attestor | None = None,
    ) -> None:
        self._sequencer = sequencer
        self._reader = reader
        self._keys = keys
        self._announcer = Announcer(sequencer, publisher, clock, attestor)
        self._clock = clock
        self._frontiers: dict[Source, Frontier] = {}
        self._since_full = 0
        self._held: list[Read] = []  # read, but for a later batch
        self._publishing: asyncio.Task[None] | None = None

    @property
    def frontiers(self) -> Mapping[Source, Frontier]:
        """Per partition how far it is recorded."""
        return self._frontiers

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop`; what was read by then is signed before this returns."""
        try:
            await self._resume()
            while self._held or not stop.is_set():
                await self.step()
            await self._published()
        finally:
            if self._publishing is not None:
                self._publishing.cancel()
                await asyncio.gather(self._publishing, return_exceptions=True)

    async def _resume(self) -> None:
        """Go on where the signed bytes say, and announce what was published but not announced."""
        await self._patiently("the last announcement cannot be read", self._announcer.check)
        self._frontiers = await asyncio.to_thread(coverage.frontiers, self._sequencer.newest_first())
        self._since_full = coverage.FULL_EVERY if self._frontiers else 0
        await self._patiently("the topics cannot be read", lambda: self._reader.seek(self._frontiers))
        await self._publish_aside()

    async def step(self) -> Signed | None:
        """One batch: read, append, sign, publish, announce. None when there was nothing to record."""
        batch = await self._collect()
        if not batch.spans:
            await self._publish_aside()
            return None
        entries, full = await asyncio.to_thread(self._entries, batch)
        signed = await self._patiently("no checkpoint is signed", lambda: self._commit(entries))
        self._frontiers = batch.next()
        self._since_full = 0 if full else self._since_full + len(entries)
        await self._publish_aside()
        return signed

    async def _collect(self) -> coverage.Batch:
        batch = coverage.Batch(self._frontiers)
        until = self._clock.monotonic() + BATCH_S
        while len(self._held) < MAX_BATCH and self._clock.monotonic() < until:
            self._held += await self._patiently(
                "the topics cannot be read", lambda: self._reader.poll(max(0.0, until - self._clock.monotonic()))
            )
        for read in self._held[:MAX_BATCH]:
            batch.add(read)
        del self._held[:MAX_BATCH]
        return batch

    def _entries(self, batch: coverage.Batch) -> tuple[list[bytes], bool]:
        entries: list[bytes] = []
        findings: list[bytes] = []
        tenants: Counter[str] = Counter()
        for record, inc in batch.records:
            draft = Draft(record, inc)
            keys = self._keys.commitment_key(draft.tenant), self._keys.pseudonym_key(draft.tenant)
            tenants[pseudonym(keys[1], "tenant", draft.tenant)] += 1
            entries.append(draft.build(*keys))
            if draft.refused:
                findings.append(coverage.finding(draft.refused, record, inc))
        full = not self._frontiers or self._since_full + len(entries) >= coverage.FULL_EVERY
        return entries + findings + batch.closing(tenants, full=full), full

    async def _commit(self, entries: Sequence[bytes]) -> Signed:
        """Append and sign, or finish what is bound already."""
        if self._sequencer.pending:
            return await self._sequencer.finish()
        return await self._sequencer.append(entries)

    async def _publish_aside(self) -> None:
        """Have what is signed published without holding up the recording. Raises what ended the last attempt."""
        if self._publishing is not None:
            if not self._publishing.done():
                return
            self._publishing.result()
        self._publishing = asyncio.create_task(self._publish())
        done, _ = await asyncio.wait({self._publishing}, timeout=LINGER_S)
        for task in done:
            task.result()

    async def _published(self) -> None:
        """At the end: what is under way, and once more what was signed meanwhile."""
        if self._publishing is not None:
            await self._publishing
        await self._publish()

    async def _publish(self) -> None:
        """Publish what is signed, as soon as enough witnesses have seen it, and announce it."""
        await self._patiently("the checkpoint is not published", self._sequencer.publish)
        await self._patiently("the checkpoint is not announced", self._announcer.catch_up)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try while the world is away, a bounded time; then its Unavailable is the caller's."""
        for wait_s in _RETRY_S:
            try:
                return await attempt()
            except Unavailable as exc:
                _log.warning("%s, trying again in %.1f s: %s", what, wait_s, exc)
                await self._clock.sleep(wait_s)
        return await attempt()
