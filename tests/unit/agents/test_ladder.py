"""The ladder learns when an answer is right, and trust is granted by an operator alone."""

import math

from agents.rules.text import normalise, same
from agents.trust import decide
from agents.trust.fold import PUBLISH_EVERY, Ladder, Rung, label_of
from schemas import ids
from schemas.events import (
    CaseAmended,
    CaseArm,
    CaseClosed,
    CommandApply,
    CommandTrust,
    Message,
    ModelPromoted,
    ModelRolledBack,
    TrustChanged,
)
from schemas.policies import PolicyTrust
from schemas.routes import Arm, Route
from streams.shapes import DeadLetter, Event, KeyState, Record, Unchanged

NOW = 1_700_000_000_000


def event_of(payload, event_id="e1"):
    record = Record("ratchet." + payload.TOPIC, 0, 1, payload.event_key().encode(), b"", (), NOW)
    return Event(event_id, payload.event_key(), payload, "test", "", record.place, record)


class Lane:
    """Folds one route's events, as the runtime would; the record goes through JSON each time."""

    def __init__(self):
        self.ladder = Ladder()
        self.record = None
        self.emitted = []
        self.given = 0

    def give(self, payload, event_id=None):
        self.given += 1
        event = event_of(payload, event_id or f"e{self.given}")
        key = self.ladder.state_key(event)
        if key is None:
            return []
        change = self.ladder.fold(KeyState(key, self.record, {}, None), event)
        if not isinstance(change.record, Unchanged):
            self.record = Rung.model_validate_json(change.record.model_dump_json())
            assert self.record == change.record
        rows = [emit if isinstance(emit, DeadLetter) else emit.payload for emit in change.emits]
        self.emitted += rows
        return rows


def apply(**changes):
    arms = (Arm(arm="a", base="sha256:0"), Arm(arm="b", base="sha256:1"))
    told = Route(**({"route": "bank", "arms": arms, "champion": "a"} | changes))
    return CommandApply(at_ms=NOW, route="bank", operator="op", settings=told)


def case(number, signals, right, **changes):
    arm = CaseArm(arm="a", shadow=False, status="completed", grade=1000 if right else 0)
    told = {
        "at_ms": NOW + number, "route": "bank", "request_id": f"r{number}", "request_partition": 0,
        "request_offset": number, "decision_id": "d", "assigned_at_ms": NOW, "window_end_ms": NOW, "arm": "a",
        "why": "complete", "messages": (Message(role="user", content="x"),), "arms": (arm,), "choices": (),
        "grader": "reference", "verdict_kind": "reference", "signals": signals,
    }  # fmt: skip
    return CaseClosed(**(told | changes))


def customers(count, seed=3):
    """Answers whose chance to be right follows their likelihood; the same seed makes the same customers."""
    for number in range(count):
        even = [(ids.coin(f"{seed}/{number}", label) + 0.5) / 65_536 for label in ("mean", "min", "tokens", "right")]
        mean = math.log(even[0]) / 2.0
        signals = (mean, 2 * mean - even[1], math.log1p(1 + int(8 * even[2])), 1.0)
        chance = 1 / (1 + math.exp(-(1.0 + 4.0 * (mean + 0.5))))
        yield signals, even[3] < chance, chance


def test_the_first_apply_publishes_the_prior():
    """One policy, version 1, SHADOW, at the route's threshold; the same command again changes nothing."""
    lane = Lane()
    [policy] = lane.give(apply(trust_threshold=0.8))
    assert isinstance(policy, PolicyTrust)
    assert (policy.version, policy.mode, policy.threshold, policy.labels) == (1, "SHADOW", 0.8, 0)
    assert lane.give(apply(trust_threshold=0.8)) == []
    [policy] = lane.give(apply(trust_threshold=0.7))
    assert (policy.version, policy.threshold) == (2, 0.7)


def test_it_learns_and_publishes_every_25_labels():
    """After 1,000 labels its log-loss is near the best possible and below the prior's; its mean is right."""
    lane = Lane()
    lane.give(apply())
    for number, (signals, right, _) in enumerate(customers(1000)):
        lane.give(case(number, signals, right))
    policies = [row for row in lane.emitted if isinstance(row, PolicyTrust)]
    assert [row.version for row in policies] == list(range(1, 2 + 1000 // PUBLISH_EVERY))
    assert [row.labels for row in policies] == list(range(0, 1001, PUBLISH_EVERY))

    def loss(policy):
        total = 0.0
        for signals, right, _ in fresh:
            z = decide.z_of(signals, policy.weights, policy.center, policy.scale, policy.bias)
            shown = decide.shown(z, policy.platt_a, policy.platt_b)
            total -= math.log(shown if right else 1 - shown)
        return total / len(fresh)

    fresh = list(customers(1000, seed=4))
    best = -sum(math.log(chance if right else 1 - chance) for _, right, chance in fresh) / len(fresh)
    learnt, prior = loss(policies[-1]), loss(policies[0])
    assert learnt < best + 0.03
    assert learnt < prior - 0.02
    last = policies[-1]
    shown = [
        decide.shown(decide.z_of(row[0], last.weights, last.center, last.scale, last.bias), last.platt_a, last.platt_b)
        for row in fresh
    ]
    assert abs(sum(shown) / len(fresh) - sum(row[1] for row in fresh) / len(fresh)) < 0.05


def test_folding_twice_gives_the_same_state():
    """The same log, the same ladder, to the bit."""
    one, other = Lane(), Lane()
    for lane in (one, other):
        lane.give(apply())
        for number, (signals, right, _) in enumerate(customers(60)):
            lane.give(case(number, signals, right))
    assert one.record.model_dump_json() == other.record.model_dump_json()
    assert one.emitted == other.emitted


def test_a_case_counts_once_and_only_where_it_may_teach():
    """Repeats, amendments, ungraded, failed and verdicts before the score (but a reference's) change nothing."""
    lane = Lane()
    lane.give(apply())
    first = case(1, (0.0, 0.0, 1.0, 1.0), True)
    lane.give(first)
    before = lane.record
    lane.give(first)
    arm = first.arms[0]
    lane.give(CaseAmended(**first.model_dump() | {"request_id": "r2"}, amends="e1"))
    lane.give(first.model_copy(update={"request_id": "r3", "verdict_kind": "person"}))
    lane.give(first.model_copy(update={"request_id": "r4", "signals": ()}))
    lane.give(first.model_copy(update={"request_id": "r5", "arms": (arm.model_copy(update={"grade": None}),)}))
    lane.give(first.model_copy(update={"request_id": "r6", "arms": (arm.model_copy(update={"status": "failed"}),)}))
    lane.give(first.model_copy(update={"request_id": "r7", "arms": (arm.model_copy(update={"shadow": True}),)}))
    assert lane.record == before
    assert before.labels == 1
    assert label_of(first.model_copy(update={"verdict_kind": "person", "verdict_after_score": True})) is True
    assert label_of(first.model_copy(update={"arms": (arm.model_copy(update={"grade": 499}),)})) is False


def test_only_an_operator_grants_and_a_withdrawal_is_at_once():
    """Each change is trust.changed and a new policy version; a repeated command changes nothing."""
    lane = Lane()
    lane.give(apply())
    grant = CommandTrust(at_ms=NOW, route="bank", operator="op", action="grant", threshold=0.95)
    policy, changed = lane.give(grant)
    assert (policy.mode, policy.threshold, policy.granted_by) == ("GRANTED", 0.95, "op")
    assert isinstance(changed, TrustChanged)
    assert (changed.before, changed.after, changed.by) == ("SHADOW", "GRANTED >= 0.95", "op")
    assert lane.give(grant) == []
    policy, changed = lane.give(CommandTrust(at_ms=NOW, route="bank", operator="op", action="withdraw"))
    assert (policy.mode, policy.version, changed.after) == ("SHADOW", 3, "SHADOW")


def test_another_champion_or_grader_ends_a_grant():
    """Scores of another model mean something else."""
    told = {"at_ms": NOW, "route": "bank", "arena": "x", "fleet_version": 2}
    promoted = ModelPromoted(**told, champion="a", challenger="b", pairs=1, log_e=5.0, evaluation="e")
    rolled = ModelRolledBack(**told, champion="a", challenger="b", reason="r", by="op")
    for cause in (promoted, rolled, apply(grader="reference")):
        lane = Lane()
        lane.give(apply())
        lane.give(CommandTrust(at_ms=NOW, route="bank", operator="op", action="grant"))
        policy, changed = lane.give(cause)
        assert (policy.mode, policy.granted_by, policy.version) == ("SHADOW", "", 3)
        assert (changed.before, changed.after) == ("GRANTED >= 0.9", "SHADOW")


def test_trust_for_a_route_that_was_never_applied_is_a_dead_letter():
    """The operator is told, and nothing is remembered."""
    lane = Lane()
    [letter] = lane.give(CommandTrust(at_ms=NOW, route="bank", operator="op", action="grant"))
    assert isinstance(letter, DeadLetter)
    assert letter.kind == "unknown-route"
    assert lane.record is None


def test_texts_are_the_same_but_for_case_spaces_and_composition():
    """NFC, case-folded, spaces folded; normalising twice changes nothing."""
    assert same("Card  Not\tworking ", "card not working")
    assert same("Caf\u00e9", "CAFE\u0301")
    assert same("Stra\u00dfe", "STRASSE")
    assert not same("card", "cards")
    odd = "\u1e9e \u0130\u0345 x"
    assert normalise(normalise(odd)) == normalise(odd)
