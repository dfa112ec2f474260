"""The collector: reads every recorded topic and appends to the log, a checkpoint per batch."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from agents.evidence import coverage
from agents.evidence.announce import Announcer
from agents.evidence.building import Item, built, items
from agents.evidence.keytable import Erased, Missing, SubjectKey, Wanted
from agents.evidence.payloads import FOLDER, files_of, written_before
from agents.evidence.ports import (
    Attestor,
    AuditPublisher,
    Clock,
    EvidenceKeys,
    Frontier,
    LogReader,
    Read,
    Source,
    SubjectKeys,
)
from agents.evidence.sequencer import MAX_BATCH, Beside, Sequencer, Signed
from schemas.errors import Unavailable
from schemas.topics import DAY_MS

BATCH_S = 0.2
LINGER_S = 0.5
"""So long a batch waits for its checkpoint's witnesses; then the next one is recorded while they are still being asked."""
_RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0)
HOUSE_S = 60.0
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Collector:
    """Source positions live in the log: after a crash it goes on where the last signed coverage ends.

    Records of subjects are committed to under their own keys, and lie sealed beside the log for `payload_days`; what an erasure
    covers is committed to under a key that nobody keeps, and is not sealed.

    A batch is at most 4,096 reads or what comes in 0.2 s. When notary, disk, broker or the keys' keeper stay away longer than
    the retries last, `run` raises Unavailable: nothing unsigned was published, and the next start goes on. Witnesses that are
    away hold up publishing alone. RolledBack, SplitView, LogDamaged end it: a person must look.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        reader: LogReader,
        keys: EvidenceKeys,
        subjects: SubjectKeys,
        publisher: AuditPublisher,
        clock: Clock,
        attestor: Attestor | None = None,
        payload_days: int = 31,
    ) -> None:
        self._sequencer = sequencer
        self._reader = reader
        self._keys = keys
        self._subjects = subjects
        self._payload_ms = payload_days * DAY_MS
        self._house_kept_s: float | None = None
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
        await self._keep_house()
        if not batch.spans:
            await self._publish_aside()
            return None
        records = await asyncio.to_thread(items, batch.records, self._keys)
        wanted = {item.wanted for item in records if item.wanted is not None}
        keys = await self._patiently("subjects have no keys", lambda: self._subjects.make(wanted))
        entries, beside, full = await asyncio.to_thread(self._entries, batch, records, keys)
        signed = await self._patiently("no checkpoint is signed", lambda: self._commit(entries, beside))
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

    def _entries(
        self, batch: coverage.Batch, records: Sequence[Item], keys: Mapping[Wanted, SubjectKey | Erased | Missing]
    ) -> tuple[list[bytes], Beside, bool]:
        """The batch's entries, the file with its payloads, and whether its coverage is a full one."""
        done = built(records, self._keys, keys)
        full = not self._frontiers or self._since_full + len(done.entries) >= coverage.FULL_EVERY
        beside = files_of(done.payloads, self._sequencer.size, self._clock.now_ms())
        return done.entries + done.findings + batch.closing(done.tenants, full=full), beside, full

    async def _commit(self, entries: Sequence[bytes], beside: Beside) -> Signed:
        """Append and sign, or finish what is bound already."""
        if self._sequencer.pending:
            return await self._sequencer.finish()
        return await self._sequencer.append(entries, beside)

    async def _keep_house(self) -> None:
        """Now and then: let go of keys that were erased meanwhile, remove payloads whose time is over."""
        now_s = self._clock.monotonic()
        if self._house_kept_s is not None and now_s < self._house_kept_s + HOUSE_S:
            return
        self._house_kept_s = now_s
        await self._patiently("the keyring cannot be read", lambda: self._subjects.make(()))
        before_ms = self._clock.now_ms() - self._payload_ms
        prune = partial(self._sequencer.prune, FOLDER, lambda name: written_before(name, before_ms))
        await self._patiently("payloads are not removed", lambda: asyncio.to_thread(prune))

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
