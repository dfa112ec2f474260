"""Step 4 of the sequencer: the witnesses of a policy, asked without letting one that is away hold the log up."""

from collections.abc import Callable, Sequence

from agents.evidence.coverage import FINDING
from agents.evidence.ports import Clock, Cosigned, Witnesses
from agents.evidence.record import is_token
from schemas import canonical
from schemas.tlog.note import Checkpoint
from schemas.tlog.policy import Policy

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0
AWAY_S = 30.0
"""So long the quorum may be missing before the log says so."""
AWAY, BACK = "witness-away", "witness-back"


class Quorum:
    """Who must have seen a checkpoint before it is published, and how they are.

    While the quorum is missing they are asked again after 0.5 s, then doubling up to 15 s: recording goes on between.
    """

    def __init__(self, policy: Policy, witnesses: Witnesses, clock: Clock) -> None:
        self.policy = policy
        self._witnesses = witnesses
        self._clock = clock
        self._wait_s = 0.0
        self._again_at = 0.0
        self._met = False
        self._missing_since: float | None = None
        self._missing: tuple[str, ...] = ()

    @property
    def due(self) -> bool:
        """Whether it is time to ask."""
        return self._clock.monotonic() >= self._again_at

    async def ask(self, checkpoint: Checkpoint, note: bytes, prove: Callable[[int], Sequence[bytes]]) -> Cosigned:
        """Ask now. Raises RolledBack, SplitView. The caller says by `met` or `missed` whether it was enough."""
        return await self._witnesses.cosign(checkpoint, note, prove)

    def met(self) -> None:
        """Enough of them answered."""
        self._met, self._missing_since, self._missing = True, None, ()
        self._wait_s, self._again_at = 0.0, 0.0

    def missed(self, petnames: Sequence[str]) -> None:
        """These did not, and the others are too few."""
        now = self._clock.monotonic()
        self._met = False
        self._wait_s = min(LONGEST_WAIT_S, 2 * self._wait_s or FIRST_WAIT_S)
        self._again_at = now + self._wait_s
        self._missing_since = now if self._missing_since is None else self._missing_since
        self._missing = tuple(petnames)

    def finding(self, published: int, *, said_away: bool) -> bytes | None:
        """The entry that the log still owes about an outage: once when it has lasted, once when it is over."""
        if not said_away and self._lasting():
            missing = [name for name in self._missing if is_token(name)]
            return _finding(AWAY, {"missing": missing, "published": published})
        if said_away and self._met:
            return _finding(BACK, {"published": published})
        return None

    def _lasting(self) -> bool:
        return self._missing_since is not None and self._clock.monotonic() - self._missing_since >= AWAY_S


def _finding(kind: str, detail: canonical.Json) -> bytes:
    return canonical.encode({"v": 1, "type": FINDING, "kind": kind, "detail": detail})
