"""`ratchet bench streams`: our lanes beside the loops that one would write by hand, on one broker, in one process.

Each part stands alone (`--only`). The broker is the benchmark's own, in a temporary folder, stopped whatever happens.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.settings import load
from schemas.errors import Refused
from streams.runner import collect_rarely
from tools.bench import Say, figure, machine
from tools.bench import streams_children as children
from tools.bench import streams_parts as parts
from tools.bench import streams_rows as rows
from tools.bench import streams_state as state
from tools.bench.streams_base import KEYS, TARGET, VALUE_BYTES, Field
from tools.stack.kafka import VERSION, running_kafka

PARTS = ("throughput", "work", "latency", "scale", "memory", "restore", "recovery", "partitions")
BATCHES = (100, 1000)
SCALE = (1, 4, 16)
MANY = 1000
FALLBACK_RATE = 4000.0  # events per second, where latency is asked for alone
USAGE = (
    "ratchet bench streams [--events N] [--rounds R] [--partitions P] [--kills N] [--only PART]… [--quick]; "
    f"parts are {', '.join(PARTS)}"
)
BROKER = {"log.retention.check.interval.ms": "10000", "log.segment.delete.delay.ms": "1000"}
NOTES = (
    f"events: values of {VALUE_BYTES} bytes, nine headers, {KEYS} keys per partition; the broker shares the machine",
    "raw: streams/raw.py, loops by hand on the same client with the same settings, one task per partition",
    "codec: decoding, validation, ids and encoding of every event; off, records pass as they are, in both",
    "time is from the first records polled to the last commit; cpu is this process's, broker_us is the broker's",
    "a Fold also writes its state (one row per key that changed) and one order record per transaction",
    "restarted: a new interpreter after the SIGKILL; standby: one that had loaded its code and waited for the word",
)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench streams", add_help=False, exit_on_error=False)
    parser.add_argument("--events", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--quick", action="store_true")
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    chosen.events = (4_000 if chosen.quick else 40_000) if chosen.events is None else chosen.events
    chosen.rounds = (1 if chosen.quick else 3) if chosen.rounds is None else chosen.rounds
    chosen.kills = (2 if chosen.quick else 10) if chosen.kills is None else chosen.kills
    least = chosen.partitions * BATCHES[-1]
    if left or min(chosen.partitions, chosen.rounds, chosen.kills) < 1:
        raise Refused(f"not understood: {' '.join(left) or options}; {USAGE}, numbers above 0", kind="usage")
    if chosen.partitions > max(SCALE) or chosen.events < least:
        raise Refused(
            f"at most {max(SCALE)} partitions, and at least {BATCHES[-1]} events for each ({least} here); {USAGE}",
            kind="usage",
        )
    chosen.events -= chosen.events % least  # so that every transaction is full
    chosen.parts = tuple(chosen.only or PARTS)
    chosen.batches = BATCHES[-1:] if chosen.quick else BATCHES
    return chosen


async def _measure(bootstrap: str, chosen: argparse.Namespace, say: Say) -> dict[str, Any]:
    """Every part but the partitions."""
    found, quick = dict[str, Any](), bool(chosen.quick)
    collect_rarely()  # as an agent's process does; the raw loops gain from it too
    async with Field(bootstrap) as on:
        await on.create([TARGET], max(SCALE))
        if "throughput" in chosen.parts:
            made = await rows.throughput(on, chosen.events, chosen.partitions, chosen.rounds, chosen.batches, say)
            found["throughput"] = [row.told() for row in made]
            found["ratios"] = rows.ratios(made, chosen.batches)
        if "work" in chosen.parts:
            found["work"] = await parts.work(on, chosen.partitions, 0.4 if quick else 5.0, say)
        if "latency" in chosen.parts:
            known = {row["row"]: row["events_per_s"] for row in found.get("throughput", ())}
            rate = known.get("transform shipped, codec", FALLBACK_RATE) / 2
            found["latency"] = await parts.latency(on, chosen.partitions, rate, 2.0 if quick else 10.0, say)
        if "scale" in chosen.parts:
            found["scale"] = await parts.scale(on, SCALE[1:] if quick else SCALE, chosen.events, say)
        if "memory" in chosen.parts:
            found["memory"] = await parts.memory(on, 1000 if quick else 5000, say)
        if "restore" in chosen.parts:
            found["restore"] = await state.restore(on, [1000] if quick else [10_000, 50_000], say)
        if "recovery" in chosen.parts:
            found["recovery"] = await children.recovery(on, chosen.partitions, chosen.kills, say)
    return found


async def _many(bootstrap: str, *, quick: bool, say: Say) -> dict[str, Any]:
    most = 32 if quick else MANY
    async with Field(bootstrap) as on:
        await on.create([TARGET], most)
        return await state.many_on_kafka(on, most, 30.0 if quick else 100.0, say)


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options that are not understood, `Unavailable` when the broker does not come up."""
    chosen, cache = options_of(options), load().resolved().cache_dir
    found: dict[str, Any] = {"kafka": VERSION, "options": {k: v for k, v in vars(chosen).items() if k != "only"}}
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as place:
        folder = Path(place)
        if set(chosen.parts) != {"partitions"}:
            with running_kafka(folder / "kafka", cache, settings=BROKER) as node:
                found |= asyncio.run(_measure(node.bootstrap, chosen, say))
        if "partitions" in chosen.parts:
            memory = asyncio.run(state.many_in_memory(100 if chosen.quick else MANY, say))
            with running_kafka(folder / "many", cache, settings=BROKER) as node:
                kafka = asyncio.run(_many(node.bootstrap, quick=bool(chosen.quick), say=say))
            found["partitions"] = {"memory": memory, "kafka": kafka}
    return {
        **found,
        "load_after": machine()["load"],
        "notes": NOTES,
        "tables": tables(found),
        "summary": summary(found),
    }


def tables(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The parts that are tables, for the screen."""
    shown: dict[str, list[dict[str, Any]]] = {}
    if "throughput" in found:
        names = ("row", "events_per_s", "cpu_us_per_event", "broker_us_per_event", "stall_ms", "events_per_transaction")
        shown["throughput"] = [{name: row.get(name, "") for name in names} for row in found["throughput"]]
        shown["ours / raw, one id per partition"] = found["ratios"]
    shown |= {part: found[part] for part in ("work", "scale", "restore") if part in found}
    shown |= {part: [found[part]] for part in ("latency", "memory") if part in found}
    if "recovery" in found:
        shown["recovery"] = [{"what": what, **row} for what, row in found["recovery"].items()]
    if "partitions" in found:
        memory, kafka = found["partitions"]["memory"], found["partitions"]["kafka"]
        shown["partitions"] = [
            {"broker": where, "partitions": row["partitions"], "state": what, **row[what]}
            for where, made in (("memory", [memory]), ("kafka", kafka["tried"]))
            for row in made
            for what in ("empty", "restored")
        ]
    return shown


def summary(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of the design's table, each with its limit; those of parts that did not run are not there."""
    told: dict[str, dict[str, Any]] = {}
    for row in found.get("ratios", ()):
        if row["codec"] == "ours alone":
            continue
        least = None
        if row["against"] == "record calls":
            least = 1.2
        elif row["batch"] == BATCHES[-1]:
            least = 0.70 if row["shape"] == "transform" else 0.75
        codec = "codec" if row["codec"] == "both" else "no codec"
        name = f"{row['shape']} / raw {row['against']}, {row['batch']}, {codec}"
        told[name] = figure(row["wall"], at_least=least)
    for row in found.get("work", ()):
        told[f"{row['work_ms']:.0f} ms of work / (workers / latency)"] = figure(row["ratio"], at_least=0.85)
    if "latency" in found:
        rate = found["latency"]["events_per_s"]
        told[f"p50 at {rate:.0f} events/s, ms"] = figure(found["latency"]["p50_ms"])
        told[f"p99 at {rate:.0f} events/s, ms"] = figure(found["latency"]["p99_ms"])
    for what, row in found.get("recovery", {}).items():
        told[f"recovery {what.replace('_', ', ')}, p50 s"] = figure(row["p50_s"], at_most=1.0)
        told[f"recovery {what.replace('_', ', ')}, worst s"] = figure(row["worst_s"], at_most=3.0)
    if "recovery" in found:
        # Kills that struck no open transaction prove nothing; so few as those of --quick may all have missed by chance.
        copies = sum(row["aborted_copies"] for row in found["recovery"].values())
        told["aborted copies"] = figure(copies, at_least=None if found["options"]["quick"] else 1)
    if "partitions" in found:
        told["partitions on the broker in memory"] = figure(found["partitions"]["memory"]["partitions"])
        told["partitions on Kafka"] = figure(found["partitions"]["kafka"]["fit"])
    counted = [
        *(row for row in found.get("throughput", ()) if "lost" in row),
        *found.get("work", ()),
        *found.get("scale", ()),
        *found.get("recovery", {}).values(),
    ]
    for name in ("lost", "duplicated", "state_wrong"):
        if counted:
            told[name.replace("_", " ")] = figure(sum(row.get(name, 0) for row in counted), at_most=0)
    return told
