"""`ratchet bench gateway`: how long a decision takes and how many a process makes, on a real Kafka and a real Redis with everything on; and
what the log of our own decisions can say of other policies.

The router is the product's own, in this process; requests come from another one, each when it is due. Servers are the benchmark's own,
in a temporary folder, stopped whatever happens.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.clock import SystemClock
from infra.settings import load
from infra.store_redis import RedisStore
from schemas.errors import Refused
from streams.runner import collect_rarely
from tools.bench import Say, figure, gateway_ope, machine
from tools.bench import gateway_parts as parts
from tools.bench.gateway_run import Gateway, Samples, on_kafka
from tools.bench.gateway_world import World, texts_of, world
from tools.bench.streams_base import Field
from tools.stack.kafka import VERSION, running_kafka
from tools.stack.redis import running_redis

MOST_P50_MS, MOST_P99_MS = 1.0, 5.0
HELD = 0.95  # of the rate: less is a backlog that grew
SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
USAGE = "ratchet bench gateway [--rate N] [--seconds S] [--partitions P] [--replays N] [--skip-ope] [--data FILE]"
NOTES = (
    "decide_ms: from the decoded request to the encoded records that the producer is given, Redis between; durable_ms: from when the "
    "request was due to its decision's commit",
    "open loop: another process sends each request when it is due, whatever becomes of the others; the first 2 s are not counted",
    "full: strategy balanced, 3 arms, built basis with kernel, predictions, 256 draws, quota, exact cache, ledger, sessions, metrics",
    "of full a new version of the learner's policy comes every 2 s",
    "fixed: the same router where nothing is weighed, its store in memory",
    "parts: microseconds in one process without servers, the best of three rounds; a part of a part is named after it",
    "the broker, Redis and the sender share the machine",
)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench gateway", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--replays", type=int, default=gateway_ope.REPLAYS)
    parser.add_argument("--skip-ope", action="store_true")
    parser.add_argument("--data", type=Path)
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    wrong = [
        f"--{name} {value:g}, accepted: {least:g} to {most:g}"
        for name, value, least, most in (
            ("rate", chosen.rate, 1, 100_000),
            ("seconds", chosen.seconds, 1, 3600),
            ("partitions", chosen.partitions, 1, 64),
            ("replays", chosen.replays, 1, 1000),
        )
        if not least <= value <= most
    ]
    if left or wrong:
        raise Refused(f"not understood: {'; '.join(wrong) or ' '.join(left)}; {USAGE}", kind="usage")
    return chosen


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p999 by nearest rank, and the greatest; 0 where nothing was measured."""
    ranked = sorted(times)
    found = {name: _at(ranked, share) for name, share in SHARES.items()}
    return {name: round(value, 3) for name, value in (found | {"max": ranked[-1] if ranked else 0.0}).items()}


def _at(ranked: Sequence[float], share: float) -> float:
    """The least value that at least this share of all do not exceed."""
    return ranked[min(len(ranked) - 1, max(0, -int(-share * len(ranked) // 1) - 1))] if ranked else 0.0


def told(samples: Samples, rate: float) -> dict[str, Any]:
    """An open loop's figures."""
    return {
        "rate_per_s": rate,
        "achieved_per_s": round(samples.achieved_per_s, 1),
        "decisions": len(samples.durable_ms),
        "decide_ms": percentiles(samples.decide_ms),
        "durable_ms": percentiles(samples.durable_ms),
        "said": dict(samples.said),
    }


async def _measure(bootstrap: str, redis_url: str, made: World, chosen: argparse.Namespace, say: Say) -> dict[str, Any]:
    store = RedisStore(redis_url, timeout_s=load().redis_timeout_ms / 1000)
    found: dict[str, Any] = {}
    try:
        say("parts of a decision")
        found["parts"] = await parts.parts(made)
        count = max(500, min(5000, int(chosen.rate * chosen.seconds / 6)))
        found["in_process"] = await parts.in_process(made, store, count)
        async with Field(bootstrap) as on:
            ran = await on_kafka(
                Gateway(on, made, chosen.partitions, chosen.data), store, chosen.rate, chosen.seconds, say
            )
    finally:
        await store.close()
    found |= {name: told(ran[name], chosen.rate) for name in ("full", "fixed")}
    found["max_decisions_per_s"] = [*found["in_process"], *ran["through_kafka"]]
    del found["in_process"]
    return found


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options that are not understood, `Unavailable` when a server does not come up."""
    chosen, cache = options_of(options), load().resolved().cache_dir
    found: dict[str, Any] = {"kafka": VERSION, "options": {**vars(chosen), "data": str(chosen.data or "")}}
    say("texts, basis, policies")
    made = world(texts_of(chosen.data), SystemClock().now_ms())
    found["world"] = {
        "texts": len(made.texts),
        "characters": round(sum(map(len, made.texts)) / len(made.texts)),
        "features": made.basis.size,
    }
    collect_rarely()  # as an agent's process does
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as place:
        folder = Path(place)
        with running_kafka(folder / "kafka", cache) as node, running_redis(folder / "redis") as redis_url:
            found |= asyncio.run(_measure(node.bootstrap, redis_url, made, chosen, say))
    found |= {"load_after": machine()["load"], "notes": NOTES, "tables": tables(found), "summary": summary(found)}
    return found if chosen.skip_ope else with_ope(found, gateway_ope.run(say, chosen.replays, data=chosen.data))


def with_ope(found: Mapping[str, Any], judged: Mapping[str, Any]) -> dict[str, Any]:
    """The report with what the log can say of other policies."""
    both = {name: {**found[name], **judged[name]} for name in ("tables", "summary")}
    return {**found, **both, "ope": judged["ope"], "notes": (*found["notes"], *judged["notes"])}


def tables(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The figures as tables, for the screen."""
    return {
        "open loop": [
            {"route": name, "what": what, "achieved_per_s": found[name]["achieved_per_s"], **found[name][what]}
            for name in ("full", "fixed")
            for what in ("decide_ms", "durable_ms")
        ],
        "what one process can do": [
            {name: row.get(name, "") for name in ("what", "decisions", "decisions_per_s", "cpu_us_per_decision")}
            for row in found["max_decisions_per_s"]
        ],
        "microseconds of a decision": [{"part": name, "us": value} for name, value in found["parts"].items()],
    }


def summary(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of the design's table, each with its limit."""
    full, fixed = found["full"], found["fixed"]
    most = {row["what"]: row["decisions_per_s"] for row in found["max_decisions_per_s"]}
    lines = {
        "achieved_per_s": figure(full["achieved_per_s"], at_least=round(HELD * full["rate_per_s"], 1)),
        "decide_ms p50": figure(full["decide_ms"]["p50"], at_most=MOST_P50_MS),
        "decide_ms p99": figure(full["decide_ms"]["p99"], at_most=MOST_P99_MS),
        "decide_ms p999": figure(full["decide_ms"]["p999"]),
    }
    lines |= {f"durable_ms {name}": figure(full["durable_ms"][name]) for name in SHARES}
    lines["no decision, or without the store"] = figure(
        full["said"].get("no decision", 0) + full["said"].get("without the store", 0), at_most=0
    )
    lines["decide_ratio, full / fixed, p50"] = figure(
        round(full["decide_ms"]["p50"] / fixed["decide_ms"]["p50"], 2) if fixed["decide_ms"]["p50"] else None
    )
    through = most["router, Kafka and Redis"]
    lines["max_decisions_per_s"] = figure(through)
    lines["max_decisions_per_s, rules alone"] = figure(most["rules alone"])
    lines["through Kafka / loop by hand"] = figure(round(through / most["loop by hand, Kafka"], 3))
    return lines
