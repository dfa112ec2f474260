"""The learner: what the router believes of a route's arms, learnt from labelled cases. A Fold, keyed by route.

1. `policy.router` is written from here alone, its version counted here; at most one in 32 cases and two seconds of event time, at once
   where the router must hear of something: a freeze, a promotion, a rejected answer that a cache may hold, other settings.
2. A case teaches where it says why it was labelled: drawn for review (weighed by the inverse of that chance), or by a reference. Answers
   of a cache, kept ones, cases without features and those of which the gate withheld the answer teach nothing. Graded shadows count for
   their arm.
3. An amended case equals the right one folded.
4. Frozen (trust's alarm gated the route): nothing is learnt, nothing explored.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agents.router import dual, guard, learner, learning, pacer, watch
from agents.router.model import decoded
from agents.router.state import (
    ARM,
    CASE,
    COUNT,
    DRIFT,
    NEAR,
    ArmCounts,
    Label,
    Pace,
    Part,
    RouteLearner,
    posterior_text,
)
from agents.rules import ledger
from agents.rules.commands import objection, remembered
from agents.rules.grading import teaches
from schemas.events import (
    CaseAmended,
    CaseAnswered,
    CaseArm,
    CaseClosed,
    CommandApply,
    ModelPromoted,
    ModelRolledBack,
    TrustChanged,
)
from schemas.payload import Payload
from schemas.routing import RoutingSettings
from streams.shapes import UNCHANGED, Change, DeadLetter, Emit, Event, KeyState, Out, Tick

NAME = "learner"
EVERY_CASES, EVERY_MS, IDLE_MS = 32, 2_000, 10_000
MOST_CASES = 20_000
PRIORS = "prior"  # how the names of scorers begin that were fitted on nothing
WHOLE = 65_536
REJECTED = 500
MOST_SWINGS = 8
NOTHING = Part()

State: TypeAlias = KeyState[RouteLearner, Part]
Result: TypeAlias = Change[RouteLearner, Part]


class Learner:
    """Fold `learner`, keyed by route."""

    name = NAME
    inputs = ("ratchet.cases", "ratchet.commands", "ratchet.promotions")
    record_type = RouteLearner
    entry_type = Part

    def state_key(self, event: Event[Payload]) -> str | None:
        data = event.data
        if isinstance(data, CommandApply | ModelPromoted | ModelRolledBack | TrustChanged | CaseAnswered | CaseClosed):
            return data.route
        return None

    def fold(self, state: State, event: Event[Payload] | Tick) -> Result:
        turn = Turn(state)
        if isinstance(event, Tick):
            turn.tick(event.at_ms)
            return turn.change()
        data = event.data
        if isinstance(data, CommandApply):
            return _applied(turn, data, event)
        if state.record is None:
            return Change()  # a route that was never applied
        if isinstance(data, ModelPromoted | ModelRolledBack):
            _replaced(turn, data)
        elif isinstance(data, TrustChanged):
            _trust(turn, data)
        elif isinstance(data, CaseAnswered):
            _paid(turn, data)
        elif isinstance(data, CaseAmended):
            _amended(turn, data)
        elif isinstance(data, CaseClosed):
            _closed(turn, data)
        return turn.change()


@dataclass(slots=True)
class Turn:
    """One event: the state as it changes, and what is said."""

    state: State
    record: RouteLearner = field(init=False)
    parts: dict[str, Part] = field(init=False)
    put: dict[str, Part] = field(default_factory=dict[str, Part])
    drop: list[str] = field(default_factory=list[str])
    emits: list[Out] = field(default_factory=list[Out])
    due_ms: int | None = None

    def __post_init__(self) -> None:
        self.record = RouteLearner() if self.state.record is None else self.state.record
        self.parts = dict(self.state.entries)
        self.due_ms = self.state.due_ms

    def set(self, **fields: Any) -> None:
        self.record = self.record.model_copy(update=fields)

    def keep(self, name: str, part: Part) -> None:
        self.parts[name] = self.put[name] = part

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.parts.pop(name, None)
            self.put.pop(name, None)
            if name in self.state.entries:
                self.drop.append(name)

    def arms(self) -> dict[str, Part]:
        """Arm -> its counts and posterior together."""
        counted = sorted(name.removeprefix(COUNT) for name in self.parts if name.startswith(COUNT))
        return {
            arm: Part(posterior=self.parts.get(ARM + arm, NOTHING).posterior, counts=self.counts(arm))
            for arm in counted
        }

    def counts(self, arm: str) -> ArmCounts:
        return self.parts.get(COUNT + arm, NOTHING).counts or ArmCounts()

    def cases(self) -> dict[str, Part]:
        return {name: part for name, part in self.parts.items() if name.startswith(CASE)}

    def publish(self, at_ms: int) -> None:
        """`policy.router` as it stands; posteriors are written, and their cases folded, where enough have come."""
        self._solve(at_ms)
        cases = self.cases()
        open_cases = [part for part in cases.values() if part.features]
        alarms = watch.alarms(self.record, self.parts.get(DRIFT), at_ms)
        found = learning.published(self.record, self.arms(), open_cases, alarms, at_ms)
        self.record = found.record
        self.emits.append(Emit(found.policy, f"policy-{found.policy.version}", blob=found.blob))
        for arm, posterior in found.written.items():
            self.keep(ARM + arm, Part(posterior=posterior_text(posterior)))
        if found.written:
            for name in sorted(name for name, part in cases.items() if part.features):
                self.keep(name, cases[name].model_copy(update={"features": ""}))
            self.set(folded=self.record.cases)
            self.forget(name for name, part in cases.items() if part.window_end_ms < at_ms)
        self.due_ms = None

    def _solve(self, at_ms: int) -> None:
        """λ anew, from what the last requests compared, at today's prices; as it is where too few did."""
        budget = self.record.settings.budget
        if budget.nano_usd is None:
            return
        held = [
            part.near for name, part in sorted(self.parts.items()) if name.startswith(NEAR) and part.near is not None
        ]
        counts = {arm: self.counts(arm) for arm in self.arms()}
        rows = [dual.today(near, self.record.settings.prices, counts, at_ms) for near in held]
        account = self.record.pace.pacer
        if budget.period_at(at_ms) > self.record.pace.period:
            account = pacer.renewed(account)
        target = pacer.target_of(account, pacer.Pace(budget.nano_usd), max(budget.requests - account.requests, 1))
        price = dual.solved(rows, self.record.settings.chosen_from(self.record.champion), budget.nano_usd, target)
        if price is not None:
            self.set(pace=self.record.pace.model_copy(update={"price": price, "carried": 0}))

    def later(self, at_ms: int) -> None:
        """Publish when it is time: now where enough has come, else after a while without more."""
        enough = self.record.cases - self.record.published_case >= EVERY_CASES
        if enough and at_ms - self.record.published_ms >= EVERY_MS:
            self.publish(at_ms)
        elif self.due_ms is None:
            self.due_ms = at_ms + IDLE_MS

    def tick(self, at_ms: int) -> None:
        self.due_ms = None
        if self.record.cases > self.record.published_case or not self.record.version:
            self.publish(at_ms)

    def change(self) -> Result:
        same = self.record is self.state.record
        return Change(
            emits=tuple(self.emits),
            record=UNCHANGED if same else self.record,
            put=self.put,
            drop=tuple(self.drop),
            due_ms=self.due_ms,
        )


# commands and promotions


def _applied(turn: Turn, data: CommandApply, event: Event[Payload]) -> Result:
    known = turn.state.record
    problem = objection(data, event.key, None if known is None else known.tenant)
    if problem is not None:
        return Change(emits=(DeadLetter(event.record, *problem),))
    commands = remembered(turn.record.commands, event.id)
    if commands is None:
        return Change()
    settings = data.settings
    adapters = dict(turn.record.adapters) | {arm.arm: arm.adapter for arm in settings.arms}
    champion = turn.record.champion or settings.champion
    other_ridge = settings.routing.ridge != turn.record.settings.ridge
    other_basis = settings.routing.basis != turn.record.settings.basis
    turn.set(
        tenant=settings.tenant,
        route=settings.route,
        champion=champion,
        adapters=adapters,
        settings=settings.routing,
        commands=commands,
    )
    if other_ridge:
        turn.set(factors_at={}, factors_ms=0)
    if other_basis:
        _begin_anew(turn)
    turn.publish(data.at_ms)
    return turn.change()


def _begin_anew(turn: Turn) -> None:
    """Weights belong to a basis: with another one nothing learnt can be used. Counts of tokens and time stay."""
    turn.forget(sorted(name for name in turn.parts if name.startswith((CASE, NEAR))))
    for arm in sorted(turn.arms()):
        turn.keep(COUNT + arm, Part(counts=turn.counts(arm).model_copy(update={"labels": 0})))
        turn.forget([ARM + arm])
    turn.set(dims=0, labels=0, factors="", factors_at={}, factors_ms=0, folded=turn.record.cases)


def _replaced(turn: Turn, data: ModelPromoted | ModelRolledBack) -> None:
    """Another champion serves: what caches hold is of the former one."""
    champion = data.challenger if isinstance(data, ModelPromoted) else data.champion
    adapters = dict(turn.record.adapters)
    if isinstance(data, ModelPromoted):
        adapters[data.challenger] = data.adapter
    turn.set(
        champion=champion,
        adapters=adapters,
        generation=turn.record.generation + 1,
        guard=guard.renewed(turn.record.guard, strict=False),
    )
    turn.publish(data.at_ms)


def _trust(turn: Turn, data: TrustChanged) -> None:
    """The ladder's alarm gates an immediate route, or takes the mode back; the next change without alarm ends it."""
    if not data.refused and data.alarm != turn.record.frozen:
        turn.set(frozen=data.alarm, guard=guard.frozen(turn.record.guard, alarm=data.alarm))
        turn.publish(data.at_ms)


# cases


def _paid(turn: Turn, case: CaseAnswered) -> None:
    """λ moves with what the answer cost; one of a cache cost nothing and asks for nothing."""
    budget = turn.record.settings.budget
    if budget.nano_usd is None or case.source != "model" or case.cost_nano_usd is None:
        return
    period = budget.period_at(case.assigned_at_ms)
    pace = turn.record.pace
    account = pace.pacer if period <= pace.period else pacer.renewed(pace.pacer)
    left = max(budget.requests - account.requests, 1)
    told = pacer.reserved(account, pacer.Pace(budget.nano_usd), case.cost_nano_usd, left)
    turn.set(
        pace=Pace(
            price=told.price,
            requests=told.requests,
            spent=told.spent,
            carried=told.carried,
            period=max(period, pace.period),
        )
    )


def _compared(turn: Turn, case: CaseClosed) -> None:
    """For λ: what the decision compared, and what the shadows cost beside it."""
    budget = turn.record.settings.budget
    if budget.nano_usd is None:
        return
    near = dual.near_of(case)
    if near is not None:
        turn.keep(f"{NEAR}{turn.record.cases % dual.ROWS:03d}", Part(near=near))
    pace = turn.record.pace
    terms = {row.arm: row.terms for row in case.choices}
    beside = sum(
        ledger.paid(terms.get(row.arm), row.tokens_in, 0, row.tokens_out, row.engine_us / 1000) or 0
        for row in case.arms
        if row.shadow and row.status == "completed"
    )
    if beside and budget.period_at(case.assigned_at_ms) == pace.period:
        turn.set(pace=pace.model_copy(update={"spent": pace.spent + beside, "carried": pace.carried + beside}))


def _closed(turn: Turn, case: CaseClosed) -> None:
    name = CASE + case.request_id
    if name in turn.parts:
        return  # told again
    turn.set(cases=turn.record.cases + 1)
    _count(turn, case)
    _compared(turn, case)
    _prefer(turn, case)
    if not turn.record.frozen:
        labels = labels_of(case, turn.record.adapters)
        _learn(turn, case, name, labels)
        _watch(turn, case, labels)
    if _rejected(turn, case):
        turn.set(generation=turn.record.generation + 1)
        turn.publish(case.at_ms)
    else:
        turn.later(case.at_ms)


def _watch(turn: Turn, case: CaseClosed, labels: dict[str, Label]) -> None:
    """Guard, calibration, oscillation; a guard that shuts or opens is told at once."""
    if case.routing is None:
        return
    before = turn.record.guard
    now = watch.guarded(before, case, labels, turn.record.champion)
    preferred = turn.record.preferred.get(case.routing.complexity, "")
    part, swings = watch.drifted(turn.parts.get(DRIFT, NOTHING), case, labels, preferred)
    if part != turn.parts.get(DRIFT, NOTHING):
        turn.keep(DRIFT, part)
    turn.set(guard=now, swings=(*turn.record.swings, *swings)[-MOST_SWINGS:])
    if now.champion_serves != before.champion_serves:
        turn.publish(case.at_ms)


def _learn(turn: Turn, case: CaseClosed, name: str, labels: dict[str, Label]) -> None:
    terms = case.routing
    x = None if terms is None or terms.basis != turn.record.settings.basis else decoded(terms.features)
    if terms is None or x is None or not labels or turn.record.dims not in (0, len(x)):
        return
    if len(turn.cases()) >= MOST_CASES:
        return
    turn.set(dims=len(x), labels=turn.record.labels + 1)
    turn.keep(
        name,
        Part(
            number=turn.record.cases,
            labels=labels,
            features=terms.features,
            window_end_ms=case.window_end_ms * 2 - case.assigned_at_ms,
        ),
    )
    for arm in labels:
        counts = turn.counts(arm)
        turn.keep(COUNT + arm, Part(counts=counts.model_copy(update={"labels": counts.labels + 1})))


def _amended(turn: Turn, case: CaseAmended) -> None:
    """A later verdict takes the place of the label that the case had."""
    name = CASE + case.request_id
    before = turn.parts.get(name)
    x = None if case.routing is None else decoded(case.routing.features)
    if before is None or x is None or turn.record.frozen:
        return
    now = labels_of(case, turn.record.adapters)
    changed = {
        arm: (label, now[arm])
        for arm, label in before.labels.items()
        if arm in now and now[arm].quality != label.quality
    }
    if not changed:
        return
    labels = before.labels | {arm: Label(quality=new.quality, weight=old.weight) for arm, (old, new) in changed.items()}
    turn.keep(name, before.model_copy(update={"labels": labels}))
    if not before.features:  # it is in the posteriors
        for arm, (old, new) in changed.items():
            held = turn.parts.get(ARM + arm)
            posterior = None if held is None else held.regression()
            if held is not None and posterior is not None and posterior.dims == len(x):
                since = min(before.number, posterior.cases)
                mended = learner.amend(
                    posterior, x, old.quality, new.quality, old.weight, since=since, keep=turn.record.settings.forget
                )
                turn.keep(ARM + arm, Part(posterior=posterior_text(mended)))
    turn.later(case.at_ms)


def labels_of(case: CaseClosed, adapters: dict[str, str | None]) -> dict[str, Label]:
    """Arm -> what the case says of it: a verdict's grade, else a judge model's, else, of who served, the calibrated score.

    Only of arms that answered as what they are now; a failure says something of reliability, and nothing of quality.
    """
    found: dict[str, Label] = {}
    if not teaches(case):
        return found
    for row in case.arms:
        known = row.arm in adapters and adapters[row.arm] == row.adapter
        if row.status != "completed" or row.source != "model" or not known:
            continue
        label = _label(case, row)
        if label is not None:
            found[row.arm] = label
    return found


def _label(case: CaseClosed, row: CaseArm) -> Label | None:
    propensity = WHOLE if case.verdict_kind == "reference" else min(round(case.label_propensity * WHOLE), WHOLE)
    drawn = case.verdict_kind == "reference" or (case.sampled and propensity > 0)
    if row.grade is not None:
        return Label(quality=row.grade * 1000, weight=learner.weight_of(True, propensity)) if drawn else None
    if row.model_grade is not None:
        return Label(quality=row.model_grade * 1000, weight=learner.weight_of(False, WHOLE))
    fitted = case.scorer != "" and not case.scorer.startswith(PRIORS)
    if row.arm == case.arm and not row.shadow and case.score is not None and fitted and not case.verdict_kind:
        return Label(quality=round(case.score * learner.MICRO), weight=learner.weight_of(False, WHOLE))
    return None


def _count(turn: Turn, case: CaseClosed) -> None:
    """What answers take: tokens and time, of every arm that answered by itself."""
    chars = sum(len(message.content) for message in case.messages)
    for row in case.arms:
        if row.status == "completed" and row.source == "model" and turn.record.adapters.get(row.arm, "") == row.adapter:
            counts = turn.counts(row.arm).with_answer(
                chars, max(row.tokens_in, 0), max(row.tokens_out, 0), row.latency_us, row.engine_us
            )
            turn.keep(COUNT + row.arm, Part(counts=counts))


def _prefer(turn: Turn, case: CaseClosed) -> None:
    """The arm that is preferred most for requests of a tier, of the last hundred or so."""
    terms = case.routing
    if terms is None or not terms.preferred or case.strategy != "balanced":
        return
    held = {arm: count * 99 // 100 for arm, count in turn.record.tiers.get(terms.complexity, {}).items()}
    held[terms.preferred] = held.get(terms.preferred, 0) + 1000
    tiers = dict(turn.record.tiers) | {terms.complexity: {arm: held[arm] for arm in sorted(held) if held[arm]}}
    most = max(sorted(held), key=lambda arm: held[arm])
    turn.set(tiers=tiers, preferred=dict(turn.record.preferred) | {terms.complexity: most})


def _rejected(turn: Turn, case: CaseClosed) -> bool:
    """Whether an answer that a cache may hold turned out wrong."""
    cache: RoutingSettings = turn.record.settings
    if not (cache.cache.exact or cache.cache.semantic) or case.action != "release":
        return False
    served = next((row for row in case.arms if row.arm == case.arm and not row.shadow), None)
    return served is not None and served.grade is not None and served.grade < REJECTED
