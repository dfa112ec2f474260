"""What a run of the router's demonstration found, from the events alone: `routing.json`, the last screen, whether it passed."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench import versions
from tools.demo.audit import accepted, evidence_lines
from tools.demo.ledger import PHASES
from tools.demo.report import PACKAGES, began_ms
from tools.demo.routing.live import Tour
from tools.demo.routing.log import RoutingLedger, Row, alone, mixed, periods, share
from tools.demo.routing.route import LARGE, SMALL

CHOSEN = ("learnt", "dearer")  # the acts in which the router was free to choose
TOLD_MS, LEAST_OPEN_MS = 1000, 5000  # until every router has heard of it; before the first probe
MOST_OVER = 0.10  # of the budget, that a mean over these acts may cost more


def report_of(tour: Tour, evidence: dict[str, Any]) -> dict[str, Any]:
    """All of it, as `report.json` holds it. Costs in nano-USD; `at_s` are seconds since the first customer asked."""
    ledger, story = tour.ledger, tour.story
    start = began_ms(ledger)
    warm, chosen = ledger.rows("warm-up"), ledger.rows(*CHOSEN)
    whole = periods(ledger.rows(*CHOSEN, "failure", "returned", "rollout", "whole"), story.period_s)
    return {
        "shown": "routing",
        "acts": acts(ledger),
        "alone": {
            SMALL: share(alone(warm, SMALL, LARGE)), LARGE: share(alone(warm, LARGE, SMALL)),
            "messages": len(alone(warm, SMALL, LARGE)),
        },
        "chosen": _chosen(warm, chosen, story.budget),
        "budget": story.budget,
        "periods": [
            {"at_s": round((at - start) / 1000, 1), "mean": round(mean, 1), "requests": count}
            for at, mean, count in whole
        ],
        "breaker": _breaker(tour, start),
        "previews": {name: row.told for name, row in tour.previews.items()},
        "may_roll_out": {name: row.may_roll_out for name, row in tour.previews.items()},
        "staged": tour.staged,
        "at_s": {name: round((at - start) / 1000, 1) for name, at in tour.times.items()},
        "requests": len(ledger.asked),
        "answers": sum(len(row.answers) for row in ledger.asked.values()),
        "cases": sum(row.cases for row in ledger.asked.values()),
        "refused": dict(ledger.refused),
        "lost": ledger.lost() + int(evidence.get("missing", 0)),
        "duplicated": ledger.duplicated(),
        "evidence_leaves": evidence.get("size", 0),
        "evidence_verified": accepted(evidence),
        "evidence_followed": evidence.get("followed"),
        "evidence_refused": evidence.get("refused"),
        "policies": ledger.routers,
        "route": tour.route,
        "peak_resident_gib": round(tour.peak_rss / 2**30, 2),
        "seconds": {**tour.seconds, "total": round(time.monotonic() - tour.started, 1)},
        "versions": versions(PACKAGES),
    }  # fmt: skip


def acts(ledger: RoutingLedger) -> dict[str, dict[str, Any]]:
    """Per act that there was: what was asked, what was right, what it cost, who answered, at which λ."""
    found: dict[str, dict[str, Any]] = {}
    for phase in PHASES:
        rows = ledger.rows(phase)
        if not rows:
            continue
        known = [row for row in rows if ledger.asked[row.request_id].known]
        costs = [row.cost for row in rows if row.cost is not None]
        found[phase] = {
            "requests": len(rows),
            "right": share(row.good for row in rows if row.good is not None),
            "cost": round(statistics.fmean(costs), 1) if costs else None,
            "large": share(row.arm == LARGE for row in rows),
            "large_of_known": share(row.arm == LARGE for row in known),
            "large_of_new": share(row.arm == LARGE for row in rows if row not in known),
            "explored": share(row.explored for row in rows),
            "fell_back": sum(row.arm != row.drawn for row in rows),
            "price": round(statistics.median(row.price for row in rows) / 1e6, 3),
        }
    return found


def _chosen(warm: Sequence[Row], chosen: Sequence[Row], budget: int) -> dict[str, Any]:
    """The router against drawing the large arm at random as often, and its mean cost against the budget."""
    costs = [row.cost for row in chosen if row.cost is not None]
    large = share(row.arm == LARGE for row in chosen)
    mean = statistics.fmean(costs) if costs else None
    return {
        "right": share(row.good for row in chosen if row.good is not None),
        "at_random": None if large is None else mixed(warm, SMALL, LARGE, large),
        "large": large,
        "cost": None if mean is None else round(mean, 1),
        "over_budget": None if mean is None else round(mean / budget - 1, 4),
    }


def _breaker(tour: Tour, start: int) -> dict[str, Any]:
    """The failure as the breaker told it."""
    ledger, killed = tour.ledger, tour.times.get("killed")
    opened, closed = ledger.breaker(LARGE, "open"), ledger.breaker(LARGE, "closed")
    fell = [row for row in ledger.rows("failure") if row.arm != row.drawn]
    return {
        "opened_after_s": None if killed is None or not opened else round((opened[0].at_ms - killed) / 1000, 1),
        "open_at_s": [round((row.at_ms - start) / 1000, 1) for row in opened],
        "closed_at_s": [round((row.at_ms - start) / 1000, 1) for row in closed],
        "calls": opened[0].calls if opened else 0,
        "failed": opened[0].failed if opened else 0,
        "fell_back": len(fell),
        "asked_while_open": sum(
            row.drawn == LARGE
            for row in ledger.rows("failure")
            if opened and opened[0].at_ms + TOLD_MS < row.at_ms < opened[0].at_ms + LEAST_OPEN_MS
        ),
    }


def passed(report: dict[str, Any]) -> bool:
    """Whether the run showed what it is there to show: nothing lost or doubled, the router better than chance and than the champion at the
    same cost, within its budget, the dearer arm used less, a breaker that opened
    and closed, of two policies the right one refused and the other rolled out by shares."""
    told, act, breaker = report["chosen"], report["acts"], report["breaker"]
    counted = report["requests"] == report["answers"] == report["cases"]
    if report["lost"] or report["duplicated"] or not counted or not report["evidence_verified"]:
        return False
    if None in (told["right"], told["at_random"], report["alone"][SMALL], told["over_budget"]):
        return False
    learnt = told["right"] > max(told["at_random"], report["alone"][SMALL]) and told["over_budget"] <= MOST_OVER
    felt = act["dearer"]["large"] < act["learnt"]["large"]
    broke = bool(breaker["open_at_s"] and breaker["closed_at_s"]) and act["returned"]["large"] > 0
    judged = report["may_roll_out"] == {"frugal": False, "settled": True} and report["staged"]
    return bool(learnt and felt and broke and judged)


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def show(report: dict[str, Any], console: Console, folder: str) -> None:
    """The last screen."""
    table = Table(title="act by act", title_justify="left", box=None, pad_edge=False)
    for column in ("act", "requests", "right", "µ$ each", "large", "of known", "of new", "explored", "fell back", "λ"):
        table.add_column(column, justify="left" if column == "act" else "right")
    for name, row in report["acts"].items():
        paid = "–" if row["cost"] is None else f"{row['cost'] / 1000:.2f}"
        shares = [_pct(row[key]) for key in ("large", "large_of_known", "large_of_new", "explored")]
        right = (name, str(row["requests"]), _pct(row["right"]), paid)
        table.add_row(*right, *shares, str(row["fell_back"]), f"{row['price']:.3f}")
    console.print()
    console.print(table)
    own, told, breaker = report["alone"], report["chosen"], report["breaker"]
    lines = [
        f"both asked ({own['messages']} messages): small alone {_pct(own[SMALL])}, large alone {_pct(own[LARGE])}",
        f"the router, where it chose: right [bold]{_pct(told['right'])}[/] with {_pct(told['large'])} large ones; as many drawn at random: "
        f"{_pct(told['at_random'])}",
        f"cost {(told['cost'] or 0) / 1000:.2f} of {report['budget'] / 1000:.2f} µ$ a request ({(told['over_budget'] or 0):+.1%})",
        f"failure: breaker open {breaker['opened_after_s']} s after the kill ({breaker['failed']} of {breaker['calls']} calls failed), "
        f"{breaker['fell_back']} answers by the next arm of the chain, closed at {breaker['closed_at_s'][-1:]} s",
        f"lost {report['lost']}, duplicated {report['duplicated']}, requests {report['requests']}, answers {report['answers']}, "
        f"cases {report['cases']}, evidence leaves {report['evidence_leaves']}",
        *evidence_lines(report, Path(folder) / "evidence"),
        f"picture {folder}/routing.png; report {folder}/routing.json",
        f"{report['seconds']['total']:.0f} s, at most {report['peak_resident_gib']} GiB resident",
    ]
    for line in lines:
        console.print(line, highlight=False)
