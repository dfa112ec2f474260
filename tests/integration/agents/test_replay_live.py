"""`ratchet replay` beside a running stack on real Kafka: after kills, while requests flow, reading only."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from replay_scenario import CARDS, Kill, Scenario, stack

from agents.replay import AGENTS
from infra.settings import Settings
from schemas.codec import Encoded
from streams.kafka import KafkaBroker
from streams.recorded import read_file
from streams.replay import Window
from tools.cli.bus import Bus
from tools.cli.replay import record_log, replay_log
from tools.voice import voices


async def replay(folder: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    """The command, in a process of its own, as beside any stack."""
    run = ["env", f"RATCHET_STATE_DIR={folder}", sys.executable, "-m", "tools.ratchet", "replay", "--json", *words]
    process = await asyncio.create_subprocess_exec(*run, stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.decode().splitlines()]


async def flow(played: Scenario) -> None:
    """Requests without end."""
    number = 2000
    while True:
        await played.send(*(played.request(CARDS, number + n) for n in range(5)))
        number += 5
        await asyncio.sleep(0.1)


async def forge(bus: Bus) -> str:
    """A second answer to a decided request, as if the router had written it."""
    topic = "ratchet.decisions"
    record = (await bus.read(await bus.starts([topic])))[0]
    headers = tuple((name, b"another" if name == "ce_id" else value) for name, value in record.headers)
    await bus.publish([(topic, Encoded(record.key or b"", record.value or b"", headers))])
    return dict(record.headers)["ratchet-at"].decode()


async def try_it(settings: Settings, kill: Kill, folder: Path) -> None:
    bootstrap, speak = settings.kafka_bootstrap or "", await voices(settings)
    async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
        played = Scenario(bus, kill, 12, speak)
        await played.brief()
        flowing = asyncio.create_task(flow(played))
        code, rows = await replay(folder)
        flowing.cancel()
        assert (code, rows[-1]["equal"]) == (0, True), rows
        assert [row["agent"] for row in rows[:-1]] == [*AGENTS]
        assert all(row["events"] > 10 and row["equal"] for row in rows[:-1])
        assert sum(row["state_keys"] for row in rows[:-1]) > 20
        log, _ = await record_log(KafkaBroker(bootstrap), folder / "recorded.xz")
        assert not any(gave.kinds for gave in await replay_log(log, AGENTS, Window()))
        assert list(read_file(folder / "recorded.xz").all()) == list(log.all())
        cause = await forge(bus)
        code, rows = await replay(folder, "--agent", "router")
        assert code == 1
        assert [row["difference"]["cause"] for row in rows if "difference" in row] == [cause]


@pytest.mark.timeout(300)
def test_a_running_stack_replays_to_the_same_bytes(tmp_path: Path) -> None:
    """Killed, restarted and still at work it comes out the same, from the broker and from a recording; a forged record is found."""
    with stack(tmp_path) as (settings, kill):
        asyncio.run(try_it(settings, kill, tmp_path))
