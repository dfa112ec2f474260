"""A recording of 10^5 cases, judged again and again: in other processes, from saved states, through Kafka. The same bits."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from recorded_cases import Heard, recorded, state_of
from recorded_play import ROUTE, Play

from agents.judge.fold import Judge
from agents.replay import outputs_of
from schemas.topics import full, order_topic, plans, state_topic
from streams.admin import ensure_groups, ensure_topics
from streams.kafka import KafkaBroker
from streams.order import TICK, Run, decode_order
from streams.port import Outgoing, Reader
from streams.replay import Window
from streams.shapes import Record, Tick
from tools.cli.replay import replay_broker
from tools.stack.kafka import running_kafka

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests/support"
CASES = 100_000
BATCH = 500


@dataclass
class Recording:
    """The file, and what the judge has said that it was recorded with."""

    file: Path
    said: dict[str, Any]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Made once: 10^5 cases on one route."""
    file = tmp_path_factory.mktemp("recorded") / "cases.gz"
    return Recording(file, Play(file, CASES).play())


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{SUPPORT}", **more}  # noqa: TID251  a child of the test


@pytest.mark.timeout(300)
def test_the_recording_holds_what_can_happen(recording: Recording) -> None:
    """Promotions by stages, rejections, a holdback, a rollback by the judge and one by a person: else the rest says little."""
    types = Counter({name.split(".", 1)[1].removesuffix(".v1"): n for name, n in recording.said["types"].items()})
    assert types["model.promoted"] >= 3
    assert types["model.rolled_back"] >= 2
    assert types["promotion.rejected"] >= 5
    assert types["promotion.staged"] >= 6
    assert types["promotion.evaluated"] > 3000


async def _elsewhere(recording: Recording, seed: str, *parts: str) -> dict[str, Any]:
    program = [str(SUPPORT / "recorded_cases.py"), str(recording.file), *parts]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *program, env=_environment(PYTHONHASHSEED=seed), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return json.loads(out)  # type: ignore[no-any-return]


@pytest.mark.timeout(300)
async def test_other_processes_and_saved_states_say_the_same_bits(recording: Recording) -> None:
    """With other hash seeds: one uninterrupted, and three judges each of which has only the state that the former one saved."""
    found = await asyncio.gather(
        _elsewhere(recording, "1"), _elsewhere(recording, "4242", "0.333", "0.667")
    )  # both at once: two cores
    assert found == [recording.said, recording.said]


class Follower:
    """Reads the judge's order topic: what is committed, each record and each tick once, and in its order."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.folded: Counter[str] = Counter()
        self.ticks: list[int] = []

    async def until(self, folded: Counter[str], ticks: int) -> None:
        """Wait until so much is committed."""
        async with asyncio.timeout(60):
            while self.folded != folded or len(self.ticks) != ticks:
                for rows in (await self.reader.poll(timeout_s=0.2, max_records=500)).values():
                    for row in rows:
                        self._take(row)

    def _take(self, row: Record) -> None:
        for run in decode_order(row.value):
            assert isinstance(run, Run)
            if run.topic == TICK:
                self.ticks.append(run.first)
            else:
                assert run.first == self.folded[run.topic], "left out, or taken twice"
                self.folded[run.topic] = run.last + 1


class Relay:
    """Judges that take over from each other: the first dies inside a transaction, the third after a commit, the second in between."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap, self.clock, self.log = bootstrap, folder / "clock", folder / "log"
        self.clock.write_text("0")
        self.log.write_text("")
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, ordinal: str, point: str = "never", nth: int = 1) -> None:
        worker = [str(SUPPORT / "judge_worker.py"), self.bootstrap, ordinal, str(self.clock), str(self.log)]
        self.running[ordinal] = await asyncio.create_subprocess_exec(
            sys.executable, *worker, point, str(nth), env=_environment()
        )

    async def died(self, ordinal: str) -> None:
        """By its own hand, or by ours where another has the lane."""
        process = self.running.pop(ordinal)
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                await process.wait()
        if process.returncode is None:
            process.kill()
        assert await process.wait() == -signal.SIGKILL

    def set_clock(self, at_ms: int) -> None:
        told = self.clock.with_suffix(".new")
        told.write_text(str(at_ms))
        told.replace(self.clock)

    async def between(self, ticks: int) -> None:
        """What happens to the judges after so many ticks."""
        match ticks:
            case 1:
                await self.start("1")
            case 8:
                await self.died("0")
                await self.start("0", "ended", 60)
            case 18:
                await self.died("0")
                await self.start("0")
                self.running["1"].kill()
                await self.died("1")
            case _:
                pass

    async def end(self) -> None:
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest.fixture
def kafka_alone(tmp_path: Path, cache_dir: Path) -> Iterator[str]:
    """A broker of this test's own: offsets begin at 0, as in the recording."""
    with running_kafka(tmp_path / "kafka", cache_dir) as node:
        yield node.bootstrap


async def feed(broker: KafkaBroker, file: Path, follower: Follower, relay: Relay) -> list[int]:
    """Write the recording: a barrier waits until all is committed, a tick is one tick. The ticks."""
    producer = broker.producer()
    await producer.start()
    written, ticks = Counter[str](), list[int]()
    waiting: dict[str, list[Outgoing]] = {}

    async def flush() -> None:
        for topic, rows in waiting.items():
            await producer.send(topic, 0, rows)
            written[topic] += len(rows)
        waiting.clear()

    try:
        for item in recorded(file, ROUTE):
            if isinstance(item, Record):
                rows = waiting.setdefault(item.topic, [])
                rows.append(Outgoing(item.key, item.value, item.headers))
                if len(rows) == BATCH:
                    await flush()
                continue
            await flush()
            if isinstance(item, Tick):
                relay.set_clock(item.at_ms)
                ticks.append(item.at_ms)
            await follower.until(written, len(ticks))
            if isinstance(item, Tick):
                await relay.between(len(ticks))
        await flush()
        await follower.until(written, len(ticks))
    finally:
        await producer.stop()
    return ticks


async def all_of(broker: KafkaBroker, topic: str) -> list[Record]:
    """Every committed record of a topic's one partition."""
    admin, found = broker.admin(), list[Record]()
    await admin.start()
    end = (await admin.ends([(topic, 0)]))[topic, 0]
    await admin.stop()
    reader = broker.reader({(topic, 0): 0})
    await reader.start()
    while await reader.position((topic, 0)) < end:
        for rows in (await reader.poll(timeout_s=0.2, max_records=5000)).values():
            found += rows
    await reader.stop()
    return found


@pytest.mark.timeout(600)
async def test_through_kafka_with_judges_that_take_over_from_each_other(
    recording: Recording, kafka_alone: str, tmp_path: Path
) -> None:
    """The same case events on a broker, two consumers, three deaths: every output and the state bit for bit, none lost, none doubled."""
    broker, inputs = KafkaBroker(kafka_alone), tuple(full(topic) for topic in Judge.inputs)
    names = {*inputs, *outputs_of("judge"), state_topic("judge"), order_topic("judge")}
    await ensure_topics(kafka_alone, 1, 1, wanted=[plan for plan in plans() if plan.full in names])
    await ensure_groups(kafka_alone, {"ratchet.judge": inputs})
    relay, reader = Relay(kafka_alone, tmp_path), broker.reader({(order_topic("judge"), 0): 0})
    await reader.start()
    follower = Follower(reader)
    try:
        await relay.start("0", "acknowledged", 60)
        ticks = await feed(broker, recording.file, follower, relay)
    finally:
        await relay.end()
        await reader.stop()
    assert follower.ticks == ticks
    assert len(list(groupby(relay.log.read_text().split()))) >= 5, (
        "0, 1, 0, 1, 0; more where a session ended under load"
    )
    heard = Heard()
    for topic in outputs_of("judge"):
        for row in await all_of(broker, topic):
            heard.take(row.topic, row.key, row.value, row.headers)
    assert heard.said(state_of(await all_of(broker, state_topic("judge")))) == recording.said
    (gave,) = await replay_broker(broker, ("judge",), Window())
    assert not gave.kinds, gave.found
    assert gave.events > CASES
