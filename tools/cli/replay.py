"""`ratchet replay`: decisions, scores, cases, evaluations again from the log, compared bit for bit. It writes nothing but `--record`."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents import replay as again
from agents.wiring import TenantKeys
from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.sealing import GateKeys, open_gate_keys
from infra.secrets import LocalSecrets
from infra.settings import Settings
from schemas.errors import Refused
from streams.difference import EXCLUDED, Difference, Rederived
from streams.port import Broker
from streams.recorded import Collector, RecordedLog, check_new, read_file, write_file
from streams.replay import Artifact, Window
from tools.cli import place
from tools.cli.bus import translated
from tools.cli.repairs import place_of
from tools.cli.screen import Exit, Progress, Screen, clean, short
from tools.cli.tail import since_ms

SETTLE_S = 12.0  # an open transaction holds back what lies behind it at most so long
SHOWN = 20
WIDTH = 160


@dataclass(frozen=True, slots=True)
class Asked:
    """The command's options."""

    agents: Sequence[str] = ()
    from_: str | None = None
    to: str | None = None
    from_offsets: Sequence[str] = field(default=())
    log: Path | None = None
    record: Path | None = None
    limit: int = SHOWN


def instant_ms(option: str, text: str) -> int:
    """Epoch milliseconds, an ISO 8601 time (UTC where it names no zone), or `15m` ago. Raises `Refused`."""
    if re.fullmatch(r"\d{13}", text):
        return int(text)
    if re.fullmatch(r"\d{1,6}[smhd]", text):
        return since_ms(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        accepted = "2026-01-31T12:00:00Z, 13 digits of epoch milliseconds, or 90s, 15m, 2h, 1d ago"
        raise Refused(f"{option} {text!r}: accepted: {accepted}", kind="usage", field=option) from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def agents_of(names: Sequence[str]) -> tuple[str, ...]:
    """The agents to replay, all where none is named. Raises `Refused`."""
    unknown = sorted(set(names) - set(again.AGENTS))
    if unknown:
        known = ", ".join(again.AGENTS)
        raise Refused(
            f"--agent {', '.join(unknown)}: accepted: {known}; what inference and jobs did lies outside the log",
            kind="usage",
        )
    return tuple(name for name in again.AGENTS if not names or name in names)


async def replay_log(
    log: RecordedLog,
    agents: Sequence[str],
    window: Window,
    *,
    key_of: Callable[[str], bytes] | None = None,
    gate_keys: GateKeys | None = None,
    artifact: Artifact | None = None,
    progress: Progress | None = None,
) -> list[Rederived]:
    """Every agent again on a log that lies in memory, and what differs."""
    found: list[Rederived] = []
    for agent in agents:

        def told(done: int, of: int, agent: str = agent) -> None:
            if progress is not None:
                progress.say(f"{agent}: {done} of {of}")

        gave = await again.replay(agent, log, window, key_of=key_of, gate_keys=gate_keys, artifact=artifact, told=told)
        found.append(gave)
    return found


async def replay_broker(
    broker: Broker,
    agents: Sequence[str],
    window: Window,
    *,
    key_of: Callable[[str], bytes] | None = None,
    gate_keys: GateKeys | None = None,
    artifact: Artifact | None = None,
    progress: Progress | None = None,
) -> list[Rederived]:
    """The same on a running broker. What is missing may be held back by an open transaction: it is given time to appear."""
    collector = Collector(broker, again.keep(agents), (lambda text: None) if progress is None else progress.say)
    others, clock = again.other_topics(agents), SystemClock()
    log = await collector.collect(again.first_topics(agents), others, again.offset_groups(agents))
    until = clock.monotonic() + SETTLE_S
    while True:
        found = await replay_log(
            log, agents, window, key_of=key_of, gate_keys=gate_keys, artifact=artifact, progress=progress
        )
        missing = sum(gave.kinds["missing"] for gave in found)
        if not missing or clock.monotonic() > until:
            return found
        if progress is not None:
            progress.say(f"{missing} records are not to be seen yet: waiting for open transactions")
        await clock.sleep(1.0)
        await collector.more(log, others)


async def run(screen: Screen, asked: Asked) -> int:
    """The command."""
    agents = agents_of(asked.agents)
    window = Window(
        0 if asked.from_ is None else instant_ms("--from", asked.from_),
        None if asked.to is None else instant_ms("--to", asked.to),
        {(at.topic, at.partition): at.offset for at in map(place_of, asked.from_offsets)},
    )
    if window.to_ms is not None and window.to_ms < window.from_ms:
        raise Refused("--to lies before --from", kind="usage")
    if asked.log is not None and asked.record is not None:
        raise Refused("--record reads a running stack, --log a file: give one of them", kind="usage")
    if asked.record is not None and (asked.agents or asked.from_ or asked.to or asked.from_offsets):
        raise Refused(
            "--record writes the whole log, for every agent: --agent, --from, --to and --from-offsets are for a replay of it",
            kind="usage",
        )
    with screen.progress("reading the log") as progress:
        if asked.log is not None:
            found = await replay_log(read_file(asked.log), agents, window, progress=progress)
        else:
            settings = place.settings()
            with translated(settings.kafka_bootstrap or ""):
                broker = await place.open_broker(settings)
                if asked.record is not None:
                    return await _record(screen, broker, asked.record, progress, _artifacts(settings))
                secrets = _secrets(settings)
                found = await replay_broker(
                    broker,
                    agents,
                    window,
                    key_of=None
                    if secrets is None
                    else TenantKeys(await secrets.commitment_key("tenants")).pseudonym_key,
                    gate_keys=None if secrets is None else await open_gate_keys(secrets),
                    artifact=_artifacts(settings),
                    progress=progress,
                )
    return tell(screen, found, asked.limit)


def _secrets(settings: Settings) -> LocalSecrets | None:
    """Where tenants' keys lie on this machine; elsewhere what they give is taken as the log says it."""
    file = settings.state_dir / "secrets.json"
    return LocalSecrets.open(file) if settings.secrets == "local" and file.is_file() else None


def _artifacts(settings: Settings) -> Artifact | None:
    """The artifact store of this machine, where there is one."""
    folder = settings.state_dir / "artifacts"
    return DirectoryStore(folder).get_bytes if folder.is_dir() else None


async def record_log(
    broker: Broker, file: Path, progress: Progress | None = None, artifact: Artifact | None = None
) -> tuple[RecordedLog, int]:
    """Write all that a replay of every agent reads into a new file; the log and the file's size."""
    check_new(file)
    agents = again.AGENTS
    collector = Collector(broker, say=(lambda text: None) if progress is None else progress.say)
    log = await collector.collect(again.first_topics(agents), again.other_topics(agents), again.offset_groups(agents))
    if artifact is not None:
        log.artifacts |= {digest: artifact(digest) for digest in again.snapshots(log)}
        for digest in again.models(log):
            with contextlib.suppress(Refused):  # removed since: what it decided is told as not to be decided again
                log.artifacts[digest] = artifact(digest)
    return log, write_file(log, file)


async def _record(screen: Screen, broker: Broker, file: Path, progress: Progress, artifact: Artifact | None) -> int:
    log, size = await record_log(broker, file, progress, artifact)
    row = {"recorded": str(file), "records": log.size(), "partitions": log.partitions, "bytes": size}
    screen.line(row, f"{log.size()} records of {log.partitions} partitions in {clean(str(file))}, {size:,} bytes")
    return Exit.DONE


def row_of(gave: Rederived) -> dict[str, Any]:
    """One agent's figures."""
    return {
        "agent": gave.agent,
        "equal": not gave.kinds,
        "events": gave.events,
        "records": gave.records,
        "state_keys": gave.keys,
        "differences": gave.kinds.total(),
        "kinds": dict(sorted(gave.kinds.items())),
        "notes": dict(sorted(gave.notes.items())),
        "sha256": gave.hash.hexdigest(),
    }


def tell(screen: Screen, found: Sequence[Rederived], limit: int) -> int:
    """Show every agent's outcome; the exit code."""
    for gave in found:
        row = row_of(gave)
        word = "[green]equal[/]" if row["equal"] else f"[red]{row['differences']} differ[/]"
        state = f", {row['state_keys']} keys of state" if row["state_keys"] else ""
        text = f"{row['agent']:<8} {row['events']:>7} events, {row['records']:>7} records{state}: {word}"
        for difference in gave.found[:limit]:
            _show(screen, difference)
        left = row["differences"] - len(gave.found[:limit])
        if left > 0:
            screen.say(f"  … and {left} more{' (--limit)' if limit < len(gave.found) else ''}")
        screen.line(row, text)
        for note, count in row["notes"].items():
            screen.say(f"  [dim]{count} {clean(note)}[/]")
    equal = not any(gave.kinds for gave in found)
    excluded = "; ".join(f"{name}, {why}" for name, why in EXCLUDED.items())
    screen.line({"equal": equal, "excluded_headers": dict(EXCLUDED)}, f"[dim]not compared: {clean(excluded)}[/]")
    return Exit.DONE if equal else Exit.NO


def _show(screen: Screen, one: Difference) -> None:
    if screen.as_json:
        screen.json({"difference": asdict(one)})
        return
    cause = f"{clean(one.cause)} → " if one.cause else ""
    screen.say(
        f"[bold]{clean(one.kind)}[/] {clean(one.agent)}: {cause}{clean(one.place)} {clean(one.type)} [dim]{short(one.id)}[/]"
    )
    for row in one.fields:
        screen.say(f"  {clean(row.path)}")
        screen.say(f"    [red]- {short(str(row.recorded), WIDTH)}[/] [dim]recorded[/]")
        screen.say(f"    [green]+ {short(str(row.derived), WIDTH)}[/] [dim]now[/]")
