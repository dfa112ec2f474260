"""What of an answer goes out: looked at by the gate, values put back, marked. Pure.

1. On a route with a gate nothing goes out that was not scanned whole. What the gate denies is withheld; no word of it is repeated.
2. Values are redacted before placeholders are put back: of what the model wrote itself nothing comes through that the gate replaces,
   and whoever sent a value has it back.
3. Where the map does not open, nothing goes out: with a gate or without.
4. Every answer that goes out is marked.
"""

from dataclasses import dataclass
from typing import Final

from agents.rules import ai_mark
from agents.rules.ai_mark import Origins
from agents.rules.gate import CLOSED, Asked, decide
from agents.rules.gate_seen import failed, limits, seen
from agents.rules.gate_standard import BOOK
from agents.rules.masking import MaskMap, redact, unmask
from schemas.compliance import PolicyGate
from schemas.events import AiMark, AnswerReleased, AnswerWithheld, GateSeen
from schemas.gate import FIRST_KEY, GateTenant, Scan
from schemas.policies import PolicyRoute
from schemas.value import value
from streams.shapes import Event

UNOPENED: Final = "gate-map"
NOT_OPENED: Final = f"{UNOPENED}: {CLOSED[UNOPENED]}"
"""What an answer says whose map did not open, before it says why."""


def has_none(route: Event[PolicyRoute] | None) -> bool:
    """Whether the route says that there is no gate."""
    return route is not None and not route.data.settings.has_gate


@value
class Gate:
    """What is known of the route's gate. `off`: the route says that there is none; a route that is not known has one."""

    off: bool
    tenant: GateTenant | None

    @classmethod
    def of(cls, route: Event[PolicyRoute] | None, gate: Event[PolicyGate] | None) -> "Gate":
        return cls(has_none(route), None if gate is None else gate.data.settings)


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """What the shell found out of one answer. `scan` None: nobody looked. `known` None: the map did not open; `unopened` says more of
    why, where there is more to say. `key`, `key_id`: of the mark.

    Shows nothing of itself.
    """

    scan: Scan | None
    known: MaskMap | None
    key: bytes
    key_id: int = FIRST_KEY
    unopened: str = ""


def budget(now_ms: int) -> tuple[int, int]:
    """(characters, microseconds) that the scan of an answer may have."""
    return limits(BOOK, now_ms)


def let_out(answer: AnswerReleased, origins: Origins, gate: Gate, held: Held) -> AnswerReleased | AnswerWithheld:
    """The answer as it goes out, or why it does not. `answer.text` is as the model, or a person, wrote it: with placeholders."""
    text, said = answer.text, None
    if not gate.off:
        text, said, why = _looked_at(answer, gate.tenant, held.scan)
        if text is None:
            return _withheld(answer, said, why)
    if held.known is None:
        rules = (UNOPENED,) if said is None else tuple(sorted({*said.rules, UNOPENED}))
        closed = (said or GateSeen(action="deny")).model_copy(update={"action": "deny", "rules": rules, "masked": ()})
        return _withheld(answer, closed, f"{NOT_OPENED} {held.unopened}".rstrip())
    text = unmask(text, held.known)
    made = ai_mark.mark(origins, text, held.key, held.key_id)
    told = AiMark(statement=made.statement, binding=made.binding)
    return answer.model_copy(update={"text": text, "gate": said, "marked": True, "mark": told})


def _looked_at(
    answer: AnswerReleased, tenant: GateTenant | None, scan: Scan | None
) -> tuple[str | None, GateSeen, str]:
    """The text as the gate lets it out, None where it does not; what it saw; why. An answer nobody scanned is one whose scan failed."""
    asked = Asked(where="answer", tenant=answer.tenant)
    scan = scan or Scan(((),), len(answer.text), 0, failed=True)
    decision = decide(asked, scan, tenant, BOOK, answer.at_ms)
    text: str | None = None
    if decision.action != "deny":
        try:
            (text,) = redact((answer.text,), scan.findings, decision.masks)
        except ValueError:  # findings that are not of this text: the detector failed
            scan = failed((answer.text,), scan)
            decision = decide(asked, scan, tenant, BOOK, answer.at_ms)
    return text, seen(decision, asked, tenant, scan), decision.explanation


def _withheld(answer: AnswerReleased, said: GateSeen | None, why: str) -> AnswerWithheld:
    return AnswerWithheld(
        tenant=answer.tenant,
        at_ms=answer.at_ms,
        route=answer.route,
        request_id=answer.request_id,
        request_partition=answer.request_partition,
        request_offset=answer.request_offset,
        request_at_ms=answer.request_at_ms,
        subject=answer.subject,
        reason="gate",
        detail=why,
        decision_id=answer.decision_id,
        gate=said,
        policies=answer.policies,
    )
