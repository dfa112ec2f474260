"""What the demonstration of compliance reports, and whether it showed what it should."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from tools.demo.compliance.telling import Tale

PROMISES = (
    "not promised: names and places in a text (no pattern knows them), what never reached Kafka, anonymity after an erasure; "
    "none of it is legal advice"
)


def report_of(tale: Tale, total_s: float) -> dict[str, Any]:
    """What `compliance.json` holds."""
    return {
        "engine": tale.stage.settings.engine,
        "claims": [{"act": row.act, "claim": row.words, "held": row.held, "seen": row.seen} for row in tale.claims],
        "held": sum(row.held for row in tale.claims),
        "failed": [f"{row.act}: {row.words}" for row in tale.claims if not row.held],
        "seconds": tale.seconds | {"total": round(total_s, 1)},
        **tale.kept,
    }


def passed(report: dict[str, Any]) -> bool:
    """Whether everything happened as it was said."""
    return bool(report["claims"]) and not report["failed"]


def show(report: dict[str, Any], console: Console, folder: Path) -> None:
    """The last screen."""
    console.print()
    for words in report["failed"]:
        console.print(f"[red]✗[/] {escape(words)}", highlight=False)
    erasure: dict[str, Any] = report.get("erasure") or {}
    incident: dict[str, Any] = report.get("incident") or {}
    lines = [f"[bold]{report['held']} of {len(report['claims'])} claims held[/]"]
    if incident:
        lines.append(f"incident {incident['name']}: {', '.join(incident['states'])}")
    if erasure:
        lines.append(f"erased {erasure['subject']}: holds from {erasure['effective_at']}, receipt {erasure['receipt']}")
    if report.get("controls"):
        lines.append("controls: " + ", ".join(f"{count} {word}" for word, count in sorted(report["controls"].items())))
    lines += [
        f"evidence {folder}/evidence, its policy {folder.parent}/evidence.policy; report {folder}/compliance.json",
        PROMISES,
        f"{report['seconds']['total']:.0f} s",
    ]
    for line in lines:
        console.print(line, highlight=False)
