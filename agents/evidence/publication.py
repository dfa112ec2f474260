"""Steps 4 and 5 of a batch: the witnesses see a signed checkpoint, and what the policy then accepts is published.

4. witnesses                     crash: ask again, same body
5. `policy.txt`, `checkpoint`    crash: made again from `signed`
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence

from agents.evidence import disk
from agents.evidence.intent import Signed
from agents.evidence.log import CHECKPOINT, POLICY, STOPPED, LogDamaged
from agents.evidence.ports import Cosigned, LogStore, RolledBack, SplitView
from agents.evidence.quorum import Quorum
from agents.evidence.trust import NO_WITNESS, Trust
from schemas.tlog import merkle, note
from schemas.tlog.policy import Policy, open_checkpoint

Passed = Callable[[str], None]
_log = logging.getLogger(__name__)


class Publication:
    """What of a log is published. Nothing is that `policy.txt` beside it would not accept."""

    def __init__(self, store: LogStore, quorum: Quorum | None, check: note.SignatureCheck, passed: Passed) -> None:
        self.published: Signed | None = None
        self._store = store
        self._quorum = quorum
        self._check = check
        self._passed = passed
        self._stopped: RolledBack | SplitView | None = None

    @property
    def policy(self) -> Policy:
        """Whom the next trust entry asks for; its logs are the sequencer's."""
        return self._quorum.policy if self._quorum else NO_WITNESS

    @property
    def witnessed(self) -> bool:
        """Whether there is anybody to ask."""
        return self._quorum is not None

    def go_on(self) -> None:
        """Raise what a witness has once said against this log: it stands, over restarts, until a person has looked."""
        if self._stopped is not None:
            raise self._stopped

    def check_stopped(self) -> None:
        """At the start: raise LogDamaged where a witness stopped the log. It may be away now, and could not say it again."""
        said = self._store.read(STOPPED)
        if said is not None:
            raise LogDamaged(
                f"{said.decode().strip()}; accepted: the newest directory of this log, without {STOPPED}, once a person "
                "knows what happened"
            )

    def finding(self, *, said_away: bool) -> bytes | None:
        """The entry that the log owes about its witnesses."""
        size = self.published.checkpoint.size if self.published else 0
        return self._quorum.finding(size, said_away=said_away) if self._quorum else None

    async def publish(self, signed: Signed, trust: Trust) -> None:
        """Both steps, unless the checkpoint is published or it is not time to ask again."""
        self.go_on()
        if not self._up_to_date(signed) and (self._quorum is None or self._quorum.due):
            await self.renew(signed, trust)

    async def renew(self, signed: Signed, trust: Trust) -> None:
        """Both steps; a checkpoint that is published already stays as it is."""
        said = await self.ask(signed)
        data = signed.note + "".join(_known(said.lines, trust)).encode()
        try:
            open_checkpoint(data, trust.policy, self._check)
        except note.Untrusted as exc:
            if self._quorum is None:
                raise LogDamaged(f"the checkpoint of {signed.checkpoint.size} entries: {exc}") from exc
            self._quorum.missed(list(said.missing))
            why = "; ".join(f"{name}: {reason}" for name, reason in said.missing.items())
            _log.warning("the checkpoint of %d entries waits for witnesses: %s", signed.checkpoint.size, why or exc)
            return
        if self._quorum is not None:
            self._quorum.met()
        if not self._up_to_date(signed):
            await asyncio.to_thread(self._put_out, Signed(signed.checkpoint, data), trust)

    async def ask(self, signed: Signed) -> Cosigned:
        """Step 4. What a witness refuses for good stops everything."""
        if self._quorum is None:
            return Cosigned((), {})
        self._passed("asking")
        try:
            said = await self._quorum.ask(signed.checkpoint, signed.note, lambda old: self._proof(old, signed))
        except (RolledBack, SplitView) as exc:
            self._stopped = exc
            await asyncio.to_thread(self._store.replace, STOPPED, f"{type(exc).__name__}: {exc}\n".encode())
            raise
        self._passed("answered")
        return said

    def _up_to_date(self, signed: Signed) -> bool:
        return self.published is not None and self.published.checkpoint == signed.checkpoint

    def _proof(self, old: int, signed: Signed) -> list[bytes]:
        new = signed.checkpoint.size
        return merkle.consistency_proof(old, new, disk.reader(self._store, new)) if 0 < old < new else []

    def _put_out(self, published: Signed, trust: Trust) -> None:
        policy = trust.text.encode()
        if self._store.read(POLICY) != policy:
            self._store.replace(POLICY, policy)
            self._passed("policy")
        self._store.replace(CHECKPOINT, published.note)
        self.published = published
        self._passed("checkpoint")


def _known(lines: Sequence[str], trust: Trust) -> Iterator[str]:
    """The lines of witnesses that the readers of this checkpoint know: they refuse all others."""
    keys = {(witness.key.name, witness.key.key_id) for witness in trust.policy.witnesses.values()}
    for line in lines:
        if any((sign.name, sign.key_id) in keys for sign in note.parse_note(f"\n\n{line}".encode())[1]):
            yield line
