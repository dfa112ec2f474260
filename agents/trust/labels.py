"""What a closed case says to the ladder: its signals, whether its answer was right, and whether that label may count."""

from collections.abc import Sequence
from typing import Final, TypeVar

from agents.rules.grading import teaches
from agents.trust.state import GRACE_MS, Label, RouteTrust
from schemas.events import CaseClosed
from schemas.policies import SIGNALS

SIGNAL_MOST: Final = 1e6  # none that `decide.signals_of` makes is near; its square must stay a number
RIGHT_FROM: Final = 500
Case = TypeVar("Case", bound=CaseClosed)


def of_arm(case: Case, arm: str) -> Case:
    """The case as that arm's: where its answer was escalated, with the score of that answer.

    Else the ladder would know only those of the arm's answers that were not scored low enough to escalate, and certify a rung that
    reaches below on the word of those above. Who is judged is a coin of the request, so the label is as random a part of these.
    """
    first = case.escalated
    if first is None or case.arm == arm or first.arm != arm:
        return case
    told = {"arm": arm, "score": first.score, "z": first.z, "signals": first.signals, "scorer": first.scorer}
    return case.model_copy(update=told | {"certified": False})


def scored(case: CaseClosed, record: RouteTrust) -> bool:
    """Whether the case has a score that the ladder can use: its champion answered, and every signal is a number in range.

    What the gate withheld counts for no rung: nobody got it. Of rejected answers nobody knows what the gate would have said; they count,
    so that the share of rejects is never too low.
    """
    if not teaches(case):
        return False
    if case.arm != record.arm or case.grader != record.grader or len(case.signals) != len(SIGNALS):
        return False
    if not in_range(case.signals):
        return False
    return any(arm.arm == case.arm and not arm.shadow and arm.status == "completed" for arm in case.arms)


def in_range(signals: Sequence[float]) -> bool:
    """Whether each is a number that trust could have made; one that is none is not."""
    return all(abs(one) <= SIGNAL_MOST for one in signals)


def label_of(case: CaseClosed) -> bool | None:
    """Whether the serving arm's answer was right; None where the case may not teach trust.

    A person's verdict only where the score stood before it; a reference's always; a model's never.
    """
    fair = case.verdict_after_score or case.verdict_kind == "reference"
    return grade_of(case) if fair and case.verdict_kind in ("person", "reference") else None


def grade_of(case: CaseClosed) -> bool | None:
    """Whether the serving arm's answer was called right; None where nobody said so, or the grade is out of range."""
    for arm in case.arms:
        if arm.arm == case.arm and not arm.shadow:
            known = arm.grade is not None and arm.status == "completed" and 0 <= arm.grade <= 1000
            return arm.grade >= RIGHT_FROM if known and arm.grade is not None else None
    return None


def counts(case: CaseClosed, record: RouteTrust) -> bool:
    """Whether a label is of the random, blind part: drawn for review by its coin, and given since the ladder began."""
    given_ms = case.at_ms if case.verdict_at_ms is None else case.verdict_at_ms
    return case.sampled and case.label_propensity > 0.0 and given_ms >= record.since_ms


def word_of(right: bool | None) -> Label:
    """The label as it is kept."""
    return "none" if right is None else "right" if right else "wrong"


def turn_ms(case: CaseClosed) -> int:
    """When all that was assigned before this case has closed: its window's end, `cases`' grace, and as much again for what is under way."""
    window_ms = max(0, case.window_end_ms - case.assigned_at_ms)
    return max(case.assigned_at_ms, case.window_end_ms) + 2 * min(GRACE_MS, max(1_000, window_ms))
