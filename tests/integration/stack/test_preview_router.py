"""`ratchet preview ROUTE --router FILE` beside a running stack: from learnt decisions to a trial that decides for its share."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from replay_scenario import MIXED, NOW, Kill, Scenario, stack

from infra.settings import Settings
from schemas.events import CommandApply, VerdictGiven
from schemas.routes import Route
from schemas.routing import RoutingSettings
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.routes import table
from tools.voice import voices

ROUTED = MIXED.model_copy(
    update={
        "sticky": False,
        "routing": MIXED.routing.model_copy(
            update={
                "explore": 0.2,
                "floor": 0.05,
                "budget": MIXED.routing.budget.model_copy(update={"nano_usd": 20_000}),
            }
        ),
    }
)


class Told:
    """Decisions of the route."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    async def watch(self, bus: Bus) -> None:
        topics = ["ratchet.decisions"]
        async for record in bus.follow(await bus.starts(topics)):
            row = None if record is None else as_row(record)
            if row is not None and row["type"] == "decision.routed" and row["data"]["route"] == MIXED.route:
                self.rows[row["data"]["request_id"]] = row["data"]


async def preview(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The command, in a process of its own."""
    argv = ["-m", "tools.ratchet", "preview", MIXED.route, "--json", *words]
    process = await asyncio.create_subprocess_exec(
        "env", f"RATCHET_STATE_DIR={folder}", sys.executable, *argv, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out.decode().splitlines()[-1])


async def asked(played: Scenario, told: Told, numbers: Sequence[int]) -> None:
    """Requests, and the verdict on each: of ten the small arm answers three rightly, the big one the others."""
    rows = [played.request(MIXED, number) for number in numbers]
    await played.send(*rows)
    names = [row.request_id for row in rows]
    await played.until(lambda: {*names} <= played.answered & told.rows.keys() & played.texts.keys(), "answers")
    verdicts: list[VerdictGiven] = []
    for number, name in zip(numbers, names, strict=True):
        served = played.texts[name] if told.rows[name]["arm"] == "small" else "another answer"
        right = served if number % 10 < 3 else played.challenger.get(name, "another answer")
        verdicts.append(
            VerdictGiven(
                route=MIXED.route, request_id=name, at_ms=NOW(), by=played.voices["verdicts"].name, kind="reference",
                corrected=right,
            )
        )  # fmt: skip
    await played.send(*verdicts)


class Answering(Scenario):
    """Knows what was released."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.texts: dict[str, str] = {}

    async def hear(self) -> None:
        topics = ["ratchet.answers"]
        async for record in self.bus.follow(await self.bus.starts(topics)):
            row = None if record is None else as_row(record)
            if row is not None and row["type"] == "answer.released":
                self.texts[row["data"]["request_id"]] = row["data"]["text"]


def file_of(folder: Path, name: str, routing: RoutingSettings) -> str:
    file = folder / f"{name}.toml"
    file.write_text(table("routing", routing))
    return str(file)


async def try_it(settings: Settings, kill: Kill, folder: Path) -> None:
    bootstrap, speak = settings.kafka_bootstrap or "", await voices(settings)
    async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        played, told = Answering(bus, kill, 0, speak), Told()
        watching = [asyncio.create_task(one) for one in (played.watch(), played.hear(), told.watch(bus))]
        begun = NOW()
        await played.command(CommandApply, ROUTED, settings=ROUTED)
        await played.until(lambda: {"mixed.learnt/small", "mixed.learnt/big"} <= played.live, "live arms")
        await asyncio.sleep(1.0)
        await asked(played, told, range(40))
        new = ROUTED.routing.model_copy(update={"explore": 0.1})
        likely, never = (
            file_of(folder, "likely", new),
            file_of(folder, "never", new.model_copy(update={"arms": ("other",)})),
        )

        code, said = await preview(folder, "--router", never)
        assert code == 2, said
        assert "other" in said["error"]
        await played.until(lambda: played.warm, "a router that is warm")
        warm = NOW()
        code, said = await preview(folder, "--router", likely, "--since", str(warm))
        assert (code, said["cannot_tell"]) == (1, True), said

        for first in range(100, 500, 100):
            await asked(played, told, range(first, first + 100))
        await played.until(lambda: len(played.closed) >= 440, "closed cases")
        code, said = await preview(folder, "--router", likely, "--since", str(warm))
        assert code == 0, said
        assert said["verdict"]["rows"] >= 300, said
        assert said["left_out"] == {} or sum(said["left_out"].values()) < 100, said
        frugal = file_of(folder, "frugal", ROUTED.routing.model_copy(update={"strategy": "fixed"}))
        code, worse = await preview(folder, "--router", frugal, "--since", str(begun))
        assert (code, worse["may_roll_out"]) == (1, False), worse
        assert worse["verdict"]["dr"]["difference"]["value"] < said["verdict"]["dr"]["difference"]["value"], worse

        tried = Route.model_validate(ROUTED.model_dump() | {"trial": new.model_dump(), "trial_share": 0.5})
        await played.command(CommandApply, tried, settings=tried)
        await asyncio.sleep(1.0)
        await asked(played, told, range(600, 660))
        trials = [told.rows[f"{MIXED.route}-{n:04d}"]["routing"]["trial"] for n in range(600, 660)]
        assert 12 <= sum(trials) <= 48
        for task in watching:
            task.cancel()


@pytest.mark.timeout(300)
def test_another_policy_is_judged_from_the_log_then_tried(tmp_path: Path) -> None:
    """Too short a log cannot tell, a longer one lets the better policy through, a worse one is held back, a trial decides for its share."""
    with stack(tmp_path) as (settings, kill):
        asyncio.run(try_it(settings, kill, tmp_path))
