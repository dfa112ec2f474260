"""`ratchet bench loop`: requests per second through every agent, who spends the time, latency at half of that, and what the
event path leaves of vLLM's own throughput.

Each part has a stack of its own in a temporary folder, with the processes that `ratchet up` starts; never two at once.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from agents.evidence.coverage import frontiers
from agents.evidence.snapshot import Snapshot
from infra import banking77
from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.settings import Settings, load, process_environment
from schemas.errors import Refused, Unavailable
from schemas.routes import Arm, JudgeSettings, Route, TrainingSettings
from streams.port import TP
from tools.bench import Say, figure, machine
from tools.bench.driver import STUCK_S, Driver
from tools.stack import AGENT_GROUPS, down, up
from tools.stack.processes import tagged
from tools.stack.stack import Record
from tools.stack.supervise import read_state
from tools.voice import voices

LEAST_RATE = 200.0
LEAST_RATIO = 0.70
OUTSTANDING = 1500
PROMPTS = 512
LONG, SHORT = 64, 4  # tokens of an answer: what a chat gives, and what a classifier does
ROUTE = "bench"
# `jobs` wants a Ray cluster even when nothing is trained; it does nothing for a request.
SCRIPTED_GROUPS = tuple(tuple(agent for agent in group if agent != "jobs") for group in AGENT_GROUPS)
ALONE = tuple((agent,) for group in SCRIPTED_GROUPS for agent in group)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench loop", add_help=False, exit_on_error=False)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--no-vllm", action="store_true")
    usage = "ratchet bench loop [--requests N] [--seconds S] [--no-vllm]"
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {usage}", kind="usage") from fault
    if left or chosen.requests < 1 or chosen.seconds <= 0:
        raise Refused(f"not understood: {' '.join(left) or options}; {usage}, both numbers above 0", kind="usage")
    return chosen


def route(base: str, template: str = "{text}", max_tokens: int = LONG) -> Route:
    """An immediate route with one arm, graded by reference, in which nothing is ever trained."""
    return Route(
        route=ROUTE,
        compliance="off",
        release="immediate",
        grader="reference",
        arms=(Arm(arm="base", base=base, max_tokens=max_tokens, template=template),),
        champion="base",
        window_s=3600,
        deadline_s=300,
        review_share=0,
        judge=JudgeSettings(),
        training=TrainingSettings(min_rows=1_000_000, min_new_rows=1_000_000),
    )


class Bench:
    """One running stack of the benchmark."""

    def __init__(self, settings: Settings) -> None:
        self.state = settings.state_dir

    @property
    def record(self) -> Record:
        return Record.model_validate_json((self.state / "stack.json").read_bytes())

    @asynccontextmanager
    async def driver(self, wanted: Route, *, verdicts: bool = True) -> AsyncGenerator[Driver]:
        held, speak = self.record, await voices(load({}, self.state / "env"))
        async with Driver(held.services["kafka"].address, held.partitions, wanted, speak, verdicts=verdicts) as driver:
            yield driver

    def seconds(self) -> dict[str, float]:
        """CPU seconds so far by process: agents', Kafka, Redis, engine and driver."""
        held, found = self.record, dict[str, float]()
        state = read_state(self.state / "agents-state.json")
        for child in state.children.values() if state is not None else ():
            if child.pid:
                found[child.name] = _cpu(psutil.Process(child.pid))
        counted = {child.pid for child in state.children.values()} if state is not None else set[int]()
        for name in ("kafka", "redis"):
            running = held.services[name].running
            if running is not None:
                counted.add(running.pid)
                found[name] = _cpu(psutil.Process(running.pid))
        found["driver"] = _cpu(psutil.Process())
        engine = sum(_cpu(process) for process in tagged(held.tag) if process.pid not in counted)
        return found | {"ray, engine, supervisor": engine}

    async def recorded(self, wanted: Mapping[TP, int]) -> None:
        """Wait until the evidence log covers these offsets, by its own signed entries."""
        clock = SystemClock()
        until = clock.monotonic() + STUCK_S
        while True:
            found = await asyncio.to_thread(self._frontiers)
            if all(found.get(tp, 0) >= after for tp, after in wanted.items()):
                return
            if clock.monotonic() > until:
                raise Unavailable(f"the evidence log is more than {STUCK_S:.0f} s behind the topics")
            await clock.sleep(0.2)

    def _frontiers(self) -> dict[TP, int]:
        found = frontiers(Snapshot.open(self.state / "evidence").newest_first())
        return {source: frontier.next for source, frontier in found.items()}

    def resident(self) -> int:
        """Resident bytes of the whole stack; shared pages count once per process."""
        return sum(process.memory_info().rss for process in tagged(self.record.tag))


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def spent(before: Mapping[str, float], after: Mapping[str, float], requests: int) -> dict[str, dict[str, float]]:
    """CPU between two looks: seconds, share of all, milliseconds per request; the greatest first."""
    used = {who: max(0.0, value - before.get(who, 0.0)) for who, value in after.items()}
    total = sum(used.values()) or 1.0
    return {
        who: {
            "seconds": round(value, 3),
            "share": round(value / total, 4),
            "ms_per_request": round(1000 * value / requests, 4),
        }
        for who, value in sorted(used.items(), key=lambda line: -line[1])
    }


@contextmanager
def running(engine: str, say: Say, folder: Path, *, agents: Sequence[Sequence[str]], ray: bool) -> Generator[Bench]:
    """A stack in `folder`, stopped whatever happens."""
    settings = Settings.model_validate({"state_dir": folder, "engine": engine, "log_level": "warning"}).resolved()
    try:
        up(settings=settings, say=say, agents=agents, ray=ray)
        yield Bench(settings)
    finally:
        down(settings=settings)


def _texts(count: int) -> list[str]:
    messages = banking77.load()
    return [messages[n % len(messages)].text for n in range(count)]


async def _throughput(bench: Bench, requests: int, seconds: float, say: Say) -> dict[str, Any]:
    texts = _texts(max(requests, 500))
    async with bench.driver(route("scripted")) as driver:
        await driver.apply(60.0)
        say("warming up")
        await driver.flood(texts[:500], "warm", outstanding=250)
        say(f"throughput: {requests} requests, at most {OUTSTANDING} without a closed case")
        before = bench.seconds()
        started, ended = await driver.flood(texts[:requests], "flood", outstanding=OUTSTANDING)
        rate = 1000 * requests / max(1, ended - started)
        await driver.caught_up()
        folds = driver.now_ms()
        await bench.recorded(driver.seen.next)
        last, after = driver.now_ms(), bench.seconds()
        through_all = 1000 * requests / max(1, last - started)
        load = rate / 2
        say(f"{rate:.0f} requests/s; latency at {load:.0f} requests/s for {seconds:.0f} s")
        times = await _open_loop(driver, texts, load, seconds)
        kinds = dict(driver.seen.kinds)
    return {
        "requests": requests,
        "answers": kinds,
        "requests_per_s": round(rate, 1),
        "all_agents_requests_per_s": round(through_all, 1),
        "seconds": {
            "cases": (ended - started) / 1000,
            "folds": (folds - started) / 1000,
            "evidence": (last - started) / 1000,
        },
        "processes": spent(before, after, requests),
        "latency": {"requests_per_s": round(load, 1), "requests": len(times), **percentiles(times)},
        "resident_gib": round(bench.resident() / 2**30, 2),
    }


async def _shares(bench: Bench, requests: int, say: Say) -> dict[str, Any]:
    """CPU of each agent, in a process of its own: work time cannot tell it, since a waiting agent's time counts there."""
    texts = _texts(max(requests, 500))
    async with bench.driver(route("scripted")) as driver:
        await driver.apply(60.0)
        await driver.flood(texts[:500], "warm", outstanding=250)
        say(f"shares: the same {requests} requests, one process per agent")
        before = bench.seconds()
        await driver.flood(texts[:requests], "flood", outstanding=OUTSTANDING)
        await driver.caught_up()
        await bench.recorded(driver.seen.next)
        return {"cpu": spent(before, bench.seconds(), requests)}


async def _open_loop(driver: Driver, texts: Sequence[str], rate: float, seconds: float) -> list[float]:
    """Requests at their times whatever comes back; milliseconds from the time each was due to its answer's record."""
    clock, count = SystemClock(), max(1, int(rate * seconds))
    started = driver.now_ms() + 50
    due = {f"paced-{n:06d}": started + round(1000 * n / rate) for n in range(count)}
    waiting, at = list(due.items()), 0
    while at < count:
        now, batch = driver.now_ms(), list[tuple[str, str, int]]()
        while at < count and waiting[at][1] <= now:
            batch.append((waiting[at][0], texts[at % len(texts)], waiting[at][1]))
            at += 1
        if batch:
            await driver.ask(batch)
        await clock.sleep(0.005)
    await driver.until(set(due))
    return [driver.seen.answered[request] - when for request, when in due.items()]


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the greatest of some milliseconds."""
    if len(times) < 2:
        return dict.fromkeys(("p50_ms", "p99_ms", "max_ms"), times[0] if times else 0.0)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49], 1), "p99_ms": round(cuts[98], 1), "max_ms": round(max(times), 1)}


def _model(folder: Path) -> Path:
    """A model with the shape of the demonstration's champion and random weights: its speed is the same, and it never ends an
    answer by itself, so that the number of tokens is the workload's."""
    from infra.training import BaseSettings, Example, train_base

    rows = [
        Example(banking77.TEMPLATE.replace("{text}", message.text), message.intent)
        for message in banking77.load()[:256]
    ]
    train_base(rows, folder / "model", BaseSettings(epochs=1, threads=1, learning_rate=0.0))
    return folder / "model"


async def _event_path(bench: Bench, base: str, texts: Sequence[str], max_tokens: int) -> dict[str, Any]:
    async with bench.driver(route(base, banking77.TEMPLATE, max_tokens), verdicts=False) as driver:
        await driver.apply(300.0)
        name = f"{max_tokens}-tokens"
        warm = [(f"warm-{name}-{n:06d}", f"warm {n}: {text}", driver.now_ms()) for n, text in enumerate(texts[:64])]
        await driver.ask(warm)
        await driver.until({request for request, _, _ in warm}, answered=True)
        before, started = bench.seconds(), driver.now_ms()
        asked = {f"{name}-{n:06d}" for n in range(len(texts))}
        await driver.ask((f"{name}-{n:06d}", text, started) for n, text in enumerate(texts))
        await driver.until(asked, answered=True)
        ended = max(driver.seen.answered[request] for request in asked)
        tokens = sum(driver.seen.tokens[request] for request in asked)
        seconds = (ended - started) / 1000
        return {
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": round(tokens / seconds, 1),
            "cpu": spent(before, bench.seconds(), len(texts)),
        }


def _offline(model: Path, texts: Sequence[Sequence[str]], folder: Path, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """vLLM alone, in a process of its own with the engine's own environment; a result per length of answer."""
    from infra.engine_vllm import VllmSettings, environment

    prompts = folder / "prompts.json"
    batches = [[banking77.TEMPLATE.replace("{text}", text) for text in batch] for batch in texts]
    prompts.write_text(json.dumps(batches), encoding="utf-8")
    around = process_environment() | environment(VllmSettings(), psutil.cpu_count() or 1)
    argv = [sys.executable, "-m", "infra.engine_offline", str(model), str(prompts), *(str(n) for n in lengths)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=around, timeout=600)
    if done.returncode != 0:
        raise Unavailable(f"vLLM did not run offline: {done.stderr[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _ratio(say: Say, folder: Path) -> dict[str, Any]:
    lengths = (LONG, SHORT)
    every = _texts(len(lengths) * PROMPTS)
    texts = [every[n * PROMPTS : (n + 1) * PROMPTS] for n in range(len(lengths))]  # none twice: prefixes are cached
    say("a model is made")
    model = _model(folder)
    say(f"vLLM alone: {PROMPTS} prompts, {LONG} and {SHORT} tokens each")
    alone = dict(zip(lengths, _offline(model, texts, folder, lengths), strict=True))
    found: dict[str, Any] = {"prompts": PROMPTS}
    with running("vllm", say, folder / "vllm", agents=AGENT_GROUPS, ray=True) as bench:
        base = DirectoryStore(bench.state / "artifacts").put_tree(model)
        for length, batch in zip(lengths, texts, strict=True):
            say(f"vLLM behind the event path: the same prompts, {length} tokens each")
            path = asyncio.run(_event_path(bench, base, batch, length))
            ratio = round(path["tokens_per_s"] / alone[length]["tokens_per_s"], 3)
            found[f"{length}_tokens"] = {"offline": alone[length], "event_path": path, "ratio": ratio}
    return found


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The whole benchmark. Raises `Refused` for options that are not understood, `Unavailable` when a part does not come up."""
    chosen = options_of(options)
    notes = [
        "the scripted engine serves throughput and latency; processes as `ratchet up` starts them, without `jobs` and Ray",
        "the driver and the whole stack share the machine",
        "`processes`: CPU in the run that is timed; `cpu`: CPU of each agent, from a second run with one process per agent",
        f"engine_path_ratio: answers of {LONG} tokens; short answers of {SHORT}: there the cost of a request is nearly all",
        "requests_per_s ends at the last closed case; all_agents_requests_per_s when every group and the evidence log have it too",
    ]
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as place:
        folder = Path(place)
        with running("scripted", say, folder / "scripted", agents=SCRIPTED_GROUPS, ray=False) as bench:
            found = asyncio.run(_throughput(bench, chosen.requests, chosen.seconds, say))
        with running("scripted", say, folder / "alone", agents=ALONE, ray=False) as bench:
            found |= asyncio.run(_shares(bench, chosen.requests, say))
        path = None if chosen.no_vllm else _ratio(say, folder)
    summary = {
        "requests_per_s": figure(found["requests_per_s"], at_least=LEAST_RATE),
        "all_agents_requests_per_s": figure(found["all_agents_requests_per_s"], at_least=LEAST_RATE),
        "p50_ms": figure(found["latency"]["p50_ms"]),
        "p99_ms": figure(found["latency"]["p99_ms"]),
    }
    if path is not None:
        summary["engine_path_ratio"] = figure(path[f"{LONG}_tokens"]["ratio"], at_least=LEAST_RATIO)
        summary["engine_path_ratio_short_answers"] = figure(path[f"{SHORT}_tokens"]["ratio"])
    return {**found, "engine_path": path, "load_after": machine()["load"], "notes": notes, "summary": summary}
