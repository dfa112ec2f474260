"""Trust scores every result and gives exactly one answer per request."""

import math

import pytest
from answering import looked, trust
from hypothesis import given
from hypothesis import strategies as st

from agents.trust import decide
from infra.clock import ManualClock
from schemas import ids
from schemas.events import (
    AnswerReleased,
    AnswerWithheld,
    ResultCompleted,
    ResultFailed,
    ReviewRequested,
    ReviewSettled,
    ScoreAssigned,
)
from schemas.policies import SIGNALS, PolicyRoute, PolicyTrust
from schemas.routes import Arm, Route
from streams.shapes import Event, Place, Record

NOW = 1_700_000_000_000
BASE = {"at_ms": NOW, "route": "bank", "request_id": "r1", "request_partition": 0, "request_offset": 4,
        "request_at_ms": NOW - 70}  # fmt: skip
RESULT = BASE | {"arm": "a", "shadow": False, "final": True, "decision_id": "d1", "assigned_at_ms": NOW - 50,
                 "window_end_ms": NOW + 1_000, "latency_ms": 50.0}  # fmt: skip
DONE = {"text": "42", "tokens_in": 3, "tokens_out": 2, "ttft_ms": 1.0, "engine_ms": 2.0, "finish_reason": "stop",
        "logprobs": (-0.1, -0.3), "engine": "e"}  # fmt: skip


class Table:
    """A view that holds what it was given."""

    def __init__(self, *policies):
        self.rows = {policy.event_key(): event_of(policy) for policy in policies}

    def get(self, model, key):
        return self.rows.get(key)

    def items(self, model):
        return {}

    def age_s(self):
        return 0.0


def event_of(payload, event_id="x1"):
    record = Record("ratchet." + payload.TOPIC, 0, 1, payload.event_key().encode(), b"", (), NOW)
    return Event(event_id, payload.event_key(), payload, "test", "", record.place, record)


def route(**changes):
    arms = (Arm(arm="a", base="sha256:0"),)
    return PolicyRoute(
        at_ms=NOW,
        version=1,
        route="bank",
        settings=Route(**({"route": "bank", "arms": arms, "champion": "a", "compliance": "off"} | changes)),
    )


def granted(threshold=0.0, **changes):
    told = {
        "at_ms": NOW,
        "version": 2,
        "route": "bank",
        "scorer": "s",
        "signals": SIGNALS,
        "weights": (1.0, *(0.0,) * 5),
    }
    return PolicyTrust(**(told | {"mode": "GRANTED", "threshold": threshold} | changes))


def enforced(floor=-30.0, **changes):
    """z is the mean log-probability: -0.2 of an answer that says no other."""
    return granted(**({"mode": "ENFORCE", "floor": floor, "rung": 50, "arm": "a"} | changes))


OLD = granted(signals=SIGNALS[:4], weights=(1.0, 0.0, 0.0, 0.0))  # by the signals of an earlier version


async def given_by(result, *policies, now=NOW):
    emits = await trust(Table(*policies), ManualClock(now))(event_of(result))
    return [emit.payload for emit in emits]


def completed(**changes):
    return ResultCompleted(**(RESULT | DONE | changes))


def failed(**changes):
    return ResultFailed(**(RESULT | {"kind": "unavailable", "reason": "away"} | changes))


async def test_an_immediate_route_releases_at_once():
    """Score and answer together; the verdict is feedback, the latency counts from the request."""
    score, answer = await given_by(completed(), route(release="immediate"))
    assert (score.action, score.certified, score.review, score.gated) == ("release", False, True, False)
    assert isinstance(answer, AnswerReleased)
    assert (answer.text, answer.certified, answer.reviewed, answer.latency_ms) == ("42", False, False, 70.0)
    assert answer.result_id == "x1"


async def test_the_review_share_is_a_coin_of_the_request_id():
    """Its share of requests is reviewed and says how probable that was."""
    told = route(release="immediate", review_share=0.25)
    scores = [(await given_by(completed(request_id=f"r{n}"), told))[0] for n in range(400)]
    assert 60 <= sum(score.review for score in scores) <= 140
    assert {score.label_propensity for score in scores} == {0.25}


@pytest.mark.parametrize(
    "told",
    [(), (route(),), (granted(),), (enforced(),), (route(), granted(mode="SHADOW")), (route(), OLD),
     (route(release="immediate"), granted(mode="SHADOW", gate=True))],
)  # fmt: skip
async def test_a_gated_route_without_trust_holds_for_a_person(told):
    """Also where the settings are not known; every label is sure to come."""
    [score] = await given_by(completed(), *told)
    assert (score.action, score.review, score.label_propensity, score.gated) == ("hold", True, 1.0, True)


@pytest.mark.parametrize("told", [granted(), enforced(-0.2)], ids=["GRANTED", "ENFORCE"])
async def test_what_a_score_releases_goes_out_but_for_the_blind_audit(told):
    """5 % are held all the same, so that it stays measured. Certified is only what the ladder's rung covers."""
    rows = [await given_by(completed(request_id=f"r{n}"), route(), told) for n in range(600)]
    held = [row[0] for row in rows if len(row) == 1]
    assert 12 <= len(held) <= 55
    assert all(score.sampled and score.review and score.action == "hold" for score in held)
    assert {row[0].label_propensity for row in rows} == {0.05}
    assert {row[1].certified for row in rows if len(row) == 2} == {told.mode == "ENFORCE"}
    assert not any(row[0].sampled or row[0].review for row in rows if len(row) == 2)


@pytest.mark.parametrize("told", [granted(0.9999), enforced(-0.1), enforced(arm="b"), enforced(floor=None)])
async def test_below_the_rung_a_person_decides_first(told):
    """Another arm's answers, too: the certificate is not about them. Of all these the audit's coin alone makes samples."""
    rows = [await given_by(completed(request_id=f"r{n}"), route(), told) for n in range(600)]
    scores = [row[0] for row in rows]
    assert {len(row) for row in rows} == {1}
    assert {(score.action, score.review, score.certified) for score in scores} == {("hold", True, False)}
    assert 12 <= sum(score.sampled for score in scores) <= 55


async def test_the_audits_coin_knows_nothing_of_the_score():
    """The same requests are drawn whatever they score and whatever the route's rung: by SHA-256 of the request id, exactly."""
    names = [f"r{n}" for n in range(400)]
    drawn = {name for name in names if ids.coin(name, "audit") < 0.05 * 65_536}
    for told in (enforced(-30.0), enforced(-0.2), enforced(30.0)):
        for logprobs in ((-0.1, -0.3), (-5.0,)):
            scores = [(await given_by(completed(request_id=n, logprobs=logprobs), route(), told))[0] for n in names]
            assert {score.request_id for score in scores if score.sampled} == drawn


async def test_an_immediate_route_always_releases_and_says_what_is_certified():
    """Below the rung uncertified and reviewed by its share; above it by the audit's alone. `gate` makes it a gated one."""
    told = route(release="immediate", review_share=0.5)
    above = [await given_by(completed(request_id=f"r{n}"), told, enforced()) for n in range(400)]
    below = [await given_by(completed(request_id=f"r{n}"), told, enforced(0.0)) for n in range(400)]
    assert all(row[0].action == "release" and len(row) == 2 for row in above + below)
    assert {row[1].certified for row in above} == {True}
    assert {row[1].certified for row in below} == {False}
    assert [row[0].review for row in above] == [row[0].sampled for row in above]
    assert [row[0].sampled for row in above] == [row[0].sampled for row in below]
    assert 150 <= sum(row[0].review for row in below) <= 250
    gated = [await given_by(completed(request_id=f"r{n}"), told, enforced(0.0, gate=True)) for n in range(20)]
    assert all(len(row) == 1 and row[0].gated and row[0].review for row in gated)


@pytest.mark.parametrize("told", [(route(release="immediate"),), (route(), granted())])
async def test_nothing_is_released_past_the_window(told):
    """From there the case settles it."""
    [score] = await given_by(completed(), *told, now=NOW + 1_001)
    assert (score.action, score.review) == ("hold", False)


@pytest.mark.parametrize("told", [(), (route(release="immediate"),), (route(), granted())])
async def test_a_shadow_is_scored_and_never_released(told):
    """Completed or failed, whatever the route."""
    for result in (completed(shadow=True), failed(shadow=True)):
        [score] = await given_by(result, *told)
        assert (score.action, score.review, score.shadow) == ("hold", False, True)


async def test_a_failure_is_scored_only_where_the_chain_ends():
    """The case then withholds."""
    assert await given_by(failed(final=False), route()) == []
    [score] = await given_by(failed(), route(release="immediate"))
    assert (score.failed, score.action, score.score, score.review) == (True, "hold", 0.0, False)


SETTLED = BASE | {"result_id": "x1", "decision_id": "d1"}


@pytest.mark.parametrize(("outcome", "reason", "expected"), [
    ("released", "approved", AnswerReleased),
    ("released", "corrected", AnswerReleased),
    ("withheld", "rejected", AnswerWithheld),
    ("withheld", "failed", AnswerWithheld),
    ("withheld", "window_ended", AnswerWithheld),
])  # fmt: skip
async def test_a_settled_review_is_the_one_answer(outcome, reason, expected):
    """Released with the settled text, or withheld with the reason."""
    [answer] = await given_by(ReviewSettled(**SETTLED, outcome=outcome, reason=reason, text="ok", arm="a"), route())
    assert type(answer) is expected
    if expected is AnswerReleased:
        assert (answer.text, answer.reviewed, answer.latency_ms) == ("ok", True, 70.0)
    else:
        assert answer.reason == reason


async def test_a_requested_review_is_for_people():
    """Trust says nothing to it."""
    asked = ReviewRequested(**BASE, messages=(), answers=(), grader="verdict", gated=True, due_ms=NOW)
    assert await given_by(asked) == []


@given(
    release=st.sampled_from(["gated", "immediate"]),
    share=st.floats(0, 1),
    grant=st.none() | st.floats(0, 1) | st.tuples(st.floats(-30, 30), st.booleans()),
    name=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    late=st.booleans(),
    chain=st.lists(st.booleans(), max_size=3),
    shadow=st.none() | st.booleans(),
    ends=st.booleans(),
)
def test_exactly_one_answer_per_request(release, share, grant, name, late, chain, shadow, ends):
    """Whatever the chain, shadow, route and grant: trust answers, or it holds and the settled case is answered."""
    policy = enforced(grant[0], gate=grant[1]) if isinstance(grant, tuple) else granted(grant or 0.0)
    told = decide.Policies(
        event_of(route(release=release, review_share=share)), None if grant is None else event_of(policy)
    )
    now = NOW + (2_000 if late else 0)
    results = [failed(request_id=name, final=False) for _ in chain]
    results.append(completed(request_id=name) if ends else failed(request_id=name))
    if shadow is not None:
        results.append(completed(request_id=name, shadow=True) if shadow else failed(request_id=name, shadow=True))
    made = [emit.payload for result in results for emit in decide.decide(event_of(result), told, now, looked())]
    answers = [payload for payload in made if payload.TOPIC == "answers"]
    held = [row for row in made if isinstance(row, ScoreAssigned) and not row.shadow and row.action == "hold"]
    for _ in held:  # the case settles once what was held
        settled = ReviewSettled(**(SETTLED | {"request_id": name}), outcome="withheld", reason="window_ended")
        answers += [emit.payload for emit in decide.settle(event_of(settled), told, now)]
    assert len(answers) == 1


@given(st.lists(st.floats(-1e4, 0), max_size=20), st.integers(0, 10_000), st.sampled_from(["stop", "length", ""]))
def test_signals_and_scores_are_finite(logprobs, tokens, finish):
    """No answer, however odd, breaks the score."""
    signals, z, score = decide.scored(
        completed(logprobs=tuple(logprobs), tokens_out=tokens, finish_reason=finish), None
    )
    assert len(signals) == len(SIGNALS)
    assert all(map(math.isfinite, (*signals, z)))
    assert 0 <= score <= 1


def test_a_second_arm_that_agrees_scores_higher():
    """Than one that does not, with one that was not asked in between; that is what the signals say."""
    scores = [decide.scored(completed(agreement=agreement), None) for agreement in (0.0, None, 1.0)]
    assert [row[0][4:] for row in scores] == [(0.0, 1.0), (0.0, 0.0), (1.0, 1.0)]
    assert scores[0][2] < scores[1][2] < scores[2][2]


def test_an_unsure_answer_scores_lower():
    """The prior already prefers likely tokens and a finished answer."""
    sure = decide.scored(completed(logprobs=(-0.01, -0.02)), None)[2]
    unsure = decide.scored(completed(logprobs=(-2.0, -3.0), finish_reason="length"), None)[2]
    assert unsure < 0.5 < sure


async def test_a_place_never_matters():
    """The same result at another offset is decided alike."""
    result = completed()
    one = event_of(result)
    other = Event(one.id, one.key, result, one.source, "", Place("ratchet.results", 3, 99), one.record)
    agent = trust(Table(route()), ManualClock(NOW))
    assert await agent(one) == await agent(other)
