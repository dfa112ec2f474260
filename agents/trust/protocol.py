"""When a route's answers may go out without a person: SHADOW, ENFORCE, back again.

| from | by | to |
| --- | --- | --- |
| SHADOW | an operator's grant, or `enforce: automatic`; a certificate, and the kill switch tested | ENFORCE at the loosest certified rung |
| ENFORCE | a looser rung is certified; a scorer that covers more takes over | ENFORCE there |
| ENFORCE | the detector's alarm | ENFORCE at the next tighter certified rung, else SHADOW; gated where `on_alarm: gate` |
| any | the kill switch (`withdraw`) | SHADOW, and every answer waits for a person, until an operator's grant or reset |
| any | another champion, grader, risk or delta; `reset` (other reviewers) | SHADOW with a ladder that begins anew |
| any | a grant with a threshold | GRANTED: released on the operator's word, uncertified |
"""

from agents.rules.detector import Detector
from agents.trust.state import CANDIDATE, LEARNER, RUNNING, Agreement, Part, RouteTrust, Standing, Version

FIRST_FIT = 200  # labels before the learner's map is tried as a candidate
CANDIDATE_LABELS = 2000  # counted labels after which a candidate that covers no more makes way for a newer one


def words(standing: Standing) -> str:
    """Where a route stands, for people."""
    record, covers = standing.record, standing.running.covers()
    if record.mode == "GRANTED":
        said = f"GRANTED >= {record.threshold:g}"
    elif record.mode == "ENFORCE":
        said = f"ENFORCE {record.rung} %"
    else:
        said = f"SHADOW, {covers} % certified" if covers else "SHADOW"
    return said + (", gated" if record.gate and record.immediate else "")


def lacks(standing: Standing) -> tuple[str, ...]:
    """What is missing for ENFORCE; () where nothing is. The detector is armed with the rung: it begins there."""
    missing: list[str] = []
    if standing.record.settings.enforce == "off":
        missing.append("trust.enforce is off for this route")
    if not standing.running.covers():
        missing.append("no rung is certified")
    if standing.record.drilled_ms is None:
        missing.append("the kill switch was never tested (command.trust drill)")
    return tuple(missing)


def alarmed(record: RouteTrust) -> bool:
    """Whether the detector says that what is released goes wrong: the next `advance` steps back."""
    return record.mode == "ENFORCE" and record.detector is not None and record.detector.alarmed()


def advance(standing: Standing) -> tuple[str, ...]:
    """What follows from the labels so far; the reasons of what changed, in order."""
    reasons: list[str] = []
    record = standing.record
    if alarmed(record):
        reasons.append(_alarm(standing))
    candidate = standing.candidate
    if candidate is not None and candidate.covers() > standing.running.covers():
        reasons.append(_take_over(standing, candidate))
    _refit(standing)
    covers = standing.running.covers()
    if standing.record.mode == "ENFORCE" and covers > standing.record.rung:
        reasons.append(f"certified: {covers} %")
        standing.change(rung=covers)
    record = standing.record
    automatic = record.settings.enforce == "automatic" and not record.withdrawn
    if record.mode == "SHADOW" and automatic and not lacks(standing):
        enforce(standing, "")
        reasons.append("trust.enforce is automatic")
    return tuple(reasons)


def enforce(standing: Standing, by: str) -> None:
    """Release at the certified rung, watched by a detector that begins now. Nothing may be lacking."""
    standing.change(
        mode="ENFORCE",
        rung=standing.running.covers(),
        granted_by=by,
        detector=Detector.at(standing.record.settings.risk),
    )


def _alarm(standing: Standing) -> str:
    """One rung back: what is looser begins at E = 1, and so does the detector."""
    record, running = standing.record, standing.running
    level = 0.0 if record.detector is None else record.detector.level()
    if running.rungs is not None:
        rungs = running.rungs.demoted(record.rung)
        standing.write(RUNNING, Part(version=running.model_copy(update={"rungs": rungs})))
    covers = standing.running.covers()
    standing.change(
        mode="ENFORCE" if covers else "SHADOW",
        rung=covers,
        detector=Detector.at(record.settings.risk) if covers else None,
        gate=record.gate or record.gates,
    )
    return f"alarm at {record.rung} %: the audit's rejects reached {level:.0f} of 10000"


def _take_over(standing: Standing, candidate: Version) -> str:
    before = standing.running
    standing.remove_version(RUNNING)
    standing.write(RUNNING, Part(version=candidate))
    standing.remove_version(CANDIDATE)
    if standing.record.mode == "ENFORCE":
        standing.change(rung=candidate.covers(), detector=Detector.at(standing.record.settings.risk))
    return (
        f"scorer {candidate.scorer.name} covers {candidate.covers()} %, {before.scorer.name} {before.covers()} %: "
        "it takes over"
    )


def _refit(standing: Standing) -> None:
    """What is learnt by now runs beside as a new version that counts only what comes later."""
    candidate, learner = standing.candidate, standing.learner
    if learner.labels < FIRST_FIT or (candidate is not None and candidate.counted < CANDIDATE_LABELS):
        return
    standing.remove_version(CANDIDATE)
    standing.change(number=standing.record.number + 1)
    scorer = learner.freeze(f"logistic/{standing.record.number}")
    standing.write(CANDIDATE, Part(version=Version(scorer=scorer, since=standing.record.told)))


def reset(standing: Standing, at_ms: int) -> None:
    """SHADOW, and nothing of what was counted counts: the best map so far begins as a new version. Gate and withdrawal stay."""
    record, learner = standing.record, standing.learner
    number = record.number + 1
    old = standing.running.scorer
    if learner.labels >= FIRST_FIT:
        scorer = learner.freeze(f"logistic/{number}")
    else:
        scorer = old.model_copy(update={"name": f"{old.name.partition('/')[0]}/{number}"})
    standing.remove_version(RUNNING)
    standing.remove_version(CANDIDATE)
    standing.forget_waiting()
    standing.write(RUNNING, Part(version=Version(scorer=scorer, since=record.told)))
    standing.write(LEARNER, Part(learner=learner.restart()))
    standing.change(
        mode="SHADOW",
        rung=0,
        granted_by="",
        detector=None,
        number=number,
        since_ms=at_ms,
        agreement=Agreement(),
    )


def withdraw(standing: Standing, at_ms: int) -> None:
    """The kill switch. What the ladder has counted stays."""
    standing.change(mode="SHADOW", rung=0, granted_by="", detector=None, gate=True, withdrawn=True, drilled_ms=at_ms)


def granted(record: RouteTrust, by: str, threshold: float) -> dict[str, object]:
    """The record's changes where an operator releases on his own word."""
    return {
        "mode": "GRANTED",
        "granted_by": by,
        "threshold": threshold,
        "rung": 0,
        "detector": None,
        "gate": False,
        "withdrawn": False,
    }
