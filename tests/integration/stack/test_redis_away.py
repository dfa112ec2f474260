"""Redis stops answering while requests flow: what a route promises beside its answers holds, by this router's own share."""

import asyncio
import json
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from replay_scenario import Kill, Scenario, stack

from infra.settings import Settings
from schemas.events import CommandApply
from schemas.routes import Arm, Route, TrainingSettings
from schemas.routing import BudgetSettings, QuotaSettings, RoutingSettings
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.voice import voices

PRICE, TOKENS, ANSWERS = 1000, 4, 8
PRICED = Route(
    route="priced.outside", compliance="off",
    release="immediate",
    arms=(
        Arm(arm="own", base="scripted"),
        Arm(
            arm="outside", provider="stand_in", url="stand-in:?answers=one two three four", nano_usd_out=PRICE,
            max_tokens=TOKENS, outside=True, clearance="secret",
        ),
    ),
    champion="own",
    window_s=20,
    deadline_s=15,
    training=TrainingSettings(enabled=False),
    routing=RoutingSettings(
        arm="outside",
        arms=("outside",),
        budget=BudgetSettings(nano_usd=PRICE, period_s=86_400, requests=TOKENS * ANSWERS),
        quota=QuotaSettings(requests_per_s=0.1, burst=30),
    ),
)  # fmt: skip


@contextmanager
def still(pid: int) -> Generator[None]:
    """The process stands still, its connections open: a server that hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Told:
    """Decisions and outcomes of the route, by request."""

    def __init__(self) -> None:
        self.decisions: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, list[str]] = {}

    async def watch(self, bus: Bus) -> None:
        topics = ["ratchet.decisions", "ratchet.answers"]
        async for record in bus.follow(await bus.starts(topics)):
            row = None if record is None else as_row(record)
            if row is None or (row["data"] or {}).get("route") != PRICED.route:
                continue
            data = row["data"]
            if row["type"] == "decision.routed":
                self.decisions[data["request_id"]] = data
            else:
                self.ended.setdefault(data["request_id"], []).append(data.get("kind") or row["type"])

    def of(self, *numbers: int) -> list[dict[str, Any]]:
        names = [f"{PRICED.route}-{number:04d}" for number in numbers]
        return [self.decisions[name] for name in names if name in self.decisions]


async def ask(played: Scenario, told: Told, numbers: range) -> None:
    rows = [played.request(PRICED, number) for number in numbers]
    for row in rows:  # one after the other: each finds what the former spent
        await played.send(row)
        await played.until(lambda name=row.request_id: name in told.ended, f"an outcome of {row.request_id}")


async def try_it(settings: Settings, kill: Kill, redis: int) -> None:
    bootstrap, speak = settings.kafka_bootstrap or "", await voices(settings)
    async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        played, told = Scenario(bus, kill, 0, speak), Told()
        watching = [asyncio.create_task(one) for one in (played.watch(), told.watch(bus))]
        await played.command(CommandApply, PRICED, settings=PRICED)
        wanted = {"priced.outside/own", "priced.outside/outside"}
        await played.until(lambda: wanted <= played.live, "live arms")
        await asyncio.sleep(1.0)

        await ask(played, told, range(2))
        before = told.of(0, 1)
        assert [row["arm"] for row in before] == ["outside"] * 2
        assert all(row["store_seen"] and not row["routing"]["observed"]["away"] for row in before)

        with still(redis):
            await ask(played, told, range(10, 50))
        during = told.of(*range(10, 50))
        assert not any(row["store_seen"] for row in during)
        assert all(row["routing"]["observed"]["away"] for row in during)
        outside = [row for row in during if row["arm"] == "outside"]
        assert 0 < len(outside) <= ANSWERS - 2, "no more than the budget had left"
        after = during[during.index(outside[-1]) + 1 :]
        assert after
        assert all("budget" in masks(row, "outside") for row in after)
        refused = [name for name, kinds in told.ended.items() if kinds == ["quota"]]
        assert len(during) + len(refused) == 40, "each is decided or refused"
        assert 28 <= len(during) <= 35, "a burst of 30 and what the minute gives"
        assert all(len(kinds) == 1 for kinds in told.ended.values())

        back = 60
        while True:  # found again by itself
            await ask(played, told, range(back, back + 1))
            found = told.of(back)
            if found and found[0]["store_seen"] and not found[0]["routing"]["observed"]["away"]:
                break
            back += 1
            assert back < 80, told.ended
            await asyncio.sleep(1.0)
        spent = found[0]["routing"]["observed"]["spent_nano_usd"]
        assert spent >= PRICE * TOKENS * len(outside), "what was spent meanwhile is in the ledger"
        assert "budget" in masks(found[0], "outside")
        for task in watching:
            task.cancel()


def masks(decision: dict[str, Any], arm: str) -> list[str]:
    return next(row["masks"] for row in decision["arms"] if row["arm"] == arm)


@pytest.mark.timeout(240)
def test_redis_that_hangs_costs_no_answer_no_budget_and_no_quota(tmp_path: Path) -> None:
    """Requests go on; the outside arm spends what was left and is masked; quota is kept locally; what was spent is handed over."""
    with stack(tmp_path) as (settings, kill):
        services = json.loads((tmp_path / "stack.json").read_text())["services"]
        asyncio.run(try_it(settings, kill, services["redis"]["running"]["pid"]))
