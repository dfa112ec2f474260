"""Trust lets answers out only with a certificate, a tested kill switch and an operator's word, and takes it back at once."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trusting import NOW, QUICK, Trusted, apply, promoted, rolled_back, said

from agents.rules.detector import ALARM
from agents.trust.fold import Ladder
from agents.trust.protocol import lacks
from agents.trust.state import RouteTrust
from schemas.events import TrustChanged
from schemas.payload import Payload
from schemas.policies import PolicyTrust
from schemas.routes import TrustSettings
from streams.shapes import RawState

AUTOMATIC = QUICK | {"enforce": "automatic"}
DRAWN = {"certified": True, "label_propensity": 0.05}  # of the audit, under ENFORCE


def certified(**changes: Any) -> Trusted:
    ladder = Trusted(**({"trust": QUICK} | changes))
    ladder.certify()
    return ladder


def enforcing(**changes: Any) -> Trusted:
    ladder = certified(**changes)
    ladder.take(said("drill"))
    ladder.take(said("grant"))
    assert (ladder.policy.mode, ladder.policy.rung) == ("ENFORCE", 100)
    return ladder


def alarmed(**changes: Any) -> Trusted:
    """ENFORCE, and then audited labels that are wrong until the detector speaks."""
    ladder = enforcing(**changes)
    for _ in range(200):
        before = len(ladder.of(TrustChanged))
        ladder.label(1, right=False, **DRAWN)
        if len(ladder.of(TrustChanged)) > before:
            return ladder
    raise AssertionError("never alarmed")


def last(ladder: Trusted) -> TrustChanged:
    return ladder.of(TrustChanged)[-1]


def test_a_grant_without_a_certificate_is_refused_by_event() -> None:
    """The mode stays, the reasons are named; no policy follows."""
    ladder = Trusted(trust=QUICK)
    [told] = ladder.take(said("grant"))
    assert isinstance(told, TrustChanged)
    assert (told.refused, told.before, told.after) == (True, "SHADOW", "SHADOW")
    assert "no rung is certified" in told.reason
    assert "kill switch" in told.reason
    assert (ladder.record.mode, ladder.policy.version) == ("SHADOW", 1)


def test_a_certificate_alone_releases_nothing() -> None:
    """The kill switch must be tested, and the operator must say so; each step is trust.changed."""
    ladder = certified()
    assert (ladder.policy.mode, ladder.policy.certified, ladder.policy.floor) == ("SHADOW", 100, None)
    [told] = ladder.take(said("grant"))
    assert isinstance(told, TrustChanged)
    assert told.reason == "refused: the kill switch was never tested (command.trust drill)"
    policy, changed = ladder.take(said("drill"))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.drilled, policy.mode, changed.reason) == (True, "SHADOW", "command.trust drill")
    assert lacks(ladder.standing) == ()
    policy, changed = ladder.take(said("grant"))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.mode, policy.rung, policy.floor, policy.granted_by) == ("ENFORCE", 100, policy.tau[9], "op")
    assert (changed.before, changed.after, changed.by) == ("SHADOW, 100 % certified", "ENFORCE 100 %", "op")
    assert ladder.record.detector is not None
    assert [type(row) for row in ladder.take(said("grant"))] == [PolicyTrust]


def test_a_withdrawal_counts_as_the_test_of_the_kill_switch() -> None:
    """And the grant after it enforces again with what the ladder had counted."""
    ladder = certified()
    ladder.take(said("withdraw"))
    ladder.take(said("grant"))
    assert (ladder.policy.mode, ladder.policy.gate, ladder.policy.rung) == ("ENFORCE", False, 100)


def test_automatic_enforces_on_its_own_once_nothing_lacks() -> None:
    """Not before the drill, and never again after a withdrawal until an operator says so."""
    ladder = certified(trust=AUTOMATIC)
    assert ladder.policy.mode == "SHADOW"
    ladder.take(said("drill"))
    assert (ladder.policy.mode, ladder.policy.granted_by) == ("ENFORCE", "")
    ladder.take(said("withdraw"))
    ladder.label(30)
    assert (ladder.policy.mode, ladder.record.withdrawn) == ("SHADOW", True)
    ladder.take(said("grant"))
    assert ladder.policy.mode == "ENFORCE"


def test_off_never_enforces_and_stops_what_does() -> None:
    """By the route's settings: a grant is refused, an apply takes it back."""
    ladder = enforcing()
    policy, changed = ladder.take(apply(trust=QUICK | {"enforce": "off"}))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.mode, changed.reason) == ("SHADOW", "trust.enforce is off by command.apply")
    [told] = ladder.take(said("grant"))
    assert isinstance(told, TrustChanged)
    assert told.reason == "refused: trust.enforce is off for this route"


def test_a_grant_with_a_threshold_promises_nothing() -> None:
    """It is the operator's own word: GRANTED, at any time; asked again it is answered with the policy as it stands."""
    ladder = Trusted()
    policy, changed = ladder.take(said("grant", threshold=0.95))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.mode, policy.threshold, policy.granted_by, policy.rung) == ("GRANTED", 0.95, "op", 0)
    assert (changed.before, changed.after, changed.by) == ("SHADOW", "GRANTED >= 0.95", "op")
    assert [type(row) for row in ladder.take(said("grant", threshold=0.95))] == [PolicyTrust]
    policy, changed = ladder.take(said("withdraw"))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.mode, policy.version, changed.after) == ("SHADOW", 4, "SHADOW")


@pytest.mark.parametrize("mode", ["SHADOW", "GRANTED", "ENFORCE"])
def test_the_kill_switch_works_in_every_mode(mode: str) -> None:
    """At once SHADOW, with the gate down: an immediate route waits for people too, until an operator lifts it."""
    made = {"SHADOW": lambda: Trusted(release="immediate"), "GRANTED": lambda: Trusted(release="immediate")}
    ladder = made.get(mode, lambda: enforcing(release="immediate"))()
    if mode == "GRANTED":
        ladder.take(said("grant", threshold=0.5))
    policy, changed = ladder.take(said("withdraw"))
    assert isinstance(policy, PolicyTrust)
    assert isinstance(changed, TrustChanged)
    assert (policy.mode, policy.gate, policy.floor, policy.rung) == ("SHADOW", True, None, 0)
    assert changed.after.endswith(", gated")
    assert [type(row) for row in ladder.take(said("withdraw"))] == [PolicyTrust]
    ladder.take(said("reset"))
    assert not ladder.policy.gate


def test_an_alarm_steps_back_and_the_demoted_rungs_begin_anew() -> None:
    """From 100 % to the next tighter certified rung; the detector begins again too."""
    ladder = alarmed()
    changed = last(ladder)
    rungs = ladder.standing.running.rungs
    assert rungs is not None
    assert changed.reason.startswith("alarm at 100 %")
    assert changed.before == "ENFORCE 100 %"
    assert ladder.policy.rung == ladder.standing.running.covers() < 100
    assert (rungs.n[9], rungs.bad[9], rungs.crossed[9]) == (1, 1, False)  # the label of the alarm has its turn after it
    detector = ladder.record.detector
    assert detector is not None
    assert (detector.n, detector.level()) == (0, 0.0)
    assert ladder.policy.floor == rungs.floor(ladder.policy.rung)


def test_alarms_at_every_rung_end_in_shadow() -> None:
    """Where no tighter rung is certified, people decide again, and a grant is refused."""
    ladder = enforcing()
    ladder.label(900, right=False, **DRAWN)
    assert ladder.policy.mode == "SHADOW"
    assert ladder.policy.rung == 0
    [told] = ladder.take(said("grant"))
    assert isinstance(told, TrustChanged)
    assert told.refused


@pytest.mark.parametrize(
    ("release", "on_alarm", "gate", "word"),
    [
        ("immediate", "gate", True, ", gated"),
        ("immediate", "notify", False, " %"),
        ("gated", "gate", True, " %"),
        ("gated", "notify", False, " %"),
    ],
)
def test_an_alarm_gates_an_immediate_route_or_only_says_so(release: str, on_alarm: str, gate: bool, word: str) -> None:
    """By `on_alarm`; the gate stays until an operator grants again."""
    ladder = alarmed(release=release, on_alarm=on_alarm)
    assert (ladder.policy.gate, last(ladder).after.endswith(word)) == (gate, True)
    ladder.label(30, **DRAWN)
    assert ladder.policy.gate == gate
    ladder.take(said("grant"))
    assert not ladder.policy.gate


def test_only_audited_labels_of_what_is_released_reach_the_detector() -> None:
    """Not those below the rung, not those that nobody drew; the certificate takes what was drawn, released or not."""
    ladder = enforcing()
    for changes in ({"sampled": False, "certified": True}, {"certified": False}):
        ladder.label(3, right=False, **changes)
    detector = ladder.record.detector
    assert detector is not None
    assert detector.n == 0
    before = ladder.standing.running.counted
    ladder.label(3, **DRAWN)
    detector = ladder.record.detector
    assert detector is not None
    assert (detector.n, ladder.standing.running.counted) == (3, before + 3)
    assert detector.level() < ALARM


RESETS: dict[str, Payload] = {
    "champion": promoted(),
    "rollback": rolled_back(),
    "grader": apply(trust=QUICK, grader="reference"),
    "rubric": apply(trust=QUICK, grading={"rubric": "Two points for courtesy."}),
    "declared": apply(trust=QUICK, champion="b"),
    "prompt": apply(trust=QUICK, arms=({"arm": "a", "base": "sha256:0", "template": "Say: {text}"},)),
    "risk": apply(trust=QUICK | {"risk": 0.25}),
    "delta": apply(trust=QUICK | {"delta": 0.1}),
    "reviewers": said("reset"),
}


@pytest.mark.parametrize("name", sorted(RESETS))
@pytest.mark.parametrize("begin", [enforcing, certified])
def test_what_changes_the_meaning_of_a_label_begins_the_ladder_anew(begin: Any, name: str) -> None:
    """SHADOW, no rungs, no counts, another scorer version; the drill stays."""
    ladder = begin()
    before = ladder.standing.running.scorer.name
    ladder.take(RESETS[name])
    running = ladder.standing.running
    assert (running.rungs, running.counted, running.covers()) == (None, 0, 0)
    assert running.scorer.name != before
    assert (ladder.policy.mode, ladder.policy.rung, ladder.policy.tau) == ("SHADOW", 0, ())
    assert last(ladder).after == "SHADOW"
    assert ladder.policy.arm == ("b" if name in ("champion", "declared") else "a")
    assert ladder.record.drilled_ms == (NOW if begin is enforcing else None)


@pytest.mark.parametrize("settings", [{"review_share": 0.5}, {"trust": QUICK | {"audit_share": 0.1}}])
def test_what_changes_no_meaning_resets_nothing(settings: dict[str, Any]) -> None:
    """A share is no rubric."""
    ladder = enforcing()
    assert ladder.take(apply(**({"trust": QUICK} | settings))) == []
    assert (ladder.record.mode, ladder.record.rung) == ("ENFORCE", 100)


def test_an_older_state_is_known_and_begins_in_shadow() -> None:
    """Version 1 had no ladder: version, tenant, champion, grader, threshold and commands stay."""
    old = {
        "tenant": "t", "version": 57, "champion": "a", "grader": "verdict", "threshold": 0.7, "mode": "GRANTED",
        "granted_by": "op", "labels": 900, "unpublished": 3, "recent": ["r1"], "commands": ["abc"], "count": 20.0,
        "weights": [1.0, 2.0, 3.0, 4.0],
    }  # fmt: skip
    moved = Ladder().migrate(1, RawState("bank", old, {}, None))
    record = RouteTrust.model_validate(moved.record)
    assert (record.tenant, record.version, record.arm, record.commands) == ("t", 57, "a", ("abc",))
    assert (record.mode, record.threshold, record.settings, moved.entries) == ("SHADOW", 0.7, TrustSettings(), {})
    assert Ladder().migrate(1, RawState("bank", None, {}, None)).record is None


STEPS = st.lists(
    st.sampled_from(["good", "bad", "blind", "drill", "grant", "word", "withdraw", "reset", "champion", "automatic"]),
    max_size=14,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.booleans())
def test_nothing_is_ever_enforced_without_its_certificate(steps: list[str], immediate: bool) -> None:
    """Whatever comes in whatever order: ENFORCE means a certified rung, a tested kill switch and no standing withdrawal."""
    ladder = Trusted(trust=QUICK, release="immediate" if immediate else "gated")
    for step in steps:
        if step in ("good", "bad", "blind"):
            ladder.label(25, right=step != "bad", sampled=step != "blind", certified=True)
        elif step == "word":
            ladder.take(said("grant", threshold=0.5))
        elif step == "champion":
            ladder.take(promoted())
        elif step == "automatic":
            ladder.take(apply(trust=AUTOMATIC))
        else:
            ladder.take(said(step))
        policy, record = ladder.policy, ladder.record
        covers = ladder.standing.running.covers()
        assert policy.mode == record.mode
        assert policy.gate == record.gate
        if policy.mode == "ENFORCE":
            assert 0 < policy.rung == covers == record.rung
            assert policy.floor == policy.tau[policy.rung // 10 - 1]
            assert record.drilled_ms is not None
            assert not record.withdrawn
        else:
            assert (policy.rung, policy.floor, record.detector) == (0, None, None)
    for one, other in pairwise(ladder.of(TrustChanged)):
        assert other.before == one.after
