"""A pair: the same request answered by champion and challenger. What each arm did, and what that says of every metric. Pure.

1. A failed arm, or one without a result, is quality 0, exceedance 1, an error. F4 and F8 are what a latency or cost
   without end gives: -1 where only the challenger failed, 1 where only the champion did, 0 where both did. No pair is dropped for it.
2. Equal answers are a tie without a verdict. A verdict that should have come and did not is `None`: 0 for superiority, -1 for
   non-inferiority.
3. A request that was not sampled for review says nothing of quality; its other metrics count.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from agents.rules.metrics import contrast, exceedance, overlaid
from agents.rules.text import normalise
from schemas.events import CaseClosed
from schemas.routes import Arm


@dataclass(frozen=True, slots=True)
class Quality:
    """D of a pair, None for a missing verdict. `bounds`: under F10 what each null takes a missing one for, never to its gain."""

    d: float | None
    bounds: Mapping[str, float] | None = None


@dataclass(slots=True)  # a value that nobody changes
class Outcome:
    """One arm's part. Grades in thousandths; `words`: which of the answers it gave, equal answers have equal numbers.

    `strange`: it answered with another adapter than the arm has.
    """

    ok: bool
    words: int = 0
    grade: int | None = None
    model_grade: int | None = None
    latency_us: int = 0
    nano_usd: int = 0
    strange: bool = False

    @property
    def shown_grade(self) -> int | None:
        """The grade that is displayed: a person's, else the model's; 0 of a failed arm."""
        if not self.ok:
            return 0
        return self.model_grade if self.grade is None else self.grade


@dataclass(slots=True)  # a value that nobody changes
class Pending:
    """A request that several arms answer, from its announcement until it is folded in its place."""

    window_end_ms: int
    arenas: tuple[str, ...]
    subject: str | None = None
    closed: bool = False
    sampled: bool = False
    asked: bool = False
    outcomes: Mapping[str, Outcome] = field(default_factory=dict[str, Outcome])


def filled(pending: Pending, case: CaseClosed, arms: Mapping[str, Arm]) -> Pending:
    """The pair with what its closed case says of every arm, priced by the arms of the fleet."""
    words: dict[str, int] = {}
    found: dict[str, Outcome] = {}
    for row in case.arms:
        ok = row.status == "completed"
        arm = arms.get(row.arm)
        found[row.arm] = Outcome(
            ok=ok,
            words=words.setdefault(normalise(row.text), len(words)) if ok else -1,
            grade=row.grade,
            model_grade=row.model_grade,
            latency_us=row.latency_us,
            nano_usd=0 if arm is None else arm.nano_usd_in * row.tokens_in + arm.nano_usd_out * row.tokens_out,
            strange=arm is None or (ok and row.adapter != arm.adapter),
        )
    return Pending(
        window_end_ms=pending.window_end_ms,
        arenas=pending.arenas,
        subject=pending.subject,
        closed=True,
        sampled=case.sampled or case.human_share > 0,  # a judge model was asked about all
        asked=case.human_sampled,
        outcomes=found,
    )


def quality(
    champion: Outcome, challenger: Outcome, *, sampled: bool, overlay: float | None, asked: bool
) -> Quality | None:
    """What a pair says of quality; None where it says nothing.

    `overlay`: F10's share r where a model grades; `asked`: whether the coin asked a person about this request.
    """
    if not champion.ok and not challenger.ok:
        return Quality(0.0)
    if champion.ok and challenger.ok and champion.words == challenger.words:
        return Quality(0.0)
    person = _gap(champion, challenger, champion.grade, challenger.grade)
    if overlay is None:
        return Quality(person) if person is not None or sampled else None
    model = _model_gap(champion, challenger)
    if model is not None and (person is not None or not asked):
        return Quality(overlaid(model, person if asked else None, overlay))
    known = -1.0 if model is None else model
    tied = min(0.0, overlaid(known, 0.0 if asked else None, overlay))
    lost = overlaid(known, -1.0 if asked else None, overlay)
    return Quality(None, {"better": tied, "margin": lost, "harm": lost, "worse": 0.0})


def _model_gap(champion: Outcome, challenger: Outcome) -> float | None:
    """D^. A judge model is not asked to compare with nothing: -1 where the challenger failed, 0 where the champion did."""
    said = _gap(champion, challenger, champion.model_grade, challenger.model_grade)
    if said is None and champion.ok != challenger.ok:
        return -1.0 if champion.ok else 0.0
    return said


def _gap(champion: Outcome, challenger: Outcome, before: int | None, after: int | None) -> float | None:
    before = before if champion.ok else 0
    after = after if challenger.ok else 0
    return None if before is None or after is None else (after - before) / 1000


def latency(champion: Outcome, challenger: Outcome) -> float:
    """F4 of a pair."""
    if not (champion.ok and challenger.ok):
        return error(champion, challenger)
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
        return error(champion, challenger)
    return contrast(champion.nano_usd, challenger.nano_usd)
