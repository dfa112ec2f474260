"""What the learner watches beside its weights: does the router do worse than the champion, do predictions come true, does it swing? Pure.

None of it learns: the guard shuts the router, the others say so in `policy.router` (`alarms`).
"""

from collections.abc import Mapping

from agents.router import guard
from agents.router.drift import SWING_MS, Calibration, Oscillation
from agents.router.guard import Guard
from agents.router.state import Label, Part, RouteLearner
from schemas.events import ArmTerms, CaseClosed

MICRO = 1_000_000


def guarded(held: Guard, case: CaseClosed, labels: Mapping[str, Label], champion: str) -> Guard:
    """The guard after a graded case of the strategy that learns. While the champion serves, a shadow's grade beside it is the evidence."""
    terms = terms_of(case)
    if case.routing is None or case.routing.strategy != "balanced" or champion not in terms:
        return held
    if held.champion_serves:
        scores = {arm: one.score for arm, one in terms.items() if one.score is not None}
        best = max(sorted(scores), key=lambda arm: scores[arm] or 0, default=champion)
        if best == champion or best not in labels or champion not in labels:
            return held
        return guard.observed(held, guard.paired(labels[best].quality, labels[champion].quality))
    drawn, expected = case.drawn or case.arm, terms[champion].quality
    if case.strategy != "balanced" or expected is None or drawn not in labels:
        return held
    order = [choice.arm for choice in case.choices]
    shares = [choice.propensity for choice in case.choices]
    d = guard.difference(labels[drawn].quality, expected, order.index(drawn), order.index(champion), shares, shares)
    return guard.observed(held, d)


def drifted(
    part: Part, case: CaseClosed, labels: Mapping[str, Label], preferred: str
) -> tuple[Part, tuple[tuple[int, str], ...]]:
    """Calibration and oscillation after a case, and what swings now. `preferred`: the tier's arm."""
    calibration, oscillation = part.calibration or Calibration(), part.oscillation or Oscillation()
    terms = terms_of(case)
    for arm in sorted(labels):
        predicted = terms[arm].quality if arm in terms else None
        if predicted is not None and labels[arm].weight >= 1:
            calibration = calibration.add(arm, _unit(predicted), _unit(labels[arm].quality))
    seen: list[tuple[int, str]] = []
    keys = {f"tier {case.routing.complexity}": preferred} if case.routing is not None and preferred else {}
    for lost in (row.arm for row in case.arms if row.status == "failed" and not row.shadow):
        keys[f"fallback of {lost}"] = case.arm
    for key, arm in sorted(keys.items()):
        oscillation, swinging = oscillation.see(key, arm, case.at_ms)
        if swinging is not None:
            words = f"{key}: {swinging.before} and {swinging.arm} in turn, {swinging.swings} times in ten minutes"
            seen.append((case.at_ms, f"oscillation of {words}"))
    return Part(calibration=calibration, oscillation=oscillation), tuple(seen)


def alarms(record: RouteLearner, part: Part | None, at_ms: int) -> tuple[str, ...]:
    """What an operator should look at, in words."""
    found = [words for since_ms, words in record.swings if since_ms > at_ms - SWING_MS]
    if part is not None and part.calibration is not None:
        found += [
            f"calibration of {gap.arm}: predicted {gap.predicted / MICRO:.3f}, graded {(gap.predicted + gap.gap) / MICRO:.3f} "
            f"({gap.n} grades of its decile {gap.decile + 1})"
            for gap in part.calibration.alarms()
        ]
    return tuple(found)


def terms_of(case: CaseClosed) -> dict[str, ArmTerms]:
    """Arm -> what the decision thought of it."""
    return {choice.arm: choice.terms for choice in case.choices if choice.terms is not None}


def _unit(quality: int) -> int:
    return max(0, min(quality, MICRO))
