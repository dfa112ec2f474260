"""The collector: reads every recorded topic and appends to the log, a checkpoint per batch."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from agents.evidence import coverage
from agents.evidence.ports import Clock, EvidenceKeys, Facts, LogReader, Read, Source
from agents.evidence.record import Draft
from agents.evidence.sequencer import MAX_BATCH, Sequencer, Signed
from schemas.errors import Unavailable
from schemas.events import AuditCheckpoint
from schemas.tlog.strict import encode_base64

BATCH_S = 0.2
_RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
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
        facts: Facts,
        clock: Clock,
    ) -> None:
        self._sequencer = sequencer
        self._reader = reader
        self._keys = keys
        self._facts = facts
        self._clock = clock
        self._frontiers: dict[Source, int] = {}
        self._since_full = 0
        self._held: list[Read] = []  # read, but for a later batch

    @property
    def frontiers(self) -> Mapping[Source, int]:
        """Per partition the next offset to record."""
        return self._frontiers

    async def run(self, stop: asyncio.Event) -> None:
        """Collect until `stop`; what was read by then is signed before this returns."""
        await self._resume()
        while self._held or not stop.is_set():
            await self.step()

    async def _resume(self) -> None:
        """Go on where the signed bytes say, and repeat the last announcement: its id is the same."""
        self._frontiers = await asyncio.to_thread(coverage.frontiers, self._sequencer.newest_first())
        self._since_full = coverage.FULL_EVERY if self._frontiers else 0
        await self._reader.seek(self._frontiers)
        if self._sequencer.signed is not None:
            await self._announce(self._sequencer.signed)

    async def step(self) -> Signed | None:
        """One batch: read, append, sign, announce. None when there was nothing to record."""
        batch = await self._collect()
        if not batch.spans:
            return None
        drafts = await asyncio.to_thread(lambda: [Draft(record) for record in batch.records])
        tenants = Counter(draft.tenant for draft in drafts)
        keys = {tenant: await self._keys.commitment_key(tenant) for tenant in tenants}
        entries = await asyncio.to_thread(lambda: [draft.build(keys[draft.tenant]) for draft in drafts])
        full = not self._frontiers or self._since_full + len(entries) >= coverage.FULL_EVERY
        entries += batch.closing(tenants, full=full)
        signed = await self._commit(entries)
        self._frontiers = batch.next()
        self._since_full = 0 if full else self._since_full + len(entries)
        await self._announce(signed)
        return signed

    async def _collect(self) -> coverage.Batch:
        batch = coverage.Batch(self._frontiers)
        until = self._clock.monotonic() + BATCH_S
        while len(self._held) < MAX_BATCH and (left := until - self._clock.monotonic()) > 0:
            self._held += await self._reader.poll(left)
        for read in self._held[:MAX_BATCH]:
            batch.add(read)
        del self._held[:MAX_BATCH]
        return batch

    async def _commit(self, entries: Sequence[bytes]) -> Signed:
        for wait_s in (*_RETRY_S, None):
            try:
                if self._sequencer.pending:
                    return await self._sequencer.finish()
                return await self._sequencer.commit(entries)
            except Unavailable as exc:
                if wait_s is None:
                    raise
                _log.warning("no checkpoint is signed, trying again in %.1f s: %s", wait_s, exc)
                await self._clock.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

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
        await self._facts.send(payload, f"{checkpoint.origin}/{checkpoint.size}")
