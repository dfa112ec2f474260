"""A pair: the same request answered by champion and challenger. What each arm did, and what that says of every metric. Pure.

1. A failed arm, or one without a result, is quality 0, exceedance 1, an error; F4 and F8 -1 if it is the challenger, 0 if only the
   champion. A pair is never dropped for it.
2. Equal answers are a tie without a verdict. A verdict that should have come and did not is `None`: 0 for superiority, -1 for
   non-inferiority.
3. A request that was not sampled for review says nothing of quality; its other metrics count.
"""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from agents.rules.metrics import contrast, exceedance, overlaid
from agents.rules.text import normalise
from schemas.events import CaseClosed
from schemas.routes import Arm

D = float | None


class Outcome(BaseModel):
    """One arm's part. Grades in thousandths; `words`: which of the answers it gave, equal answers have equal numbers."""

    model_config = ConfigDict(frozen=True)

    adapter: str | None = None
    ok: bool
    words: int = 0
    grade: int | None = None
    model_grade: int | None = None
    latency_us: int = 0
    nano_usd: int = 0

    @property
    def shown_grade(self) -> int | None:
        """The grade that is displayed: a person's, else the model's; 0 of a failed arm."""
        if not self.ok:
            return 0
        return self.model_grade if self.grade is None else self.grade


class Pending(BaseModel):
    """A request that several arms answer, from its announcement until it is folded in its place."""

    model_config = ConfigDict(frozen=True)

    window_end_ms: int
    arenas: tuple[str, ...]
    subject: str | None = None
    closed: bool = False
    sampled: bool = False
    asked: bool = False
    outcomes: dict[str, Outcome] = {}


def filled(pending: Pending, case: CaseClosed, arms: Mapping[str, Arm]) -> Pending:
    """The pair with what its closed case says of every arm, priced by the arms of the fleet."""
    words: dict[str, int] = {}
    found: dict[str, Outcome] = {}
    for row in case.arms:
        ok = row.status == "completed"
        price = arms.get(row.arm)
        found[row.arm] = Outcome(
            adapter=row.adapter,
            ok=ok,
            words=words.setdefault(normalise(row.text), len(words)) if ok else -1,
            grade=row.grade,
            latency_us=row.latency_us,
            nano_usd=0 if price is None else price.nano_usd_in * row.tokens_in + price.nano_usd_out * row.tokens_out,
        )
    return pending.model_copy(update={"closed": True, "sampled": case.sampled, "outcomes": found})


def quality(
    champion: Outcome, challenger: Outcome, *, sampled: bool, overlay: float | None, asked: bool
) -> tuple[D] | None:
    """(D,), (None,) for a missing verdict, None where the pair says nothing of quality.

    `overlay`: F10's share r where a model grades; `asked`: whether the coin asked a person about this request.
    """
    if not champion.ok and not challenger.ok:
        return (0.0,)
    if champion.ok and challenger.ok and champion.words == challenger.words:
        return (0.0,)
    person = _gap(champion, challenger, champion.grade, challenger.grade)
    if overlay is None:
        return (person,) if person is not None or sampled else None
    model = _gap(champion, challenger, champion.model_grade, challenger.model_grade)
    if model is None or (asked and person is None):
        return (None,)
    return (overlaid(model, person if asked else None, overlay),)


def _gap(champion: Outcome, challenger: Outcome, before: int | None, after: int | None) -> float | None:
    before = before if champion.ok else 0
    after = after if challenger.ok else 0
    return None if before is None or after is None else (after - before) / 1000


def latency(champion: Outcome, challenger: Outcome) -> float:
    """F4 of a pair."""
    if not (champion.ok and challenger.ok):
        return 0.0 if challenger.ok else -1.0
    return contrast(champion.latency_us, challenger.latency_us)


def slowness(champion: Outcome, challenger: Outcome, x0_us: int) -> float:
    """F5 of a pair."""
    before = exceedance(champion.latency_us, x0_us) if champion.ok else 1.0
    return before - (exceedance(challenger.latency_us, x0_us) if challenger.ok else 1.0)


def error(champion: Outcome, challenger: Outcome) -> float:
    """F7 of a pair."""
    return float(champion.ok < challenger.ok) - float(champion.ok > challenger.ok)


def cost(champion: Outcome, challenger: Outcome) -> float:
    """F8 of a pair."""
    if not (champion.ok and challenger.ok):
        return 0.0 if challenger.ok else -1.0
    return contrast(champion.nano_usd, challenger.nano_usd)
