"""Records as a person reads them: place, time, type, what happened in a few words.

Tolerant: what cannot be decoded is shown as such.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from schemas.payload import TYPE_PREFIX, TYPE_SUFFIX
from schemas.topics import BY_NAME, PREFIX
from streams.shapes import Record
from tools.cli.screen import clean, short

REASONS = ("kind", "message", "agent", "topic", "partition", "offset", "attempts", "at")


def as_row(record: Record) -> dict[str, Any]:
    """The record as one JSON object. `data` is the payload where it is a JSON object, else None."""
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    data: dict[str, Any] | None = None
    if record.value is not None:
        try:
            decoded: object = json.loads(record.value)
        except (ValueError, RecursionError):
            decoded = None
        data = cast("dict[str, Any]", decoded) if isinstance(decoded, dict) else None
    row: dict[str, Any] = {
        "place": str(record.place),
        "time": headers.get("ce_time") or instant(record.timestamp_ms),
        "type": headers.get("ce_type", "").removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX),
        "key": (record.key or b"").decode("utf-8", "replace"),
        "id": headers.get("ce_id", ""),
        "source": headers.get("ce_source", ""),
        "cause": headers.get("ratchet-cause", ""),
        "trace": headers.get("traceparent", ""),
        "written_ms": record.timestamp_ms,
        "data": data,
    }
    if record.topic.endswith(".dlq"):
        row["dead_letter"] = {name: headers.get(f"ratchet-dlq-{name}", "") for name in REASONS}
    return row


def instant(at_ms: int) -> str:
    """Epoch milliseconds as local time of day, to the millisecond."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().isoformat(timespec="milliseconds")


def clock(at_ms: int) -> str:
    """The time of day alone."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%H:%M:%S.%f")[:-3]


def full_topics(names: list[str]) -> list[str]:
    """Full names of the topics typed (`answers`, `ratchet.answers`, `requests.dlq`). Raises KeyError with the name."""
    found: list[str] = []
    for name in names:
        bare = name.removeprefix(PREFIX)
        topic = BY_NAME.get(bare.removesuffix(".dlq"))
        if topic is None or (bare.endswith(".dlq") and not topic.dead_letters):
            raise KeyError(name)
        found.append(topic.dlq if bare.endswith(".dlq") else topic.full)
    return found


def every_topic() -> list[str]:
    """All topics that an operator may look at, dead letters included."""
    rows = [topic for topic in BY_NAME.values() if topic.name != "keyring"]
    return [topic.full for topic in rows] + [topic.dlq for topic in rows if topic.dead_letters]


def matches(row: Mapping[str, Any], *, route: str | None, kind: str | None, request: str | None) -> bool:
    """Whether the row is of the route, type and request asked for. `kind` may be a type's beginning (`answer`)."""
    data: Mapping[str, Any] = row["data"] or {}
    if route is not None and data.get("route") != route and row["key"] not in (route, f"route/{route}"):
        return False
    if kind is not None:
        bare = kind.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)
        if row["type"] != bare and not row["type"].startswith(bare + "."):
            return False
    return request is None or request in (data.get("request_id"), row["key"])


def one_line(row: Mapping[str, Any]) -> str:
    """The row as one line of rich markup."""
    data: Mapping[str, Any] = row["data"] or {}
    who = data.get("request_id") or row["key"]
    where = f"[dim]{clean(str(row['place']).removeprefix(PREFIX))}[/]"
    head = f"[dim]{clock(row['written_ms'])}[/] [bold]{clean(row['type'] or '(no type)'):<24}[/]"
    route = data.get("route") if isinstance(data.get("route"), str) and data.get("route") != who else None
    return f"{head} {short(str(who), 40)} {'[cyan]' + clean(route) + '[/] ' if route else ''}{gist(row)} {where}"


def gist(row: Mapping[str, Any]) -> str:
    """What happened, in a few words of markup."""
    letter: Mapping[str, str] | None = row.get("dead_letter")
    if letter is not None:
        why = f"{clean(letter['kind'])}: {short(letter['message'], 160)}"
        return f"[red]dead letter[/] {why} [dim]by {clean(letter['agent'])}[/]"
    data: Mapping[str, Any] | None = row["data"]
    if data is None:
        return "[dim]not a JSON object[/]"
    say = GISTS.get(row["type"])
    try:
        return short(say(data), 200) if say is not None else ""
    except (KeyError, TypeError, ValueError, IndexError):
        return "[yellow]unexpected fields[/]"


def last_text(data: Mapping[str, Any]) -> str:
    """The last message's text."""
    return str(data["messages"][-1]["content"])


def _number(value: Any, digits: int = 2) -> str:
    return "?" if value is None else f"{float(value):.{digits}f}"


def _look(data: Mapping[str, Any]) -> str:
    """A look in a few words: who, where it stands, the gain that is nearest to its level, what follows."""
    where = "holdback, " if data.get("holdback") else f"stage {data['stage']}, " if data.get("stage") else ""
    wanted = [p for p in data["processes"] if p["name"].endswith("_worse") == bool(data.get("holdback"))]
    rows = [p for p in wanted if data.get("holdback") or "_" not in p["name"]]
    best = max(rows, key=lambda p: p["max_log_e"] / p["needed"], default=None)
    said = ""
    if best is not None:
        said = f", {best['name']} log E {_number(best['log_e'])}, max {_number(best['max_log_e'])} of {_number(best['needed'])}"
    held: Mapping[str, bool] = data.get("conditions") or {}
    count = f", {sum(held.values())} of {len(held)} conditions" if held and not data.get("holdback") else ""
    what = f"{where}{data['pairs']} pairs{said}{count}: {data['decision']} {data.get('reason', '')}"
    return f"{data['challenger']}: {what}".rstrip()


def _staged(data: Mapping[str, Any]) -> str:
    if not data["stage"]:
        return f"{data['challenger']} is in the shadow again {data.get('reason', '')}".rstrip()
    served = f"{data['rollout_bp'] / 100:g} % of requests"
    return f"{data['challenger']}: stage {data['stage']}, serves {served}, after {data['pairs']} pairs"


def _fleet(data: Mapping[str, Any]) -> str:
    said = f"version {data['version']}: champion {data['champion']}, challenger {data.get('challenger') or 'none'}"
    said += f" serves {data['rollout_bp'] / 100:g} %" if data.get("rollout_bp") else ""
    said += ", paused" if data.get("paused") else ""
    return said + (f": {data['reason']}" if data.get("reason") else "")


GISTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "request.submitted": lambda d: f"“{last_text(d)}”",
    "decision.routed": lambda d: (
        f"to {d['arm']} ({d['strategy']})" + (f", shadows {', '.join(d['shadows'])}" if d.get("shadows") else "")
    ),
    "shadow.ordered": lambda d: f"shadow on {d['arm']}",
    "result.completed": lambda d: (
        f"{d['arm']}{' (shadow)' if d['shadow'] else ''}: “{d['text'].strip()}” {d['latency_ms']:.0f} ms, "
        f"{d['tokens_out']} tokens"
    ),
    "result.failed": lambda d: f"{d['arm']}{' (shadow)' if d['shadow'] else ''} failed: {d['kind']}: {d['reason']}",
    "score.assigned": lambda d: (
        f"{d['arm']}{' (shadow)' if d['shadow'] else ''} {d['action']} at {d['score']:.3f}"
        + (", withheld by the gate" if d.get("withheld") else "")
    ),
    "answer.released": lambda d: f"“{d['text'].strip()}” by {d['arm']}, {d['latency_ms']:.0f} ms",
    "answer.withheld": lambda d: f"withheld: {d['reason']} {d.get('detail', '')}".rstrip(),
    "answer.refused": lambda d: (
        f"refused: {d['kind']}: {d['field'] or 'value'}: {d['reason']}; accepted: {d['accepted']}"
    ),
    "review.requested": lambda d: f"{len(d['answers'])} answer(s) wait for a person",
    "review.settled": lambda d: f"to be {d['outcome']}: {d['reason']}",
    "verdict.given": lambda d: (
        f"by {d['by']}: "
        + (
            f"“{d['corrected']}”"
            if d.get("corrected")
            else ", ".join(f"{a['label']} {a.get('decision') or a.get('rating')}" for a in d.get("answers", ()))
        )
    ),
    "case.answered": lambda d: f"{d['arm']} {'ok' if d['ok'] else 'failed'}, {d['latency_us'] / 1000:.0f} ms",
    "case.closed": lambda d: (
        f"{d['why']}: "
        + ", ".join(f"{a['arm']} {'—' if a.get('grade') is None else a['grade']}" for a in d["arms"])
        + (f", withheld: {d['withheld']}" if d.get("withheld") else "")
    ),
    "case.amended": lambda d: f"amended{', contradicts the first verdict' if d.get('contradicts') else ''}",
    "promotion.opened": lambda d: (
        f"{d['challenger']} against {d['champion']}{', resumed' if d.get('resumed') else ''}, arena {d['arena'][:12]}"
    ),
    "promotion.evaluated": _look,
    "promotion.staged": _staged,
    "promotion.approval_requested": lambda d: (
        f"{d['challenger']} waits for an operator: `ratchet promote {d['route']}`"
    ),
    "promotion.rejected": lambda d: f"{d['challenger']}: {d['reason']}",
    "model.promoted": lambda d: (
        f"{d['challenger']} takes over from {d['champion']} after {d['pairs']} pairs, log E {_number(d['log_e'])}"
    ),
    "model.rolled_back": lambda d: f"{d['champion']} serves again: {d['reason']}",
    "trust.changed": lambda d: f"{d['before']} → {d['after']}: {d['reason']}",
    "training.ordered": lambda d: f"{d['order_id']}: {d['rows']} rows, {d['classes']} classes: {d['reason']}",
    "training.progressed": lambda d: f"{d['phase']} {d['step']}/{d['steps']} loss {_number(d.get('loss'), 3)}",
    "training.completed": lambda d: f"{d['adapter']} from {d['rows']} rows in {d['seconds']:.0f} s",
    "training.failed": lambda d: f"{d['order_id']}: {d['reason']}",
    "training.cancelled": lambda d: f"{d['order_id']}: {d['reason']}",
    "adapter.registered": lambda d: f"{d['arm']}: {d['adapter']}",
    "adapter.live": lambda d: f"{d['arm']} on {d['instance']} in {d['load_ms']:.0f} ms",
    "adapter.refused": lambda d: f"{d['arm']} on {d['instance']}: {d['reason']}",
    "policy.route": lambda d: (
        f"version {d['version']}: {d['settings']['release']}, champion {d['settings']['champion']}"
    ),
    "policy.fleet": _fleet,
    "policy.trust": lambda d: (
        f"version {d['version']}: {d['mode']}"
        + (f" {d['rung']} %" if d.get("rung") else "")
        + (", gate" if d.get("gate") else "")
        + f", {d['labels']} labels"
    ),
    "policy.live": lambda d: f"{d['instance']}: " + ", ".join(f"{a['route']}/{a['arm']}" for a in d["arms"]),
    "policy.router": lambda d: (
        f"version {d['version']}: {'warm' if d['warm'] else 'not warm'}{', frozen' if d['frozen'] else ''}"
        f"{', guarded' if d['guarded'] else ''}, {d['labels']} labelled of {d['cases']} cases"
    ),
    "policy.capacity": lambda d: (
        f"version {d['version']}: "
        + ", ".join(f"{a['arm']} {a['replicas']}{' warm' if a['warm'] else ''}" for a in d["arms"])
    ),
    "policy.gate": lambda d: (
        f"version {d['version']}: {', '.join(sorted(d['settings']['purposes'])) or 'no purpose'} by {d['author']}"
    ),
    "audit.checkpoint": lambda d: f"size {d['size']}, root {d['root']}",
}
for _name in ("apply", "promote", "reject", "rollback", "pause", "resume", "trust", "train", "cancel"):
    GISTS[f"command.{_name}"] = lambda d: f"by {d['operator']} {d.get('reason', '')}".rstrip()
GISTS["command.tenant"] = lambda d: f"by {d['operator']} {d.get('reason', '')}".rstrip()
GISTS["command.incident"] = lambda d: f"{d['step']} {d['incident']} by {d['operator']} {d.get('reason', '')}".rstrip()
for _name in ("assessed", "notified", "told", "not_notifiable", "contained", "closed", "overdue"):
    GISTS[f"incident.{_name}"] = lambda d: f"{d['incident']} {'by ' + d['by'] if d['by'] else ''}".rstrip()
GISTS["incident.detected"] = lambda d: f"{d['incident']} {d['violation'] or 'by ' + d['by']}"
GISTS["incident.refused"] = lambda d: f"{d['incident']}: {d['step']} by {d['by']}: {d['why']}"
for _name in ("resend", "discard"):
    GISTS[f"command.{_name}"] = lambda d: (
        f"{d['letter_topic']}[{d['letter_partition']}]@{d['letter_offset']} by {d['operator']} {d.get('reason', '')}".rstrip()
    )
GISTS["command.skip"] = lambda d: (
    f"{d['agent']} at {d['topic']}[{d['partition']}]@{d['offset']} by {d['operator']} {d['reason']}".rstrip()
)
GISTS["command.offsets"] = lambda d: (
    f"{d['agent']} on {d['topic']}[{d['partition']}] from {d['from_offset']} to {d['to_offset']} by {d['operator']} {d['reason']}"
)
