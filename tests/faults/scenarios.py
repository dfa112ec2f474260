"""What can be asked for: the scenarios by name, their parts, how each begins, and which of them the short form takes."""

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import chaos, outages, restores, zombies
from tests.faults.points import kafka_table, memory_table
from tests.faults.strike import ACTIONS
from tests.faults.table import Row
from tests.faults.threads import whole
from tools.stack.kafka import running_kafka

KILLS = 200
SHORT_KILLS = 6


@dataclass
class Run:
    """What the scenarios share."""

    folder: Path
    cache_dir: Path
    kills: int = KILLS
    short: bool = False
    shaken: bool = False  # that scenario runs too, and gets a fifth of the kills
    rows: list[Row] = field(default_factory=list[Row])
    _bootstrap: str = ""
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def kills_in_rebalances(self) -> int:
        """Of the kills those during rebalances."""
        return self.kills // 5

    @property
    def other_kills(self) -> int:
        """The other kills: all where there are none during rebalances."""
        if self.short:
            return SHORT_KILLS
        return self.kills - self.kills_in_rebalances if self.shaken else self.kills

    async def kafka(self) -> str:
        """The broker that no scenario hurts; started at first use."""
        if not self._bootstrap:
            context = running_kafka(self.folder / "kafka", self.cache_dir)
            self._bootstrap = (await whole(self._stack.enter_context, context)).bootstrap
        return self._bootstrap

    def close(self) -> None:
        """End that broker: it is not to run beside those that are hurt."""
        self._stack.close()
        self._bootstrap = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`begin` gets the parts that are wanted, of `parts`; `alone`: it has brokers of its own; `check` says what it lacks."""

    about: str
    begin: Callable[[Run, Sequence[str]], Awaitable[list[Row]]]
    parts: tuple[str, ...] = ()
    short: tuple[str, ...] | None = None  # the parts that the short form takes, None: not in it
    alone: bool = False
    check: Callable[[], None] | None = None  # raises Unavailable before anything has run


async def _memory(run: Run, parts: Sequence[str]) -> list[Row]:
    if run.short:
        return await memory_table(("acknowledged", "ended"), (1,), parts)
    return await memory_table(actions=parts)


async def _points(run: Run, parts: Sequence[str]) -> list[Row]:
    bootstrap = await run.kafka()
    if run.short:
        return await kafka_table(bootstrap, run.folder, ("acknowledged",), (1,), parts)
    return await kafka_table(bootstrap, run.folder, actions=parts)


async def _zombies(run: Run, parts: Sequence[str]) -> list[Row]:
    return await zombies.zombies(await run.kafka(), run.folder, parts)


async def _restore(run: Run, parts: Sequence[str]) -> list[Row]:
    return await restores.interrupted(await run.kafka(), run.folder, parts)


async def _clock(run: Run, parts: Sequence[str]) -> list[Row]:
    return await chaos.jumps(await run.kafka(), run.folder)


async def _kills(run: Run, parts: Sequence[str]) -> list[Row]:
    return await chaos.kills(await run.kafka(), run.folder, run.other_kills, shaken=False)


async def _shaken(run: Run, parts: Sequence[str]) -> list[Row]:
    return await chaos.kills(await run.kafka(), run.folder, run.kills_in_rebalances, shaken=True)


async def _broker(run: Run, parts: Sequence[str]) -> list[Row]:
    return await outages.single(run.folder, run.cache_dir, parts)


async def _proxy(run: Run, parts: Sequence[str]) -> list[Row]:
    return await outages.swallowed(run.folder, run.cache_dir, parts)


async def _disk(run: Run, parts: Sequence[str]) -> list[Row]:
    return await outages.full_disk(run.folder, run.cache_dir)


async def _cluster(run: Run, parts: Sequence[str]) -> list[Row]:
    return await outages.three(run.folder, run.cache_dir, parts)


SCENARIOS: Mapping[str, Scenario] = {
    "memory": Scenario(
        "every fault point, first and fourth pass, on the broker in memory", _memory, ACTIONS, ("exit", "stop")
    ),
    "points": Scenario("the same on Kafka, agents as processes", _points, ACTIONS, ("exit", "stop")),
    "zombies": Scenario("an owner that no longer is one goes on", _zombies, zombies.KINDS),
    "restore": Scenario("stopped and killed while state is restored", _restore, restores.KINDS),
    "clock": Scenario("the agents' clock jumps", _clock),
    "kills": Scenario("SIGKILL at random, three workers each, under load", _kills, short=()),
    "shaken": Scenario("the same while a fourth joins and leaves", _shaken),
    "proxy": Scenario("an EndTxn is lost on the way", _proxy, outages.LOST, ("answer",), alone=True),
    "disk": Scenario("the broker's disk is full, then has room again", _disk, alone=True, check=outages.check_disk),
    "broker": Scenario("the broker ends, dies, is away, stalls", _broker, outages.OUTAGES, alone=True),
    "cluster": Scenario("one of three brokers", _cluster, outages.CLUSTER, alone=True),
}


def chosen(only: Sequence[str] | None, *, short: bool = False) -> list[tuple[str, tuple[str, ...]]]:
    """Scenarios and their parts, in our order. ValueError names what is unknown and what there is."""
    if only is None:
        rows = [(name, scenario.short if short else scenario.parts) for name, scenario in SCENARIOS.items()]
        return [(name, parts) for name, parts in rows if parts is not None]
    every = [*SCENARIOS, *(f"{name}/{part}" for name, scenario in SCENARIOS.items() for part in scenario.parts)]
    unknown = [word for word in only if word not in every]
    if unknown:
        raise ValueError(f"--only {', '.join(map(repr, unknown))}: accepted are {', '.join(every)}")
    found: list[tuple[str, tuple[str, ...]]] = []
    for name, scenario in SCENARIOS.items():
        parts = tuple(part for part in scenario.parts if name in only or f"{name}/{part}" in only)
        if parts or name in only:
            found.append((name, parts))
    return found


async def run_scenarios(wanted: Sequence[tuple[str, tuple[str, ...]]], run: Run, say: Callable[[str], None]) -> None:
    """One after the other; `run.rows` grows. Raises Unavailable before the first where one cannot run here."""
    run.shaken = any(name == "shaken" for name, _ in wanted)
    for name, _ in wanted:
        if check := SCENARIOS[name].check:
            await whole(check)
    try:
        for name, parts in wanted:
            scenario = SCENARIOS[name]
            if scenario.alone:
                await whole(run.close)
            began = time.monotonic()
            found = await scenario.begin(run, parts)
            run.rows += found
            say(f"{name}: {len(found)} rows, {time.monotonic() - began:.0f} s")
    finally:
        await whole(run.close)
