"""Trust and its ladder together: results are scored, some are judged, and what goes out alone keeps its promise, or is taken back."""

from dataclasses import dataclass, field

import pytest
from answering import looked
from trusting import NOW, Trusted, case, route, said

from agents.trust import decide
from schemas import ids
from schemas.events import AnswerReleased, ResultCompleted, ScoreAssigned, TrustChanged
from schemas.policies import PolicyRoute
from streams.shapes import Event

NUMBERS = {"risk": 0.1, "delta": 0.1, "min_scores": 200, "audit_share": 0.2}
RESULT = {
    "at_ms": NOW, "route": "bank", "request_partition": 0, "request_offset": 1, "arm": "a", "shadow": False, "final": True,
    "decision_id": "d", "assigned_at_ms": NOW, "window_end_ms": NOW + 9_000, "latency_ms": 1.0, "text": "x",
    "tokens_in": 1, "tokens_out": 3, "ttft_ms": 1.0, "engine_ms": 1.0, "finish_reason": "stop", "engine": "e",
}  # fmt: skip


def coin(name: str, label: str) -> float:
    return (ids.coin(name, label) + 0.5) / 65_536


@dataclass
class World:
    """Customers whose unsure answers are often wrong; people who judge what a review shows them."""

    ladder: Trusted
    release: str = "gated"
    sent: int = 0
    released: list[bool] = field(default_factory=list[bool])
    scores: list[ScoreAssigned] = field(default_factory=list[ScoreAssigned])

    def request(self, count: int, *, worse: float = 0.0) -> None:
        settings = route(trust=NUMBERS, release=self.release)
        told = PolicyRoute(at_ms=NOW, version=1, route="bank", settings=settings)
        for _ in range(count):
            self.sent += 1
            name = f"r{self.sent}"
            unsure = coin(name, "unsure")
            right = coin(name, "right") > worse and coin(name, "luck") > unsure * unsure * 0.6
            result = ResultCompleted.model_validate(RESULT | {"request_id": name, "logprobs": (-2.0 * unsure,)})
            policies = decide.Policies(self.ladder.event(told), self.ladder.event(self.ladder.policy))
            event: Event[ResultCompleted] = self.ladder.event(result)  # type: ignore[assignment]
            payloads = [emit.payload for emit in decide.decide(event, policies, NOW, looked())]
            [score] = [row for row in payloads if isinstance(row, ScoreAssigned)]
            self.scores.append(score)
            if any(isinstance(row, AnswerReleased) for row in payloads):
                self.released.append(right)
            went = "" if score.action != "hold" else "released" if right else "withheld"
            carried = {
                "settled": went,
                "certified": score.certified, "sampled": score.sampled, "label_propensity": score.label_propensity,
                "scorer": score.scorer, "z": score.z, "score": score.score, "action": score.action,
            }  # fmt: skip
            self.ladder.take(case(self.sent, score.signals, right if score.review else None, **carried))

    def enforced(self) -> "World":
        self.request(900)
        self.ladder.take(said("drill"))
        self.ladder.take(said("grant"))
        assert self.ladder.policy.mode == "ENFORCE"
        return self


def test_what_goes_out_alone_keeps_its_promise() -> None:
    """In SHADOW nothing does; under ENFORCE a good part, with fewer wrong than promised, and a fifth of all is judged blind."""
    world = World(Trusted(trust=NUMBERS))
    world.request(900)
    assert world.released == []
    assert all(score.review and score.sampled for score in world.scores)
    world.ladder.take(said("drill"))
    world.ladder.take(said("grant"))
    rung = world.ladder.policy.rung
    begin = len(world.scores)
    world.request(800)
    after = world.scores[begin:]
    assert len(world.released) > 0.5 * rung / 100 * len(after)
    assert 1 - sum(world.released) / len(world.released) <= NUMBERS["risk"]
    assert 0.15 < sum(score.sampled for score in after) / len(after) < 0.25
    assert all(score.review or score.action == "release" for score in after)
    assert {score.scorer for score in after} == {world.ladder.standing.running.scorer.name}
    assert all(score.z == world.ladder.standing.running.scorer.z(score.signals) for score in after[-50:])


@pytest.mark.parametrize("release", ["gated", "immediate"])
def test_a_model_that_becomes_worse_is_stepped_back_from(release: str) -> None:
    """By the audited labels alone: alarms come, rung after rung, until people decide again, on an immediate route too."""
    world = World(Trusted(trust=NUMBERS, release=release), release).enforced()
    world.request(1500, worse=0.4)
    alarms = [row for row in world.ladder.of(TrustChanged) if row.alarm]
    assert alarms
    assert all(row.alarm == row.reason.startswith("alarm") for row in world.ladder.of(TrustChanged))
    assert world.ladder.policy.rung < int(alarms[0].before.split()[1])
    assert world.ladder.policy.gate
    before = len(world.released)
    world.request(100, worse=0.4)
    certified = [score for score in world.scores[-100:] if score.certified and not score.sampled]
    assert len(world.released) - before == len(certified)
