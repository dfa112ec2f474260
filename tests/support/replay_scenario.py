"""Some hundred requests on a scripted stack, good and bad, with verdicts, policy changes and two kills: what a replay is tried on.

`python tests/support/replay_scenario.py FILE` starts a stack in a temporary folder, plays this and records its log into FILE.
"""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.settings import Settings, load
from schemas import codec, ids
from schemas.compliance import CommandIncident, CommandTenant, Notice
from schemas.events import (
    ArmVerdict,
    Command,
    CommandApply,
    CommandCancel,
    CommandPause,
    CommandResume,
    CommandRollback,
    CommandTrain,
    CommandTrust,
    Message,
    RequestSubmitted,
    VerdictGiven,
)
from schemas.gate import GateTenant
from schemas.payload import Payload
from schemas.principal import Prove
from schemas.routes import Arm, JudgeSettings, Route, TrainingSettings
from schemas.routing import BudgetSettings, CacheSettings, QuotaSettings, RoutingSettings
from schemas.topics import PREFIX
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.stack import down, up
from tools.stack.supervise import read_state
from tools.voice import Voice, unproven, voices

GROUPS = (
    ("router", "trust"),
    ("cases", "ladder", "judge", "estimator", "learner", "compliance"),
    ("inference",),
    ("trainer",),
)
LOOSE = JudgeSettings(
    min_pairs=12,
    max_pairs=1000,
    min_time_s=0,
    cooldown_s=2,
    evaluate_every=5,
    latency_slo_ms=10_000,
    latency_margin=0.5,
    latency_harm=0.8,
    error_margin=0.5,
    error_harm=0.8,
    quality_margin=0.5,
    quality_harm=0.8,
    win_by=("quality",),
    novelty_pairs=1,
    once_a_day=False,
    stages=(0.5,),
    stage_time_s=1,
    holdback_share=0.2,
)
CARDS = Route(
    route="cards.intent",
    compliance="off",
    release="immediate",
    grader="reference",
    arms=(Arm(arm="base", base="scripted"), Arm(arm="better", base="scripted", template="Well: {text}")),
    champion="base",
    challengers=("better",),
    window_s=25,
    deadline_s=20,
    max_chars=200,
    review_share=0.3,
    rollout=0.3,
    judge=LOOSE,
    training=TrainingSettings(min_rows=10, min_new_rows=5, min_interval_s=3600),
)
REFUNDS = Route(
    route="refunds.gated",
    compliance="off",
    release="gated",
    arms=(Arm(arm="one", base="scripted"),),
    champion="one",
    window_s=20,
    deadline_s=15,
    trust_threshold=0.5,
    training=TrainingSettings(enabled=False),
)
MIXED = Route(
    route="mixed.learnt",
    compliance="off",
    release="immediate",
    grader="reference",
    arms=(
        Arm(arm="small", base="scripted", nano_usd_in=20, nano_usd_out=20),
        Arm(arm="big", base="scripted", template="Well: {text}", nano_usd_in=400, nano_usd_out=400),
    ),
    champion="small",
    window_s=15,
    deadline_s=10,
    training=TrainingSettings(enabled=False),
    routing=RoutingSettings(
        strategy="balanced",
        arms=("big",),
        warm_share=1.0,
        warm_labels=10,
        budget=BudgetSettings(nano_usd=2_000, period_s=60, requests=400),
        quota=QuotaSettings(requests_per_s=1000, burst=1000),
        cache=CacheSettings(exact=True),
    ),
)
NOW = SystemClock().now_ms
TWINS = 12
Kill = Callable[[str], None]


@contextmanager
def stack(folder: Path) -> Generator[tuple[Settings, Kill], None, None]:
    """A scripted stack in a folder, and how to SIGKILL one of its processes by name; stopped whatever happens."""
    named = {
        "state_dir": folder,
        "engine": "scripted",
        "log_level": "warning",
        "cache_dir": load().resolved().cache_dir,
    }
    settings = Settings.model_validate(named).resolved()

    def kill(name: str) -> None:
        state = read_state(folder / "agents-state.json")
        assert state is not None
        os.kill(state.children[name].pid, signal.SIGKILL)

    try:
        up(settings=settings, agents=GROUPS, ray=False)
        yield load({}, folder / "env"), kill
    finally:
        down(settings=settings)


class Scenario:
    """Plays on a running stack. `count`: good requests of each route. `voices`: who speaks, by topic."""

    def __init__(self, bus: Bus, kill: Kill, count: int, voices: Mapping[str, Voice]) -> None:
        self.bus, self.kill, self.count, self.voices = bus, kill, count, voices
        self.challenger: dict[str, str] = {}
        self.answered: set[str] = set()
        self.closed: set[str] = set()
        self.live: set[str] = set()
        self.reviewed: dict[str, list[str]] = {}
        self.sent = 0
        self.promoted = self.warm = self.priced = False

    async def send(self, *payloads: Payload, prove: Prove | None = None) -> None:
        rows = []
        for payload in payloads:
            self.sent += 1
            event_id = ids.derive(f"{payload.event_key()}/{self.sent}", "played", payload.TYPE)
            encoded = codec.encode(payload, event_id=event_id, source="played", traceparent="")
            proven = (prove or self.voices[payload.TOPIC].prove)(encoded)
            rows.append((PREFIX + payload.TOPIC, proven))
        await self.bus.publish(rows)

    async def raw(self, key: str, value: bytes, ce_type: str = RequestSubmitted.ce_type()) -> None:
        headers = (("ce_type", ce_type.encode()), ("ce_id", f"raw-{key}".encode()))
        row = codec.Encoded(key.encode(), value, headers)
        await self.bus.publish([(PREFIX + "requests", self.voices["requests"].prove(row))])

    async def command(self, kind: type[Command], route: Route, **more: Any) -> None:
        await self.send(
            kind(route=route.route, operator=self.voices["commands"].name, at_ms=NOW(), reason="played", **more)
        )

    async def incidents(self, count: int) -> None:
        """A tenant's configuration, twice; incidents through all their states, with steps that are refused, and one overdue."""
        by: dict[str, Any] = {"tenant": "bank", "operator": self.voices["commands"].name, "reason": "played"}
        await self.send(
            *(CommandTenant(at_ms=NOW(), settings=GateTenant(tenant="bank", notify_hours=n), **by) for n in (72, 48))
        )
        steps: tuple[dict[str, Any], ...] = (
            {"step": "detect"},
            {"step": "close"},
            {"step": "assess", "personal_data": True, "high_risk": True},
            {"step": "notify", "notice": Notice(nature=True, contact=True)},
            {"step": "tell"},
            {"step": "contain"},
            {"step": "close"},
        )
        for n in range(count):
            for step in steps:
                await self.send(CommandIncident(at_ms=NOW(), incident=f"breach-{n}", **step, **by))
        await self.send(CommandIncident(at_ms=NOW(), incident="old", step="detect", aware_at_ms=0, **by))

    def request(self, route: Route, number: int, **more: Any) -> RequestSubmitted:
        text = f"message {number} of a customer about {route.route}"
        given = {"route": route.route, "request_id": f"{route.route}-{number:04d}", "at_ms": NOW()} | more
        return RequestSubmitted(messages=(Message(role="user", content=text),), **given)

    async def watch(self) -> None:
        topics = [PREFIX + name for name in ("results", "cases", "policies", "reviews")]
        async for record in self.bus.follow(await self.bus.starts(topics)):
            if record is None:
                continue
            row = as_row(record)
            data: dict[str, Any] = row["data"] or {}
            match row["type"]:
                case "result.completed" if data["arm"] in ("better", "big"):
                    self.challenger[data["request_id"]] = data["text"]
                case "case.answered":
                    self.answered.add(data["request_id"])
                case "case.closed":
                    self.closed.add(data["request_id"])
                case "policy.live":
                    self.live |= {f"{arm['route']}/{arm['arm']}" for arm in data["arms"]}
                case "policy.router" if data["warm"]:
                    self.warm, self.priced = True, self.priced or data["lambda_cost"] > 0
                case "policy.fleet" if data["champion"] == "better":
                    self.promoted = True
                case "review.requested":
                    self.reviewed[data["request_id"]] = [answer["label"] for answer in data["answers"]]
                case _:
                    pass

    async def until(self, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():  # noqa: ASYNC110  what it looks at is filled by a reader
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never came: {what}") from None

    async def play(self) -> None:
        """All of it; returns when every case has closed."""
        watching = asyncio.create_task(self.watch())
        try:
            await self.raw("early", b'{"route": "nobody"}')
            await self.send(self.request(CARDS, 9000))  # before any route is applied
            await self.command(CommandApply, CARDS, settings=CARDS)
            await self.command(CommandApply, REFUNDS, settings=REFUNDS)
            await self.command(CommandApply, MIXED, settings=MIXED)
            wanted = {"cards.intent/base", "cards.intent/better", "refunds.gated/one"}
            wanted |= {"mixed.learnt/small", "mixed.learnt/big"}
            await self.until(lambda: wanted <= self.live, "live arms")
            await asyncio.sleep(1.0)
            await self.taught(0)
            await self.half(0)
            self.kill("router-trust")
            await self.bad()
            await self.changes()
            await self.half(self.count // 2)
            await self.until(lambda: self.warm, "a router that is warm")
            await self.taught(100)
            await self.taught(200)
            await self.until(lambda: self.priced, "a budget that is felt")
            await self.taught(300)
            await self.incidents(4)
            self.kill("cases-ladder-judge-estimator-learner-compliance")
            await self.command(CommandTrain, CARDS)
            await self.command(CommandTrust, REFUNDS, action="grant", threshold=0.3)
            await asyncio.sleep(1.5)
            await self.send(*(self.request(REFUNDS, 500 + n) for n in range(self.count // 4)))
            await self.command(CommandTrust, REFUNDS, action="withdraw")
            await self.incidents(4)
            await self.command(CommandCancel, CARDS)
            await self.until(lambda: self.promoted, "the better arm's promotion", 90)
            await self.send(*(self.request(CARDS, 800 + n) for n in range(self.count // 4)))
            await self.command(CommandRollback, CARDS)
            await self.until(lambda: self.answered <= self.closed, "closed cases", 90)
            await asyncio.sleep(3.0)
        finally:
            watching.cancel()

    async def brief(self) -> None:
        """Half of the good requests, some bad ones, a kill of each process that decides; cases stay open."""
        watching = asyncio.create_task(self.watch())
        try:
            await self.command(CommandApply, CARDS, settings=CARDS)
            await self.command(CommandApply, REFUNDS, settings=REFUNDS)
            wanted = {"cards.intent/base", "cards.intent/better", "refunds.gated/one"}
            await self.until(lambda: wanted <= self.live, "live arms")
            await asyncio.sleep(0.5)
            await self.half(0)
            self.kill("router-trust")
            await self.bad()
            await self.incidents(2)
            self.kill("cases-ladder-judge-estimator-learner-compliance")
            late = [self.request(CARDS, 700 + n, session_id=f"s-{n}") for n in range(self.count // 2)]
            await self.send(*late)
            await self.until(lambda: {row.request_id for row in late} <= self.answered, "answered cases")
        finally:
            watching.cancel()

    async def half(self, first: int) -> None:
        """Requests of both routes with sessions, and a verdict for most."""
        cards = range(first, first + self.count // 2)
        asked: list[RequestSubmitted] = []
        for n in cards:
            short = {"deadline_ms": 20} if n % 11 == 5 else {}  # too short for the slow
            asked += [
                self.request(CARDS, n, session_id=f"s-{n % 17}", subject=f"person-{n % 5}", **short),
                self.request(REFUNDS, n),
            ]
        await self.send(*asked)
        refused = {row.request_id for row in asked if row.deadline_ms is not None}
        await self.until(lambda: {row.request_id for row in asked} - refused <= self.answered, "answered cases")
        names = [name for n in cards if n % 10 and (name := f"{CARDS.route}-{n:04d}") in self.challenger]
        gated = [name for n in cards if n % 3 and (name := f"{REFUNDS.route}-{n:04d}") in self.reviewed]
        at, by = NOW(), self.voices["verdicts"].name
        verdicts = [
            VerdictGiven(
                route=CARDS.route, request_id=name, at_ms=at, by=by, kind="reference", corrected=self.challenger[name]
            )
            for name in names
        ]
        for i, name in enumerate(gated):
            told = (
                {"corrected": "another answer"}
                if i % 5 == 0
                else {
                    "answers": tuple(
                        ArmVerdict(label=label, decision="approve" if i % 4 else "reject")
                        for label in self.reviewed[name]
                    )
                }
            )
            verdicts.append(VerdictGiven(route=REFUNDS.route, request_id=name, at_ms=at, by=by, **told))
        await self.send(*verdicts)

    async def taught(self, first: int) -> None:
        """Requests of the route that learns, some twice, and the verdict on each: where the big arm was asked, it is right."""
        asked = [self.request(MIXED, n, session_id=f"s-{n % 7}") for n in range(first, first + self.count // 2)]
        again = [row.model_copy(update={"request_id": f"{row.request_id}-again"}) for row in asked[:3]]
        for rows in (asked, again):
            await self.send(*rows)
            await self.until(lambda wanted=tuple(rows): {row.request_id for row in wanted} <= self.answered, "answers")
        at, by = NOW(), self.voices["verdicts"].name
        right = {row.request_id: self.challenger.get(row.request_id, "another answer") for row in (*asked, *again)}
        told = {"route": MIXED.route, "at_ms": at, "by": by, "kind": "reference"}
        await self.send(*(VerdictGiven(request_id=name, corrected=text, **told) for name, text in right.items()))

    async def bad(self) -> None:
        """One of each that is refused, dead, or ignored."""
        await self.raw("not-json", b"{")
        await self.raw("not utf-8", b"\xff\xfe")
        await self.raw("no-type", b"{}", "ratchet.request.unknown.v1")
        await self.raw("missing-field", b'{"route":"cards.intent","request_id":"missing-field","at_ms":1}')
        long = (Message(role="user", content="x" * 300),)
        again = self.request(CARDS, 0).model_copy(update={"at_ms": 1})
        await self.send(
            self.request(CARDS, 9001).model_copy(update={"route": "nowhere"}),
            self.request(CARDS, 9002).model_copy(update={"tenant": "other"}),
            self.request(CARDS, 9003).model_copy(update={"messages": long}),
            self.request(CARDS, 9004, at_ms=NOW() + 3_600_000),
            self.request(CARDS, 9005, at_ms=NOW() - 10_000, deadline_ms=1),
            again,
            VerdictGiven(
                route=CARDS.route,
                request_id=f"{CARDS.route}-0001",
                at_ms=NOW(),
                by=self.voices["verdicts"].name,
                answers=(ArmVerdict(label="Z"),),
            ),
        )
        another = self.voices["requests"]
        name = f"{REFUNDS.route}-0001"
        late = VerdictGiven(route=REFUNDS.route, request_id=name, at_ms=NOW(), by=another.name, corrected="x")
        await self.send(late, prove=another.prove)
        await self.send(late.model_copy(update={"at_ms": NOW()}), prove=unproven)
        await self.send(self.request(CARDS, 9008), prove=self.voices["commands"].prove)
        await self.send(self.request(CARDS, 9009), prove=unproven)
        for n in range(TWINS):  # two of one id side by side: of some the later is first
            twice = self.request(CARDS, 9010 + n)
            await self.send(twice, twice)
        wrong = codec.encode(self.request(CARDS, 9007), event_id="wrong-key", source="played", traceparent="")
        moved = self.voices["requests"].prove(codec.Encoded(b"another-key", wrong.value, wrong.headers))
        await self.bus.publish([(PREFIX + "requests", moved)])

    async def changes(self) -> None:
        """Policies change while requests flow."""
        await self.command(CommandPause, REFUNDS)
        await asyncio.sleep(1.0)
        await self.send(self.request(REFUNDS, 9100))
        await self.command(CommandResume, REFUNDS)
        other = CARDS.model_copy(update={"review_share": 0.6, "max_chars": 250})
        await self.command(CommandApply, CARDS, settings=other)
        await asyncio.sleep(1.0)


async def play(settings: Settings, kill: Kill, count: int) -> None:
    """The scenario on the stack of these settings."""
    bootstrap, speak = settings.kafka_bootstrap or "", await voices(settings)
    async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        await Scenario(bus, kill, count, speak).play()


async def _record(settings: Settings, kill: Kill, file: Path, count: int) -> None:
    from tools.cli.replay import record_log

    await play(settings, kill, count)
    artifacts = DirectoryStore(settings.state_dir / "artifacts").get_bytes
    log, size = await record_log(KafkaBroker(settings.kafka_bootstrap or ""), file, artifact=artifacts)
    print(f"{log.size()} records, {size} bytes")  # noqa: T201  a program of its own


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="ratchet-record-") as place, stack(Path(place)) as (found, killing):
        asyncio.run(_record(found, killing, Path(sys.argv[1]), int(sys.argv[2])))
