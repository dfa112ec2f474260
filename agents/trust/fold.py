"""The ladder: what trust believes of a route, learnt from labelled cases, and what it lets out without a person.

1. `policy.trust` is written from here alone, its version counted here.
2. A label counts once: where the score stood before the verdict or the verdict is a reference's, where the case was drawn for review
   by its coin, and never for a scorer that was fitted on it.
3. Each change of mode or rung is `trust.changed`, in the same transaction as the policy that makes it so.
4. Labels enter a ladder in the order in which requests were assigned, once all cases from before are closed: rejects may take longer
   than approvals, and in the order of arrival the first labels would be too good. The detector and the maps learn at once.
5. Bad numbers are never folded: a case whose signals or grade are out of range teaches nothing.
6. An answer of the ladder's arm that escalated counts with its own score: what a rung covers does not depend on the cascade.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agents.rules.commands import objection, remembered
from agents.trust import labels, protocol
from agents.trust.state import CANDIDATE, LEARNER, RUNNING, Part, RouteTrust, Row, Standing, Version
from schemas import ids
from schemas.events import (
    CaseAmended,
    CaseClosed,
    CommandApply,
    CommandTrust,
    ModelPromoted,
    ModelRolledBack,
    TrustChanged,
)
from schemas.payload import Payload
from schemas.policies import SIGNALS, PolicyTrust
from schemas.routes import Route
from streams.shapes import UNCHANGED, Change, DeadLetter, Emit, Event, KeyState, Out, RawState, Tick

PUBLISH_EVERY = 25

State: TypeAlias = KeyState[RouteTrust, Part]
Result: TypeAlias = Change[RouteTrust, Part]


class Ladder:
    """Fold `ladder`, keyed by route."""

    name = "ladder"
    inputs = ("ratchet.cases", "ratchet.commands", "ratchet.promotions")
    record_type = RouteTrust
    entry_type = Part
    state_version = 2

    def migrate(self, from_version: int, raw: RawState) -> RawState:
        """Version 1 was one record without a ladder: the route is known, and begins in SHADOW."""
        if raw.record is None:
            return RawState(raw.key, None, {}, None)
        old: Mapping[str, Any] = raw.record
        kept = {name: old[name] for name in ("tenant", "version", "champion", "grader", "threshold") if name in old}
        kept |= {
            "commands": old.get("commands", ()),
            "arm": old.get("champion"),
            "number": int(old.get("version", 0)) + 1,
        }
        record = RouteTrust.model_validate(kept)
        return RawState(raw.key, record.model_dump(mode="json"), {}, raw.due_ms)

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CommandApply | CommandTrust | ModelPromoted | ModelRolledBack | CaseClosed):
            return data.route
        return None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        if isinstance(event, Tick):
            return _ticked(state, event)
        data, record = event.data, state.record
        if isinstance(data, CommandApply | CommandTrust):
            return _heeded(state, data, event)
        if record is None:
            return Change()  # a route that was never applied has no trust
        turn = Turn(Standing.of(state, record), record)
        if isinstance(data, ModelPromoted | ModelRolledBack):
            _replaced(turn, data)
        elif isinstance(data, CaseAmended):
            _amended(turn, labels.of_arm(data, record.arm))
        elif isinstance(data, CaseClosed):
            _closed(turn, labels.of_arm(data, record.arm))
        return turn.change()


@dataclass(slots=True)
class Turn:
    """One event: the standing as it changes, and what is to be said of it."""

    standing: Standing
    before: RouteTrust | None
    emits: list[Out] = field(default_factory=list[Out])
    said: int = 0

    def tell(
        self, at_ms: int, before: str, reason: str, by: str, *, refused: bool = False, alarm: bool = False
    ) -> None:
        """`trust.changed`."""
        payload = TrustChanged(
            tenant=self.standing.record.tenant,
            at_ms=at_ms,
            route=self.standing.route,
            before=before,
            after=protocol.words(self.standing),
            reason=reason,
            by=by,
            refused=refused,
            alarm=alarm,
        )
        self.emits.append(Emit(payload, "changed" if not self.said else f"changed/{self.said}"))
        self.said += 1

    def follow(self, at_ms: int, before: str | None = None) -> bool:
        """What the ladder may do now on its own, told; whether there was any."""
        before = protocol.words(self.standing) if before is None else before
        alarm = protocol.alarmed(self.standing.record)
        reasons = protocol.advance(self.standing)
        if reasons:
            self.tell(at_ms, before, "; ".join(reasons), "", alarm=alarm)
        return bool(reasons)

    def publish(self, at_ms: int) -> None:
        """`policy.trust` as it stands now."""
        self.standing.change(version=self.standing.record.version + 1, unpublished=0)
        self.emits.insert(0, Emit(_policy(self.standing, at_ms), "policy"))

    def change(self) -> Result:
        record = self.standing.record
        same = record is self.before
        return Change(
            emits=tuple(self.emits),
            record=UNCHANGED if same else record,
            put=self.standing.put,
            drop=tuple(self.standing.drop),
            due_ms=record.due_ms,
        )


def _closed(turn: Turn, case: CaseClosed) -> None:
    """A case comes: the maps and the detector learn at once, the ladders when it is its turn."""
    standing = turn.standing
    record = standing.record
    if not labels.scored(case, record):
        return
    right = labels.label_of(case)
    versions = [version for version in (standing.running, standing.candidate) if version is not None]
    collecting = any(version.rungs is None for version in versions)
    if (right is None and not collecting) or standing.said_of(case.request_id) is not None:
        return
    counted = right is not None and labels.counts(case, record)
    if counted or collecting:
        row = Row(
            assigned_at_ms=case.assigned_at_ms,
            id=case.request_id,
            seq=record.told,
            signals=case.signals,
            said=labels.word_of(right if counted else None),
        )
        standing.wait(row, labels.turn_ms(case))
    if right is not None:
        standing.write(LEARNER, Part(learner=standing.learner.add(case.signals, right=right)))
        standing.change(unpublished=standing.record.unpublished + 1)
        _mapped(standing, case, right)
        _watched(standing, case, right, counted=counted)
    standing.remember(case.request_id, labels.word_of(right if case.verdict_kind == "person" else None))
    told = turn.follow(case.at_ms)
    if told or standing.record.unpublished >= PUBLISH_EVERY:
        turn.publish(case.at_ms)


def _mapped(standing: Standing, case: CaseClosed, right: bool) -> None:
    """Each version's map to probabilities learns the label."""
    for name in (RUNNING, CANDIDATE):
        version = standing.version(name) or (Version() if name == RUNNING else None)
        if version is not None:
            platt = version.platt.add(version.scorer.z(case.signals), right=right)
            standing.write(name, Part(version=version.model_copy(update={"platt": platt})))


def _ticked(state: State, tick: Tick) -> Result:
    """The cases whose turn has come enter the ladders, one after the other."""
    if state.record is None:
        return Change()
    turn = Turn(Standing.of(state, state.record), state.record)
    told = False
    for row in turn.standing.turns(tick.at_ms):
        covered, before = turn.standing.running.covers(), protocol.words(turn.standing)
        _entered(turn.standing, row)
        covers = turn.standing.running.covers()
        if turn.follow(tick.at_ms, before):
            told = True
        elif covers != covered:
            turn.tell(tick.at_ms, before, f"certified: {covers} %", "")
            told = True
    if told:
        turn.publish(tick.at_ms)
    return turn.change()


def _entered(standing: Standing, row: Row) -> None:
    """A case in its turn. Each version scores it itself, so that they stand side by side."""
    for name in (RUNNING, CANDIDATE):
        version = standing.version(name) or (Version() if name == RUNNING else None)
        if version is None or row.seq < version.since:
            continue
        z = version.scorer.z(row.signals)
        if version.rungs is None:
            version = standing.collect(name, version, z, row.said)
        elif row.said != "none":
            rungs = version.rungs.add(z, right=row.said == "right")
            version = version.model_copy(update={"rungs": rungs, "counted": version.counted + 1})
        standing.write(name, Part(version=version))


def _watched(standing: Standing, case: CaseClosed, right: bool, *, counted: bool) -> None:
    """An audited label of what is released goes to the detector, too."""
    record, rungs = standing.record, standing.running.rungs
    if record.mode != "ENFORCE" or record.detector is None or rungs is None or not (counted and case.certified):
        return
    if standing.running.scorer.z(case.signals) >= rungs.floor(record.rung):
        standing.change(detector=record.detector.add(0.0 if right else 1.0))


def _amended(turn: Turn, case: CaseAmended) -> None:
    """A second person's label of a case that is remembered: agreement. No label is ever rewritten."""
    if case.same_person or case.verdict_kind != "person":
        return
    first, second = turn.standing.said_of(case.request_id), labels.grade_of(case)
    if first in ("0", "1") and second is not None:
        agreement = turn.standing.record.agreement.add(first=first == "1", second=second)
        turn.standing.change(agreement=agreement)


def _heeded(state: State, command: CommandApply | CommandTrust, event: Event[Payload]) -> Result:
    """A command is done once; what may not be done at all, the judge says."""
    record = state.record
    known = remembered(() if record is None else record.commands, event.id)
    if known is None or objection(command, event.key, None if record is None else record.tenant) is not None:
        return Change()
    if record is None:
        if isinstance(command, CommandApply):
            turn = Turn(Standing.of(state, _first(command, known)), None)
            turn.publish(command.at_ms)
            return turn.change()
        letter = DeadLetter(event.record, "unknown-route", f"route {command.route!r} was never applied")
        return Change(emits=(letter,))
    turn = Turn(Standing.of(state, record.model_copy(update={"commands": known})), record)
    if isinstance(command, CommandApply):
        _applied(turn, command)
    else:
        _commanded(turn, command)
    return turn.change()


def _facts(settings: Route, arm: str) -> dict[str, object]:
    """What the record says of the settings. `arm`: the champion that serves."""
    return {
        "tenant": settings.tenant,
        "champion": settings.champion,
        "arm": arm,
        "model": _model(settings, arm),
        "plain": tuple(row.arm for row in settings.arms if row.adapter is None),
        "grader": settings.grader,
        "rubric": ids.short(settings.grading.rubric) if settings.grading.rubric else "",
        "immediate": settings.release == "immediate",
        "gates": settings.on_alarm == "gate",
        "settings": settings.trust,
    }


def _model(settings: Route, arm: str) -> str:
    """A digest of how an arm is declared; empty where it is not (a trained one)."""
    declared = next((row for row in settings.arms if row.arm == arm), None)
    return "" if declared is None else ids.short(declared.model_dump_json())


def _first(command: CommandApply, known: tuple[str, ...]) -> RouteTrust:
    settings = command.settings
    facts = _facts(settings, settings.champion) | {"threshold": settings.trust_threshold, "commands": known}
    return RouteTrust.model_validate(facts)


def _applied(turn: Turn, command: CommandApply) -> None:
    """New settings. What a label means, or what is promised, is another: the ladder begins anew."""
    record, settings, standing = turn.standing.record, command.settings, turn.standing
    declared = {row.arm for row in settings.arms}
    gone = record.arm in record.plain and record.arm not in declared
    arm = settings.champion if settings.champion != record.champion or gone else record.arm
    facts = _facts(settings, arm)
    fresh = [
        name
        for name, changed in (
            ("champion", arm != record.arm or (record.model and facts["model"] not in ("", record.model))),
            ("grader", settings.grader != record.grader),
            ("rubric", facts["rubric"] != record.rubric),
            ("trust.risk", settings.trust.risk != record.settings.risk),
            ("trust.delta", settings.trust.delta != record.settings.delta),
        )
        if changed
    ]
    before = protocol.words(standing)
    standing.change(**facts)
    stopped = record.mode == "ENFORCE" and settings.trust.enforce == "off"
    if fresh:
        protocol.reset(standing, command.at_ms)
    elif stopped:
        standing.change(mode="SHADOW", rung=0, granted_by="", detector=None)
    threshold = standing.record.mode != "GRANTED" and record.threshold != settings.trust_threshold
    if threshold:
        standing.change(threshold=settings.trust_threshold)
    if protocol.words(standing) != before:
        why = f"{' and '.join(fresh)} changed by command.apply" if fresh else "trust.enforce is off by command.apply"
        turn.tell(command.at_ms, before, why, command.operator)
    followed = turn.follow(command.at_ms)
    if fresh or stopped or threshold or followed:
        turn.publish(command.at_ms)


def _commanded(turn: Turn, command: CommandTrust) -> None:
    standing, record, by = turn.standing, turn.standing.record, command.operator
    why = command.reason or f"command.trust {command.action}"
    before = protocol.words(standing)
    if command.action == "grant" and command.threshold is None:
        _asked(turn, command, why)
        return
    if command.action == "grant":
        update = protocol.granted(record, by, record.threshold if command.threshold is None else command.threshold)
        if all(getattr(record, name) == value for name, value in update.items() if name != "granted_by"):
            turn.publish(command.at_ms)  # as it stands: whoever asked is answered
            return
        standing.change(**update)
    elif command.action == "withdraw":
        if record.withdrawn and record.mode == "SHADOW" and record.gate:
            turn.publish(command.at_ms)
            return
        protocol.withdraw(standing, command.at_ms)
    elif command.action == "drill":
        standing.change(drilled_ms=command.at_ms)
    else:
        protocol.reset(standing, command.at_ms)
        standing.change(gate=False, withdrawn=False)
    turn.tell(command.at_ms, before, why, by)
    turn.follow(command.at_ms)
    turn.publish(command.at_ms)


def _asked(turn: Turn, command: CommandTrust, why: str) -> None:
    """A grant without a threshold: what is certified may go out. Refused, by event, where something lacks."""
    standing, before = turn.standing, protocol.words(turn.standing)
    missing = protocol.lacks(standing)
    if missing:
        turn.tell(command.at_ms, before, "refused: " + "; ".join(missing), command.operator, refused=True)
        return
    record = standing.record
    if record.mode == "ENFORCE" and not record.gate:
        turn.publish(command.at_ms)
        return
    if record.mode != "ENFORCE":
        protocol.enforce(standing, command.operator)
    standing.change(gate=False, withdrawn=False)
    turn.tell(command.at_ms, before, why, command.operator)
    turn.publish(command.at_ms)


def _replaced(turn: Turn, told: ModelPromoted | ModelRolledBack) -> None:
    """Another model serves: its scores mean something else."""
    champion = told.challenger if isinstance(told, ModelPromoted) else told.champion

    standing, before = turn.standing, protocol.words(turn.standing)
    standing.change(arm=champion, model="")
    protocol.reset(standing, told.at_ms)
    if protocol.words(standing) != before:
        turn.tell(told.at_ms, before, f"{told.TYPE}: {champion}", "")
    turn.publish(told.at_ms)


def _policy(standing: Standing, at_ms: int) -> PolicyTrust:
    record, running = standing.record, standing.running
    rungs, scorer = running.rungs, running.scorer
    enforced = record.mode == "ENFORCE" and rungs is not None
    kappa = record.agreement.kappa()
    return PolicyTrust(
        tenant=record.tenant,
        at_ms=at_ms,
        version=record.version,
        route=standing.route,
        scorer=scorer.name,
        signals=SIGNALS,
        weights=scorer.weights,
        center=scorer.center,
        scale=scorer.scale,
        bias=scorer.bias,
        platt_a=running.platt.a,
        platt_b=running.platt.b,
        threshold=record.threshold,
        mode=record.mode,
        labels=standing.learner.labels,
        granted_by=record.granted_by,
        arm=record.arm,
        tau=() if rungs is None else rungs.tau,
        rung=record.rung,
        certified=running.covers(),
        floor=rungs.floor(record.rung) if enforced and rungs is not None else None,
        gate=record.gate,
        counted=running.counted,
        drilled=record.drilled_ms is not None,
        kappa=kappa if kappa is None or math.isfinite(kappa) else None,
    )
