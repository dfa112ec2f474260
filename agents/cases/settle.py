"""What trust is told of an answer that it held, or never scored. Pure."""

from agents.cases.joined import Joined, Result
from agents.rules.grading import grade
from schemas.events import DecisionRouted, ResultCompleted, ResultFailed, ScoreAssigned, VerdictGiven


def settled(
    case: Joined, decision: DecisionRouted, score: ScoreAssigned | None, *, window_ended: bool
) -> dict[str, object] | None:
    """The fields of `review.settled`; None while it cannot be settled.

    What trust held is settled as soon as it can be, and at the end what it escalated in vain; what it never scored at the end alone.
    """
    serving, left = case.serving(), case.standing_in()
    held = score is not None and (score.action == "hold" or (window_ended and score.action == "escalate"))
    at_once = score is not None and not score.gated and case.now_ms < decision.window_end_ms
    part = case.first(model=False)
    first = None if part is None else part.verdict
    if held and left is None and serving is not None and isinstance(serving[0], ResultFailed):
        return {"outcome": "withheld", "reason": "failed", "detail": serving[0].reason[:500]}
    if held and left is not None and at_once:
        return _stands_in(case, *left)
    if held and first is not None and _heard(case, first, window_ended=window_ended):
        return _by_verdict(case, first, serving)
    if window_ended:
        return {"outcome": "withheld", "reason": "window_ended"}
    return None


def _stands_in(case: Joined, answer: ResultCompleted, result_id: str) -> dict[str, object]:
    """The first answer of a route that holds nothing for people, when its second attempt failed."""
    first = case.score_of(1)
    return {
        "outcome": "released",
        "reason": "failed",
        "detail": "the second attempt failed: the first answer stands",
        "text": answer.text,
        "arm": answer.arm,
        "adapter": answer.adapter,
        "result_id": result_id,
        "score": None if first is None else first.score,
        "mask_map": case.map_of(1),
    }


def _heard(case: Joined, verdict: VerdictGiven, *, window_ended: bool) -> bool:
    """Whether the verdict can be read now: no held answer waits for a shadow once the right text is known, and letters are
    read when all arms are done, or at the end where only one answer exists."""
    if case.arms_done():
        return True
    if verdict.corrected is not None:
        return window_ended or case.serving() is not None
    return window_ended and len(case.texts()) == 1


def _by_verdict(case: Joined, verdict: VerdictGiven, serving: tuple[Result, str] | None) -> dict[str, object]:
    """An approved answer goes out, the serving arm's first; else the correction; else nothing."""
    texts = case.texts()
    grades = grade(case.key, texts, verdict)
    arms = [] if serving is None else [serving[0].arm]
    arms += sorted(texts)
    finals = case.finals()
    for arm in arms:
        if arm in texts and (grades.by_arm.get(arm) or 0) >= 500:
            result, result_id = finals[arm]
            return {
                "outcome": "released",
                "reason": "approved",
                "text": texts[arm],
                "arm": arm,
                "adapter": result.adapter,
                "result_id": result_id,
                "mask_map": case.map_of(result.attempt),
            }
    if verdict.corrected is not None:
        # Whoever wrote it saw the first decision's messages, and their placeholders.
        return {
            "outcome": "released",
            "reason": "corrected",
            "text": verdict.corrected,
            "mask_map": case.map_of(1),
        }
    return {"outcome": "withheld", "reason": "rejected"}
