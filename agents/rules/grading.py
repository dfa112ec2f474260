"""How an answer is graded: by equality with a reference, by what a person said of the blind answers, or by a judge model.

Grades are thousandths, 0..1000, None where nobody graded. Pure.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.rules.text import normalise, same
from schemas import ids
from schemas.events import ArmVerdict, CaseClosed, VerdictGiven
from schemas.routes import MODEL_GRADERS, Grader

BLINDING = frozenset({"gate", "privacy", "residency"})  # masks of an arm that say: it must not see the text
RIGHT, WRONG = 1000, 0
WHOLE = 65_536


def heads(identity: str, label: str, share: float) -> bool:
    """A hash coin that shows heads for `chance(share)` of the identities; another label is another coin."""
    return share > 0 and ids.coin(identity, label) < share * WHOLE


def chance(share: float) -> float:
    """With what probability `heads` shows heads, exactly: the coin has 65,536 sides. What an estimate is weighted by."""
    return min(1.0, math.ceil(share * WHOLE) / WHOLE)


def teaches(case: CaseClosed) -> bool:
    """Whether what was said of a case's answer may be learnt from as an answer's.

    Not where the gate withheld it, whatever its score or a person said of it: nobody got it. Nor where trust was to release it and nobody
    knows what became of it.
    """
    unknown = case.action in ("hold", "escalate") and case.settled == ""
    return case.withheld != "gate" and not unknown


def asks_model(grader: Grader, answers: int) -> bool:
    """Whether a judge model is asked about so many differing answers: one to rate, two to compare."""
    return (grader == "rubric" and answers >= 1) or (grader == "model" and answers >= 2)


def judges_of(masks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Arm -> its masks in; those that may see the text, whatever else keeps them from answering. A judge model is one of them, or none."""
    return tuple(sorted(arm for arm, codes in masks.items() if BLINDING.isdisjoint(codes)))


def grader_of(grader: Grader, arm: str, masks: Mapping[str, Sequence[str]]) -> Grader:
    """The grader of one request: people in the place of a judge model that must not see the text."""
    return "verdict" if grader in MODEL_GRADERS and arm not in judges_of(masks) else grader


@dataclass(frozen=True, slots=True)
class Grades:
    """Per arm a grade, and the text that is right as far as the verdict tells (None where it does not)."""

    by_arm: Mapping[str, int | None]
    label: str | None


def blind_order(request_id: str, texts: Mapping[str, str]) -> dict[str, list[str]]:
    """Letter -> arms, in an order that says nothing of which arm it is; equal answers share one letter.

    Arms are sorted by SHA-256(request id ‖ arm).
    """
    order = sorted(texts, key=lambda arm: hashlib.sha256(f"{request_id}\x1f{arm}".encode()).digest())
    letters: dict[str, list[str]] = {}
    by_text: dict[str, str] = {}
    for arm in order:
        text = normalise(texts[arm])
        letter = by_text.setdefault(text, chr(ord("A") + len(by_text)))
        letters.setdefault(letter, []).append(arm)
    return letters


def _of_verdict(verdict: ArmVerdict) -> int | None:
    if verdict.decision is not None:
        return RIGHT if verdict.decision == "approve" else WRONG
    return None if verdict.rating is None else round(verdict.rating * 1000)


def grade(request_id: str, texts: Mapping[str, str], verdict: VerdictGiven) -> Grades:
    """Grade every arm that answered. A correction grades all arms; else what was said of their letters does.

    The right text is the correction, else the text of the best approved answer.
    """
    if verdict.corrected is not None:
        right = verdict.corrected
        return Grades({arm: RIGHT if same(text, right) else WRONG for arm, text in texts.items()}, right)
    letters = blind_order(request_id, texts)
    said = {row.label: _of_verdict(row) for row in verdict.answers}
    by_arm = {arm: said.get(letter) for letter, arms in letters.items() for arm in arms}
    best = max((arm for arm, value in by_arm.items() if value is not None), key=lambda a: by_arm[a] or 0, default=None)
    label = texts[best] if best is not None and (by_arm[best] or 0) >= 500 else None
    return Grades(by_arm, label)


def lacks(verdict: VerdictGiven, letters: Sequence[str]) -> str | None:
    """What a verdict lacks to be taken, naming the field; None when it is whole."""
    if verdict.kind == "reference" and verdict.corrected is None:
        return "corrected: a reference verdict needs the right answer's text"
    if verdict.corrected is None and not any(_of_verdict(row) is not None for row in verdict.answers):
        return "answers: give a decision or a rating for an answer, or the corrected text"
    unknown = sorted({row.label for row in verdict.answers} - set(letters))
    if verdict.corrected is None and letters and unknown:
        return f"answers: no answer has the label {', '.join(unknown)}; labels are {', '.join(sorted(letters))}"
    return None
