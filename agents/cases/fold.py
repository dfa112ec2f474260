"""The case: a request joined once. A Fold over decisions, results, scores, answers and verdicts, keyed by request id.

Rules:
1. `case.answered` goes out when the serving arm is done and scored; `case.closed` exactly once: when the verdict is in, every
   arm is done and what trust held is settled and answered; or when the window has ended (plus the grace, see `grace_ms`).
2. `review.settled` exactly once, and only where trust held the answer or never scored it: by the first verdict, by failure,
   or by the window's end plus the grace. Until then trust may release, never after: it looks at the window's end. Where it says
   `released` the gate still looks at the text: the case waits for the answer itself and says what that says. It waits to the window's
   end plus the grace, then ten minutes more, in which nothing else is joined; without an answer by then it says neither.
3. The first verdict of a person or a reference decides; a judge model's is kept beside it and settles nothing. Any later one,
   until twice the window, makes `case.amended`; what comes after that, a verdict for an unknown request after ten minutes, for
   one of another tenant, or one that lacks what its kind needs, is a dead letter.
4. Where a model grades (`rubric`, `model`) "the verdict" is the model's, and a person's too where the coin said so (F10). Who
   is asked follows from the decision and the answers alone, never from a verdict.
5. A forgotten key starts anew and never closes: without a decision nothing is emitted but dead letters.
6. Where trust escalated, nothing is answered, asked or settled until the second attempt is scored: the case then speaks of that one, and
   the first answer is one arm of it. The first decision's window, shadows and propensities stay the case's. Where no second decision
   comes, the window's end settles; where it fails, the first answer stands in as its route's answers do: at once, or for people.
7. What the gate withheld is answered, and not released. Where its score had let it out, it is settled no more and shown to nobody.
"""

from agents.cases import settle
from agents.cases.joined import CasePart, CaseRecord, Joined, human_sampled, part_of, place_of
from agents.cases.rows import microseconds, rows_of
from agents.rules.grading import asks_model, blind_order, chance, grade, heads, judges_of, lacks
from agents.rules.text import same
from schemas.events import (
    AnswerReleased,
    AnswerWithheld,
    BlindAnswer,
    CaseAmended,
    CaseAnswered,
    CaseClosed,
    DecisionRouted,
    Escalated,
    ResultCompleted,
    ResultFailed,
    ReviewRequested,
    ReviewSettled,
    ScoreAssigned,
    VerdictGiven,
)
from schemas.ids import derive
from schemas.payload import Payload
from schemas.routes import MODEL_GRADERS
from streams.shapes import UNCHANGED, Change, Event, Held, KeyState, Tick

NAME = "cases"
UNKNOWN_MS = 600_000
UNTOLD_MS = 600_000  # past the window's end and the grace: until then an answer is waited for that trust was to release
GRACE_MS = 60_000
ANSWERS = (AnswerReleased, AnswerWithheld)
TAKEN = (DecisionRouted, ResultCompleted, ResultFailed, ScoreAssigned, *ANSWERS, VerdictGiven)


def grace_ms(decision: DecisionRouted) -> int:
    """What is waited past the window's end before it counts: a minute, or the window itself where that is shorter."""
    return min(GRACE_MS, max(1_000, decision.window_end_ms - decision.assigned_at_ms))


class Cases:
    """See the module."""

    name = NAME
    inputs = ("decisions", "results", "scores", "answers", "verdicts")
    record_type = CaseRecord
    entry_type = CasePart

    def state_key(self, event: Event[Payload]) -> str | None:
        return event.data.request_id if isinstance(event.data, TAKEN) else None

    def fold(self, state: KeyState[CaseRecord, CasePart], event: Event[Payload] | Tick) -> Change[CaseRecord, CasePart]:
        if isinstance(event, Tick):
            now, cause = event.at_ms, event.id
        elif isinstance(event.data, ANSWERS) and (state.record is None or state.record.settled != "released"):
            return Change()  # its score, or the case itself, said so before
        else:
            now, cause = event.data.at_ms, event.id
        route = "" if isinstance(event, Tick) else str(getattr(event.data, "route", ""))
        before = state.record or CaseRecord(first_ms=now, route=route)
        case = Joined(state.key, now, cause, before, dict(state.entries))
        if not isinstance(event, Tick):
            self._take(case, event)
            if isinstance(event.data, DecisionRouted | VerdictGiven):
                self._strangers(case)
        ended = isinstance(event, Tick)
        if case.decision is None:
            return self._without_decision(case, state, ended=ended)
        if case.record.closed_id:
            self._late(case)
            if ended:
                return Change(emits=case.emits, forget=True)
        else:
            self._advance(case, case.decision, ticked=ended)
        return Change(
            emits=case.emits,
            record=UNCHANGED if case.record is state.record else case.record,
            put=case.put,
            drop=case.drop,
            due_ms=self._due(case, case.decision),
        )

    def _due(self, case: Joined, decision: DecisionRouted) -> int:
        window = decision.window_end_ms - decision.assigned_at_ms
        if case.record.closed_id:
            return decision.assigned_at_ms + 2 * window + grace_ms(decision)
        return case.record.untold_until_ms or decision.window_end_ms + grace_ms(decision)

    def _take(self, case: Joined, event: Event[Payload]) -> None:
        match event.data:
            case DecisionRouted() as decision if case.decision_of(decision.attempt) is None and not case.over():
                told = decision if decision.attempt == 1 else decision.model_copy(update={"messages": ()})
                case.add(place_of("decision", decision.attempt), CasePart(decision=told, decision_id=event.id))
                case.change(route=decision.route)
            case ResultCompleted() as result if not case.over():
                case.add(part_of(result), CasePart(completed=result, result_id=event.id))
            case ResultFailed() as result if not case.over():
                case.add(part_of(result), CasePart(failed=result, result_id=event.id))
            case ScoreAssigned() as score if not score.shadow and not case.over():
                case.add(place_of("score", score.attempt), CasePart(score=score))
            case AnswerReleased() | AnswerWithheld() as answer if case.untold() and not case.record.closed_id:
                case.change(told=True, withheld=answer.reason if isinstance(answer, AnswerWithheld) else "")
            case VerdictGiven() as verdict:
                if any(part.result_id == event.id for _, part in case.verdict_parts()):
                    return  # the same record again
                score = case.score()
                scored = score is not None and score.action != "escalate"
                part = CasePart(verdict=verdict, held=Held.of(event.record), result_id=event.id, after_score=scored)
                problem = lacks(verdict, ())
                if problem is not None:
                    case.dead(part, "invalid", f"verdict.given: {problem}")
                    return
                case.add(f"verdict/{case.record.verdicts:04d}", part)
                case.change(verdicts=case.record.verdicts + 1)
            case _:
                pass  # a decision told twice, a result that comes too late, an answer that comes after the case has closed

    def _strangers(self, case: Joined) -> None:
        """A verdict under another tenant than the request's is none: whoever gave it does not speak for this one."""
        for name, part in case.verdict_parts():
            if case.decision is not None and part.verdict is not None and part.verdict.tenant != case.decision.tenant:
                message = "verdict.given: tenant: the request belongs to another tenant; accepted: the request's own"
                case.dead(part, "wrong-tenant", message)
                del case.parts[name]
                case.put.pop(name, None)
                case.drop.append(name)

    def _without_decision(
        self, case: Joined, state: KeyState[CaseRecord, CasePart], *, ended: bool
    ) -> Change[CaseRecord, CasePart]:
        """Parts wait ten minutes for their decision; then verdicts are dead letters and the rest is forgotten."""
        if ended:
            for _, part in case.verdict_parts():
                case.dead(part, "unknown-request", "verdict.given: request_id: no such request was routed here")
            return Change(emits=case.emits, forget=True)
        if not case.parts:
            return Change(emits=case.emits, forget=state.record is not None)
        return Change(
            emits=case.emits, record=case.record, put=case.put, due_ms=state.due_ms or case.record.first_ms + UNKNOWN_MS
        )

    def _advance(self, case: Joined, decision: DecisionRouted, *, ticked: bool) -> None:
        score, serving = case.score(), case.serving()
        window_ended = ticked or case.record.untold_until_ms is not None
        self._check_labels(case, window_ended=window_ended)
        if not case.record.answered and ((case.scored() and serving is not None) or window_ended):
            self._answered(case, decision)
        if not case.record.review and score is not None and not score.withheld and case.arms_done():
            self._review(case, decision, score)
        # by trust itself, whether it went out or the gate withheld it
        answered = score is not None and score.action == "release"
        if not case.record.settled and not answered:
            self._settle(case, decision, score, window_ended=window_ended)
        if case.untold() and not (ticked and self._waited(case)):
            return
        done = score is not None and case.arms_done() and self._judged(case, decision, score)
        if (done and (answered or case.record.settled != "")) or window_ended:
            self._close(case, decision, why="complete" if done else "window_ended")

    def _waited(self, case: Joined) -> bool:
        """Whether a tick has waited long enough for the answer; the first one begins to."""
        until_ms = case.record.untold_until_ms
        if until_ms is None:
            case.change(untold_until_ms=case.now_ms + UNTOLD_MS)
        return until_ms is not None and case.now_ms >= until_ms

    def _judged(self, case: Joined, decision: DecisionRouted, score: ScoreAssigned) -> bool:
        """Whether the verdicts that were asked for are in."""
        decisive = case.first(model=False) is not None
        if decision.grader not in MODEL_GRADERS:
            return decisive
        graded = case.first(model=True) is not None
        return (graded or not self._asks_model(case, decision)) and (decisive or not case.asks_people(decision, score))

    def _asks_model(self, case: Joined, decision: DecisionRouted) -> bool:
        return asks_model(decision.grader, len(blind_order(case.key, case.texts())))

    def _check_labels(self, case: Joined, *, window_ended: bool) -> None:
        """Once all arms are done the letters are known: a verdict that names another is a dead letter."""
        if not (case.arms_done() or (window_ended and case.results_in())):
            return
        letters = tuple(blind_order(case.key, case.texts()))
        for name, part in case.verdict_parts():
            problem = lacks(part.verdict, letters) if part.verdict is not None else None
            if problem is not None:
                case.dead(part, "invalid", f"verdict.given: {problem}")
                del case.parts[name]
                case.put.pop(name, None)
                case.drop.append(name)

    def _common(self, case: Joined, decision: DecisionRouted) -> dict[str, object]:
        serving = case.serving()
        last = case.decision_of(case.attempt) or decision
        return {
            "tenant": decision.tenant,
            "at_ms": case.now_ms,
            "route": decision.route,
            "request_id": decision.request_id,
            "request_partition": decision.request_partition,
            "request_offset": decision.request_offset,
            "decision_id": case.parts["decision"].decision_id,
            "assigned_at_ms": decision.assigned_at_ms,
            "window_end_ms": decision.window_end_ms,
            "request_at_ms": decision.request_at_ms,
            "arm": last.arm if serving is None else serving[0].arm,
            "drawn": decision.arm,
            "experiment": decision.experiment,
            "arenas": decision.arenas,
            "subject": decision.subject,
            "strategy": decision.strategy,
            "source": serving[0].source if serving is not None and isinstance(serving[0], ResultCompleted) else "model",
            "cost_nano_usd": case.paid(),
        }

    def _answered(self, case: Joined, decision: DecisionRouted) -> None:
        serving, score = case.serving(), case.score()
        result = None if serving is None else serving[0]
        ok = isinstance(result, ResultCompleted)
        case.change(answered=True)
        case.emit(
            CaseAnswered.model_validate(
                self._common(case, decision)
                | {
                    "ok": ok,
                    "latency_us": 0 if result is None else microseconds(result.latency_ms),
                    "tokens_out": result.tokens_out if isinstance(result, ResultCompleted) else 0,
                    "released": score is not None and score.action == "release" and not score.withheld,
                    "shadows": case.shadows(),
                    "reason": result.reason if isinstance(result, ResultFailed) else ("" if ok else "missing"),
                    "lost": case.lost(),
                }
            ),
            "answered",
        )

    def _review(self, case: Joined, decision: DecisionRouted, score: ScoreAssigned) -> None:
        """Ask who shall judge: people what trust says; where a model grades, it, and people what is held or sampled for them."""
        people, model = case.reviewed(score), False
        if decision.grader in MODEL_GRADERS:
            in_time = case.now_ms < decision.window_end_ms
            people = case.asks_people(decision, score) and (people or in_time)
            model = in_time and self._asks_model(case, decision)
        if not people and not model:
            return
        texts = case.texts()
        case.change(review=True)
        if not texts:
            return
        letters = blind_order(case.key, texts)
        case.emit(
            ReviewRequested(
                tenant=decision.tenant,
                at_ms=case.now_ms,
                route=decision.route,
                request_id=decision.request_id,
                request_partition=decision.request_partition,
                request_offset=decision.request_offset,
                messages=decision.messages,
                answers=tuple(BlindAnswer(label=label, text=texts[arms[0]]) for label, arms in letters.items()),
                grader=decision.grader,
                gated=score.gated,
                due_ms=decision.window_end_ms,
                subject=decision.subject,
                people=people,
                double=people and heads(decision.request_id, "double", decision.double_share),
                judges=judges_of({row.arm: row.masks for row in decision.arms}) if model else None,
            ),
            "review",
        )

    def _settle(
        self, case: Joined, decision: DecisionRouted, score: ScoreAssigned | None, *, window_ended: bool
    ) -> None:
        """Tell trust once what it shall do with an answer that it held. What it then lets out it says itself."""
        told = settle.settled(case, decision, score, window_ended=window_ended)
        if told is None:
            return
        case.change(settled=told["outcome"], withheld=told["reason"] if told["outcome"] == "withheld" else "")
        last = case.parts.get(place_of("decision", case.attempt)) or case.parts["decision"]
        case.emit(
            ReviewSettled.model_validate(
                {
                    "tenant": decision.tenant,
                    "at_ms": case.now_ms,
                    "route": decision.route,
                    "request_id": decision.request_id,
                    "request_partition": decision.request_partition,
                    "request_offset": decision.request_offset,
                    "decision_id": last.decision_id,
                    "score": None if score is None else score.score,
                    "request_at_ms": decision.request_at_ms,
                    "subject": decision.subject,
                    **told,
                }
            ),
            "settled",
        )

    def _closed_fields(
        self,
        case: Joined,
        decision: DecisionRouted,
        why: str,
        *,
        decisive: CasePart | None,
        model: CasePart | None,
        told: CasePart | None,
    ) -> dict[str, object]:
        """The case as it stands. `told`: whose verdict it names."""
        score, texts = case.score(), case.texts()
        withheld = "gate" if score is not None and score.withheld else case.record.withheld
        grades, models = (
            None if part is None or part.verdict is None else grade(case.key, texts, part.verdict)
            for part in (decisive, model)
        )
        fields = self._common(case, decision) | {
            "why": why,
            "messages": decision.messages,
            "arms": rows_of(
                case, decision, {} if grades is None else grades.by_arm, {} if models is None else models.by_arm
            ),
            "choices": decision.arms,
            "grader": decision.grader,
            "human_share": chance(decision.human_share),
            "human_sampled": human_sampled(decision),
            "model_by": "" if model is None or model.verdict is None else model.verdict.by,
            "label": None if grades is None else grades.label,
            "settled": "withheld" if withheld else "" if case.untold() else case.record.settled,
            "withheld": withheld,
            "routing": decision.routing,
            "attempt": case.attempt,
            "session": decision.session,
            "escalated": self._escalated(case),
        }
        if told is not None and told.verdict is not None:
            fields |= {
                "verdict_by": told.verdict.by,
                "verdict_kind": told.verdict.kind,
                "verdict_after_score": told.after_score,
                "verdict_at_ms": told.verdict.at_ms,
            }
        if score is not None:
            fields |= {
                "score": score.score,
                "z": score.z,
                "signals": score.signals,
                "scorer": score.scorer,
                "certified": score.certified,
                "action": score.action,
                "sampled": score.sampled,
                "label_propensity": score.label_propensity,
            }
        return fields

    def _escalated(self, case: Joined) -> Escalated | None:
        """The first attempt's score, where the case names the second's."""
        first = case.score_of(1)
        if case.attempt == 1 or first is None:
            return None
        return Escalated(arm=first.arm, score=first.score, z=first.z, signals=first.signals, scorer=first.scorer)

    def _close(self, case: Joined, decision: DecisionRouted, why: str) -> None:
        decisive, model = case.first(model=False), case.first(model=True)
        fields = self._closed_fields(case, decision, why, decisive=decisive, model=model, told=decisive)
        case.emit(CaseClosed.model_validate(fields), "closed")
        case.change(closed_id=derive(case.cause, NAME, "closed"))
        for name, part in case.verdict_parts():
            if part is not decisive and part is not model:
                self._amend(case, decision, name, part)

    def _late(self, case: Joined) -> None:
        """A verdict on a closed case."""
        decision = case.decision
        if decision is None:
            return
        for name in list(case.put):
            part = case.put[name]
            if part.verdict is None:
                continue
            problem = lacks(part.verdict, tuple(blind_order(case.key, case.texts())))
            if problem is not None:
                case.dead(part, "invalid", f"verdict.given: {problem}")
                del case.put[name], case.parts[name]
            else:
                self._amend(case, decision, name, part)

    def _amend(self, case: Joined, decision: DecisionRouted, name: str, part: CasePart) -> None:
        verdict = part.verdict
        if verdict is None:
            return
        before = case.first(model=part.by_model)
        first = None if before is None or before is part else before.verdict
        now = grade(case.key, case.texts(), verdict)
        then = None if first is None else grade(case.key, case.texts(), first)
        contradicts = then is not None and (
            then.by_arm != now.by_arm
            or (then.label is not None and now.label is not None and not same(then.label, now.label))
        )
        fields = self._closed_fields(
            case,
            decision,
            "complete",
            decisive=case.first(model=False) if part.by_model else part,
            model=part if part.by_model else case.first(model=True),
            told=part,
        )
        case.emit(
            CaseAmended.model_validate(
                fields
                | {
                    "amends": case.record.closed_id,
                    "contradicts": contradicts,
                    "same_person": first is not None and first.by == verdict.by,
                }
            ),
            f"amended/{name}",
        )
