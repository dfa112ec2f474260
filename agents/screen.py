"""The shell of the gate: runs the detectors over texts, by a clock. What follows from what they found is decided elsewhere.

Nothing is said of a text but where something was found in it: no log line, no exception's words.
"""

import asyncio
import logging
import operator
from collections.abc import Callable, Sequence

from schemas.findings import Finding, Kind
from schemas.gate import Scan

AT_ONCE = 4000  # characters that are scanned in the event loop itself: less than half a millisecond
GIVEN_UP_S = 1.0  # a detector that is not back by then will not come back: whoever waits for it is told that it failed
Work = Sequence[tuple[Callable[[str], Sequence[Finding]], str]]
log = logging.getLogger("ratchet")


class Screen:
    """Scans texts. Never raises for what a detector did: a scan that is not whole says so, and has no findings at all.

    So what an unfinished scan says does not depend on how far it came, and a replay that knows that it was late says the same.
    `computed`: seconds that count against a scan, read by the thread that scans. In a running agent they are the thread's own: on a
    machine whose processors are taken a scan of microseconds may stand still for longer than it may take, and nothing would be wrong
    with the text. A detector that only waits spends none of them: it is given up.
    """

    def __init__(
        self,
        detect: Callable[[str], Sequence[Finding]],
        computed: Callable[[], float],
        named: Callable[[str], Sequence[Finding]] | None = None,
    ) -> None:
        self._detect = detect
        self._named = named or detect
        self._computed = computed

    async def scan(
        self, texts: Sequence[str], *, most_characters: int, budget_us: int, names: str | None = None
    ) -> Scan:
        """Each text's findings, and behind them those of `names` by the detectors of names, where there is such a text.

        Texts that are longer than `most_characters` together are not scanned: their length denies them.
        """
        work = [(self._detect, text) for text in texts]
        if names is not None:
            work.append((self._named, names))
        characters = sum(len(text) for _, text in work)
        if characters > most_characters:
            return Scan(_nothing(work), characters, 0)
        if characters <= AT_ONCE:
            return self._scanned(work, characters, budget_us)
        task = asyncio.ensure_future(asyncio.to_thread(self._scanned, work, characters, budget_us))
        done, _ = await asyncio.wait({task}, timeout=GIVEN_UP_S)
        if done:
            return task.result()
        log.error("a detector did not end within %g s: the text is taken for one that may not go on", GIVEN_UP_S)
        return Scan(_nothing(work), characters, 0, failed=True)

    def _scanned(self, work: Work, characters: int, budget_us: int) -> Scan:
        began = self._computed()
        found: list[tuple[Finding, ...]] = []
        for detect, text in work:
            try:
                found.append(tuple(_sound(one, len(text)) for one in detect(text)))
            except Exception as fault:  # noqa: BLE001  whatever it is: the text is not known to be clean, and its words may quote it
                log.error("a detector failed with %s: the text may not go on", type(fault).__name__)  # noqa: TRY400  likewise
                return Scan(_nothing(work), characters, 0, failed=True)
            if self._spent_us(began) > budget_us:
                return Scan(_nothing(work), characters, self._spent_us(began))
        return Scan(tuple(found), characters, self._spent_us(began))

    def _spent_us(self, began: float) -> int:
        return round((self._computed() - began) * 1_000_000)


def _sound(one: Finding, length: int) -> Finding:
    """The finding. Raises ValueError for one that lies nowhere in its text, or is none: what decides must not stumble over it."""
    kind, start, end = one.kind, one.start, one.end
    if (
        Kind(kind) is not kind
        or not 0 <= operator.index(start) < operator.index(end) <= length
        or not 0 <= one.score <= 1
    ):
        raise ValueError("a finding outside its text, of no kind or with no score")
    return one


def _nothing(work: Work) -> tuple[tuple[Finding, ...], ...]:
    return ((),) * len(work)
