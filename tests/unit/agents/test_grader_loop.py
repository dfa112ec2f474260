"""Reviews meet the grader and verdicts the cases, on the broker in memory with keys set: proven, counted once, refused by name."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from living import living
from spoken import Ears, credential, encoded, ring_of

from agents.cases.actor import Grader
from agents.cases.fold import Cases
from infra.engine import ArmSpec, Generation
from schemas import ids
from schemas.codec import Encoded
from schemas.events import (
    ArmChoice,
    CaseClosed,
    DecisionRouted,
    Message,
    ResultCompleted,
    ReviewRequested,
    ScoreAssigned,
    VerdictGiven,
)
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.principal import Prove
from schemas.routes import Arm, GraderSettings, Route
from schemas.topics import PREFIX, plans
from streams.admin import ensure_groups
from streams.memory import MemoryBroker
from streams.port import Outgoing, TopicSpec
from streams.runner import Runner, RuntimeSettings
from streams.shapes import Record
from streams.wire import Decoder, decode, partition_of

PARTITIONS = 2
RING = ring_of({"ann": ("reviewer",), "grader": ("grader",)})
ROUTE = Route(
    route="bank",
    compliance="off",
    arms=(Arm(arm="old", base="b"), Arm(arm="new", base="b"), Arm(arm="judge", base="c")),
    champion="old",
    release="immediate",
    grader="model",
    grading=GraderSettings(arm="judge", human_share=0.05, canary_share=1.0),
)

ARMS = tuple(ArmChoice(arm=arm.arm, adapter=None, propensity=65_536 * (arm.arm == "old")) for arm in ROUTE.arms)


class Prefers:
    """A judge model that prefers the answer with `right` in it, wherever it stands."""

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        first, _, second = text.partition("<second")
        reply = "1" if "right" in first else "2" if "right" in second else "0"
        return Generation(reply, 9, 1, 5.0, 4.0, "stop", (-0.1,), None, "scripted", "rep1")


class World:
    """Cases and grader running, and what they wrote."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(PARTITIONS)
        self.now = self.broker.clock.now_ms

    async def start(self) -> None:
        self.admin, self.producer = self.broker.admin(), self.broker.producer()
        await self.admin.start()
        await self.admin.create([TopicSpec(row.full, PARTITIONS, 1, row.config) for row in plans()])
        await self.producer.start()
        await self.say(PolicyRoute(at_ms=1, version=1, route="bank", settings=ROUTE))
        settings = RuntimeSettings(linger_s=0.002, retry_s=0.05, defer_s=0.05, tick_s=60)
        self.runner = Runner(self.broker, self.broker.clock, settings=settings, decoder=Decoder(Ears(RING)))
        self.runner.add_transform(Grader(self.runner.view("policies"), Prefers(), self, self.broker.clock))
        self.runner.add_fold(Cases())
        await ensure_groups("memory", self.runner.groups(), admin=self.admin)
        self.task = asyncio.create_task(self.runner.run())

    async def prover(self) -> Prove:
        return lambda row: credential("grader").prove(row, at_ms=self.now())

    async def say(self, payload: Payload, by: str = "") -> None:
        row: Encoded = encoded(payload, ids.derive(payload.event_key(), payload.TYPE, str(getattr(payload, "arm", by))))
        if by:
            row = credential(by).prove(row, at_ms=self.now())
        await self.put(PREFIX + payload.TOPIC, row)

    async def put(self, topic: str, row: Encoded) -> None:
        at = partition_of(row.key, PARTITIONS)
        await self.producer.send(topic, at, [Outgoing(row.key, row.value, row.headers)])

    async def records(self, topic: str) -> list[Record]:
        tps = [(PREFIX + topic, number) for number in range(PARTITIONS)]
        reader = self.broker.reader(await self.admin.starts(tps))
        await reader.start()
        ends, found = await self.admin.ends(tps), list[Record]()
        while [tp for tp in tps if await reader.position(tp) < ends[tp]]:
            for rows in (await reader.poll(timeout_s=0.05, max_records=500)).values():
                found += rows
        await reader.stop()
        return found

    async def some(self, topic: str, kind: type[Payload], count: int) -> list[Any]:
        """As many events of a kind, and no more a moment later."""
        found: list[Any] = []
        for _ in range(500):
            found = [e.data for e in (decode(r, PARTITIONS) for r in await self.records(topic)) if type(e.data) is kind]
            if len(found) >= count:
                break
            await asyncio.sleep(0.02)
        assert len(found) == count
        return found

    async def letters(self, topic: str, count: int) -> list[dict[str, str]]:
        """As many dead letters' headers."""
        for _ in range(500):
            found = await self.records(f"{topic}.dlq")
            if len(found) >= count:
                break
            await asyncio.sleep(0.02)
        assert len(found) == count
        return [
            {name: value.decode() for name, value in row.headers if name.startswith("ratchet-dlq")} for row in found
        ]


def running() -> AbstractAsyncContextManager[World]:
    return living(World())


async def answered(world: World, request_id: str, old: str, new: str, *, share: float = 0.0) -> None:
    """A request that champion and challenger have answered and trust has released."""
    now = world.now()
    common = {
        "route": "bank", "request_id": request_id, "request_partition": 0, "request_offset": 1, "at_ms": now,
        "assigned_at_ms": now, "window_end_ms": now + 600_000,
    }  # fmt: skip
    done = common | {
        "final": True, "decision_id": "d", "latency_ms": 5, "tokens_in": 1, "tokens_out": 1, "ttft_ms": 1, "engine_ms": 2,
        "finish_reason": "stop", "logprobs": (-0.1,), "engine": "scripted",
    }  # fmt: skip
    await world.say(
        DecisionRouted.model_validate(
            common
            | {
                "messages": (Message(role="user", content="?"),), "arm": "old", "shadows": ("new",), "strategy": "champion",
                "arms": ARMS, "draw": 1, "draw_identity": "x",
                "deadline_at_ms": now + 60_000, "grader": "model", "human_share": share, "policies": (),
            }
        )
    )  # fmt: skip
    await world.say(ResultCompleted.model_validate(done | {"arm": "old", "text": old, "shadow": False}))
    await world.say(ResultCompleted.model_validate(done | {"arm": "new", "text": new, "shadow": True}))
    await world.say(
        ScoreAssigned.model_validate(
            common
            | {
                "arm": "old", "shadow": False, "decision_id": "d", "result_id": "x", "action": "release", "score": 0.5,
                "z": 0.0, "scorer": "s", "threshold": 0.9, "certified": False, "review": False, "sampled": True,
                "label_propensity": 1.0, "gated": False,
            }
        )
    )  # fmt: skip


async def test_the_judge_models_verdict_closes_its_case() -> None:
    """Asked once, proven as the grader, taken by the cases, and in the case beside an empty place for the people's grade."""
    async with running() as world:
        await answered(world, "q1", "wrong", "right")
        [review] = await world.some("reviews", ReviewRequested, 1)
        assert (review.people, len(review.answers)) == (False, 2)
        [given] = await world.some("verdicts", VerdictGiven, 1)
        assert (given.kind, given.by) == ("model", "model.judge")
        [closed] = await world.some("cases", CaseClosed, 1)
        assert closed.why == "complete"
        assert {arm.arm: (arm.grade, arm.model_grade) for arm in closed.arms} == {"old": (None, 0), "new": (None, 1000)}
        assert await world.records("verdicts.dlq") == []


async def test_where_the_coin_asks_for_a_person_the_case_waits_for_one() -> None:
    """Both grades stand in it: what F10 corrects, and by what."""
    async with running() as world:
        await answered(world, "q2", "right", "wrong", share=1.0)
        [review] = await world.some("reviews", ReviewRequested, 1)
        assert review.people
        await world.some("verdicts", VerdictGiven, 1)
        right = next(answer.label for answer in review.answers if answer.text == "right")
        said = [
            {"label": answer.label, "decision": "approve" if answer.label == right else "reject"}
            for answer in review.answers
        ]
        person = {"route": "bank", "request_id": "q2", "at_ms": world.now(), "by": "ann", "answers": said}
        await world.say(VerdictGiven.model_validate(person), by="ann")
        [closed] = await world.some("cases", CaseClosed, 1)
        assert (closed.human_sampled, closed.human_share, closed.verdict_by) == (True, 1.0, "ann")
        assert {arm.arm: (arm.grade, arm.model_grade) for arm in closed.arms} == {"old": (1000, 1000), "new": (0, 0)}


async def test_an_answer_that_nobody_could_tell_from_an_empty_one_is_a_dead_letter() -> None:
    """A tie, then the canary does not lose: no verdict, and the review lies where an operator sees it."""
    async with running() as world:
        await answered(world, "q3", "wrong", "worse")
        [letter] = await world.letters("reviews", 1)
        assert (letter["ratchet-dlq-agent"], letter["ratchet-dlq-kind"]) == ("grader", "canary")
        assert await world.records("verdicts") == []


@pytest.mark.parametrize(
    ("answer", "field"),
    [
        ({"label": "A", "rating": 1.01}, "answers.0.rating"),
        ({"label": "A", "rating": -0.5}, "answers.0.rating"),
        ({"label": "A", "rating": float("nan")}, ""),
        ({"label": "a", "decision": "approve"}, "answers.0.label"),
        ({"label": "A", "decision": "perhaps"}, "answers.0.decision"),
    ],
)
async def test_a_grade_outside_0_to_1_is_a_dead_letter_that_names_the_field(answer: dict[str, Any], field: str) -> None:
    """Whoever sends it, and however well it is proven: it is refused before any case sees it, and the case waits on."""
    async with running() as world:
        good = VerdictGiven(at_ms=world.now(), route="bank", request_id="q4", by="ann", corrected="x")
        body = json.loads(good.model_dump_json()) | {"answers": [answer], "corrected": None}
        plain = encoded(good, "v-bad")
        row = credential("ann").prove(Encoded(plain.key, json.dumps(body).encode(), plain.headers), at_ms=world.now())
        await world.put("ratchet.verdicts", row)
        [letter] = await world.letters("verdicts", 1)
        assert letter["ratchet-dlq-agent"] == "cases"
        assert letter["ratchet-dlq-kind"] in ("invalid", "undecodable", "json", "not-json")
        assert field in letter["ratchet-dlq-message"]
        assert await world.records("cases") == []
