"""The gate on a real stack: a tenant is configured by a command, and what is then denied is nowhere but in its request."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from replay_scenario import Kill, Scenario, stack

from infra.settings import Settings
from schemas.compliance import CommandTenant
from schemas.events import CommandApply, Message, RequestSubmitted
from schemas.gate import Flow, GateTenant
from schemas.routes import Arm, Route, TrainingSettings
from streams.kafka import KafkaBroker
from streams.replay import Window
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.cli.replay import replay_broker
from tools.cli.status import in_force
from tools.voice import voices

CANARY, CARD, SECRET = "canary5x7", "4111 1111 1111 1111", "AKIA" + "Z7QX3MRTP2KVW5ND"
WARD = Route(
    route="ward",
    release="immediate",
    arms=(Arm(arm="own", base="scripted", region="eu-west"), Arm(arm="far", base="scripted", region="us-east")),
    champion="own",
    challengers=("far",),
    window_s=20,
    deadline_s=15,
    training=TrainingSettings(enabled=False),
)
PERMITTED = GateTenant(
    tenant="default",
    purposes={"support": ("contract",)},
    purpose="support",
    basis="contract",
    notices=("notice-1",),
    notice="notice-1",
    origin="eu-west",
    flows=(Flow(origin="eu-west", region="eu-west"),),
)
TEXTS = {
    "before": f"{CANARY} hello",
    "secret": f"{CANARY} my key is {SECRET}",
    "health": f"{CANARY} the patient was diagnosed with HIV",
    "masked": f"pay with {CARD}, or with {CARD}",
    "fine": "hello",
}


class Told:
    """Answers, policies and everything else that is written, but the requests themselves."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.permitted = False
        self.written: list[bytes] = []

    async def watch(self, bus: Bus, topics: list[str]) -> None:
        async for record in bus.follow(await bus.starts(topics)):
            if record is None:
                continue
            self.written.append(repr((record.key, record.value, record.headers)).encode())
            row = as_row(record)
            data: dict[str, Any] = row["data"] or {}
            self.permitted |= row["type"] == "policy.gate"
            if record.topic == "ratchet.answers":
                self.answers[data["request_id"]] = data | {"type": row["type"]}
            if row["type"] == "decision.routed":
                self.decisions[data["request_id"]] = data


async def try_it(settings: Settings, kill: Kill) -> None:
    bootstrap, speak = settings.kafka_bootstrap or "", await voices(settings)
    names = ("answers", "decisions", "shadows", "results", "scores", "cases", "policies", "reviews", "requests.dlq")
    async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        played, told = Scenario(bus, kill, 0, speak), Told()
        tasks = [played.watch(), told.watch(bus, [f"ratchet.{name}" for name in names])]
        watching = [asyncio.create_task(one) for one in tasks]

        async def ask(*asked: str) -> None:
            for name in asked:
                said = (Message(role="user", content=TEXTS[name]),)
                at = played.request(WARD, 0).at_ms
                await played.send(
                    RequestSubmitted(at_ms=at, route="ward", request_id=name, messages=said, subject="p-7")
                )
            await played.until(lambda: set(asked) <= told.answers.keys(), f"answers of {asked}")

        await played.command(CommandApply, WARD, settings=WARD)
        await played.until(lambda: {"ward/own", "ward/far"} <= played.live, "live arms")
        await ask("before")
        assert told.answers["before"]["kind"] == "gate"
        assert "gate-tenant" in told.answers["before"]["gate"]["rules"]
        by = speak["commands"].name
        at = played.request(WARD, 0).at_ms
        await played.send(CommandTenant(tenant="default", at_ms=at, operator=by, settings=PERMITTED))
        await played.until(lambda: told.permitted, "the tenant's configuration")
        await asyncio.sleep(1.0)
        await ask("secret", "health", "masked", "fine")
        await asyncio.sleep(1.0)
        for task in watching:
            task.cancel()

        assert {name: row["type"] for name, row in told.answers.items()} == {
            "before": "answer.refused",
            "secret": "answer.refused",
            "health": "answer.refused",
            "masked": "answer.released",
            "fine": "answer.released",
        }
        assert "soc2-cc6.7" in told.answers["secret"]["gate"]["rules"]
        assert "gdpr-9" in told.answers["health"]["gate"]["rules"]
        masked = told.decisions["masked"]
        assert masked["messages"][0]["content"] == "pay with [CARD_1], or with [CARD_1]"
        assert masked["mask_map"]
        assert all(row["shadows"] == [] for row in told.decisions.values()), "the challenger lies where no flow leads"
        for word in (CANARY, SECRET, "diagnosed", "p-7"):
            assert not any(word.encode() in row for row in told.written), word
        assert not any(CARD.encode() in row for row in told.written if b"answer.released" not in row)
        [gave] = await replay_broker(KafkaBroker(bootstrap), ("router",), Window())
        assert [str(row) for row in gave.found] == []


@pytest.mark.timeout(240)
def test_what_the_gate_denies_is_nowhere_but_in_its_request(tmp_path: Path) -> None:
    """Not configured: refused. Configured: denied by rule, masked, or passed; no record, dead letter or log line has a denied word."""
    with stack(tmp_path) as (settings, kill):
        asyncio.run(try_it(settings, kill))
        [row] = in_force(settings)[1]
        assert (row["compliance"], row["configured"]) == ("standard", True)
        assert row["warnings"][0].startswith("THE GATE KEEPS ARMS OUT: far")
        logs = "".join(file.read_text(errors="replace") for file in (tmp_path / "logs").rglob("*") if file.is_file())
        assert logs
        for word in (CANARY, SECRET, "diagnosed", CARD):
            assert word not in logs
