"""Incidents as a state machine: whatever is said, in whatever order and whenever, no state is skipped and no time is missed."""

from collections import defaultdict
from typing import Any

from complying import HOUR, NOW, complying, configured, incidents, step, violation
from folding import Folding
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agents.evidence.folds import End
from agents.evidence.incidents import Incidents
from agents.rules.incidents import Incident
from schemas.compliance import IncidentEvent
from schemas.payload import Payload

NAMES = st.sampled_from(("a", "v-1"))
YES = st.booleans()
PARTS = st.fixed_dictionaries(
    dict.fromkeys(("nature", "contact", "consequences", "measures", "delay_reason"), st.booleans())
)


class Told:
    """What the events alone say of one incident: by it, what the rules promise is checked without them."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.said: set[str] = set()
        self.by_ms = 0
        self.overdue = 0
        self.answered_ms: int | None = None

    def take(self, event: Any) -> None:
        kind = event.TYPE.removeprefix("incident.")
        if kind == "refused":
            return
        assert "closed" not in self.seen, f"{kind} after it was closed"
        if kind == "overdue":
            assert self.answered_ms is None, "overdue though it was answered"
            assert event.at_ms > self.by_ms
            self.overdue += 1
        elif kind == "told":
            assert event.high_risk
        else:
            self._state(kind, event)

    def _state(self, kind: str, event: Any) -> None:
        assert (kind == "detected") == (not self.seen), f"{kind} after {self.seen}"
        if kind == "detected":
            self.by_ms = event.notify_by_ms
        else:
            assert kind == "assessed" or "assessed" in self.seen
        if kind == "assessed" and "notified" not in self.said:
            self.said.discard("not_notifiable")
            self.answered_ms = None
        if kind == "notified":
            assert event.late == ((event.at_ms if self.answered_ms is None else self.answered_ms) > self.by_ms)
        if kind == "closed":
            assert self.said & {"notified", "not_notifiable"}
            assert "contained" in self.said
        if kind in ("notified", "not_notifiable") and self.answered_ms is None:
            self.answered_ms = event.at_ms
        self.said.add(kind)
        self.seen.append(kind)


class Machine(RuleBasedStateMachine):
    """Commands, violations and ticks of one tenant, as time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = complying()
        self.now_ms = NOW
        self.inputs: list[Payload | int] = []
        self.told: dict[str, Told] = defaultdict(Told)

    def give(self, given: Payload | int) -> None:
        self.inputs.append(given)
        for event in _given(self.fold, given):
            if isinstance(event, IncidentEvent):
                self.told[event.incident].take(event)

    @rule(hours=st.integers(0, 60))
    def wait(self, hours: int) -> None:
        self.now_ms += hours * HOUR

    @rule()
    def tick(self) -> None:
        """Afterwards every time that has passed unanswered was said, and only once."""
        self.give(self.now_ms)
        for told in self.told.values():
            assert told.overdue <= 1
            if told.seen and told.answered_ms is None and told.by_ms < self.now_ms:
                assert told.overdue == 1

    @rule(hours=st.sampled_from((24, 72)))
    def configure(self, hours: int) -> None:
        self.give(configured(notify_hours=hours))

    @rule(index=st.integers(1, 2), finding=st.sampled_from(("offset-gap", "range-lost")))
    def violate(self, index: int, finding: str) -> None:
        self.give(violation(index, self.now_ms, finding))

    @rule(name=NAMES, aware=st.integers(0, 100))
    def detect(self, name: str, aware: int) -> None:
        self.give(step("detect", self.now_ms, name, aware_at_ms=self.now_ms - aware * HOUR))

    @rule(name=NAMES, personal=YES, risk=YES)
    def assess(self, name: str, personal: bool, risk: bool) -> None:
        self.give(step("assess", self.now_ms, name, personal_data=personal, high_risk=risk))

    @rule(name=NAMES, notice=PARTS)
    def notify(self, name: str, notice: dict[str, bool]) -> None:
        self.give(step("notify", self.now_ms, name, notice=notice))

    @rule(
        name=NAMES,
        what=st.sampled_from(("tell", "not_notifiable", "contain", "close")),
        reason=st.sampled_from(("", "x")),
    )
    def do(self, name: str, what: str, reason: str) -> None:
        """What is said to be next is taken, and nothing else."""
        cell = self.fold.cells.get("bank")
        before = cell.entries.get(name) if cell else None
        says = what != "not_notifiable" or bool(reason) or not (before and before.personal_data)
        self.give(step(what, self.now_ms, name, reason=reason))
        taken = self.fold.emitted[-1].TYPE != "incident.refused"
        assert taken == (before is not None and what in before.next_steps and says)

    @rule(name=NAMES, answer=st.sampled_from(("notify", "not_notifiable")), upto=st.integers(2, 4))
    def hurry(self, name: str, answer: str, upto: int) -> None:
        """The usual way, at once: what lies behind it is tried more often."""
        for what in ("detect", "assess", answer, "contain")[:upto]:
            said = {"personal_data": False, "high_risk": False} if what == "assess" else {}
            self.give(step(what, self.now_ms, name, **said))

    @invariant()
    def the_clock_that_ends_first_is_waited_for(self) -> None:
        cell = self.fold.cells.get("bank")
        if cell is not None:
            times = [incident.due_ms for incident in cell.entries.values() if incident.due_ms is not None]
            assert cell.due_ms == min(times, default=None)

    def teardown(self) -> None:
        """The same inputs give the same again; and the controls, which read the events, find no state skipped."""
        again = complying()
        for given in self.inputs:
            _given(again, given)
        assert (again.emitted, again.ids, again.cells) == (self.fold.emitted, self.fold.ids, self.fold.cells)
        control = Incidents()
        for index, event in enumerate(incidents(self.fold)):
            if event.TYPE in control.types:
                facts = event.model_dump(mode="json")
                control.take(
                    index,
                    {"type": event.TYPE, "tenant": event.tenant, "facts": facts, "src": {"broker_ms": event.at_ms}},
                )
        end = End(len(self.fold.emitted), self.now_ms, unbroken=True)
        judged, known = control.judged(end), sum(1 for told in self.told.values() if told.seen)
        assert (judged.population, list(judged.failed)) == (known, [])
        held = dict(self.fold.cells["bank"].entries) if "bank" in self.fold.cells else {}
        late = [
            one
            for one in held.values()
            if one.late or (one.missing and one.answered == "notified") or _passed(one, self.now_ms)
        ]
        assert len(control.notified(end).failed) == len(late)


def _passed(one: Incident, now_ms: int) -> bool:
    return not one.answered and now_ms > one.deadline_ms


def _given(fold: Folding, given: Payload | int) -> list[Payload]:
    return fold.tick(given) if isinstance(given, int) else fold.take(given)


TestIncidents = Machine.TestCase
TestIncidents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
