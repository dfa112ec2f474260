"""The collector: reads every recorded topic and appends to the log, a checkpoint per batch."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from agents.evidence import coverage
from agents.evidence.ports import AuditPublisher, Clock, EvidenceKeys, Frontier, LogReader, Read, Source
from agents.evidence.record import Draft, pseudonym
from agents.evidence.sequencer import MAX_BATCH, Sequencer, Signed
from schemas.errors import Unavailable
from schemas.events import AuditCheckpoint
from schemas.tlog.strict import encode_base64

BATCH_S = 0.2
_RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Collector:
    """Source positions live in the log: after a crash it goes on where the last signed coverage ends.

    A batch is at most 4,096 reads or what comes in 0.2 s. When notary or broker stay away longer than the retries last,
    `run` raises Unavailable: nothing unsigned was published, and the next start goes on.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        reader: LogReader,
        keys: EvidenceKeys,
        publisher: AuditPublisher,
        clock: Clock,
    ) -> None:
        self._sequencer = sequencer
        self._reader = reader
        self._keys = keys
        self._publisher = publisher
        self._clock = clock
        self._frontiers: dict[Source, Frontier] = {}
        self._since_full = 0
        self._held: list[Read] = []  # read, but for a later batch

    @property
    def frontiers(self) -> Mapping[Source, Frontier]:
        """Per partition how far it is recorded."""
        return self._frontiers

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop`; what was read by then is signed before this returns."""
        await self._resume()
        while self._held or not stop.is_set():
            await self.step()

    async def _resume(self) -> None:
        """Go on where the signed bytes say, and announce what was signed but not announced."""
        self._frontiers = await asyncio.to_thread(coverage.frontiers, self._sequencer.newest_first())
        self._since_full = coverage.FULL_EVERY if self._frontiers else 0
        await self._patiently("the topics cannot be read", lambda: self._reader.seek(self._frontiers))
        if self._sequencer.signed is not None:
            await self._announce(self._sequencer.signed)

    async def step(self) -> Signed | None:
        """One batch: read, append, sign, announce. None when there was nothing to record."""
        batch = await self._collect()
        if not batch.spans:
            return None
        entries, full = await asyncio.to_thread(self._entries, batch)
        signed = await self._patiently("no checkpoint is signed", lambda: self._commit(entries))
        self._frontiers = batch.next()
        self._since_full = 0 if full else self._since_full + len(entries)
        await self._announce(signed)
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
        tenants: Counter[str] = Counter()
        for record, inc in batch.records:
            draft = Draft(record, inc)
            keys = self._keys.commitment_key(draft.tenant), self._keys.pseudonym_key(draft.tenant)
            tenants[pseudonym(keys[1], "tenant", draft.tenant)] += 1
            entries.append(draft.build(*keys))
        full = not self._frontiers or self._since_full + len(entries) >= coverage.FULL_EVERY
        return entries + batch.closing(tenants, full=full), full

    async def _commit(self, entries: Sequence[bytes]) -> Signed:
        """Append and sign, or finish what is bound already."""
        if self._sequencer.pending:
            return await self._sequencer.finish()
        return await self._sequencer.commit(entries)

    async def _announce(self, signed: Signed) -> None:
        checkpoint = signed.checkpoint
        payload = AuditCheckpoint(
            at_ms=self._clock.now_ms(),
            log_index=checkpoint.size - 1,
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=encode_base64(checkpoint.root),
            note=signed.note.decode(),
        )

        async def announce() -> None:
            cursor = await self._publisher.start()
            if cursor is None or cursor < checkpoint.size:
                await self._publisher.publish([(payload, f"{checkpoint.origin}/{checkpoint.size}")], checkpoint.size)

        await self._patiently("the checkpoint is not announced", announce)

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try while the world is away, a bounded time; then its Unavailable is the caller's."""
        for wait_s in _RETRY_S:
            try:
                return await attempt()
            except Unavailable as exc:
                _log.warning("%s, trying again in %.1f s: %s", what, wait_s, exc)
                await self._clock.sleep(wait_s)
        return await attempt()
