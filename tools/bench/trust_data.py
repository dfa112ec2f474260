"""`ratchet bench trust --data FILE`: scores and ladders on the recorded answers of real models.

2,000 rows fit the scorers (a sixth of a file with fewer than 12,000), the rest are test rows. Rungs are score quantiles of the fit rows.
The labels come from the test rows, in random orders of min(5,000, rows) without replacement; a rung's risk and coverage are those of all
test rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench.exact import interval
from tools.bench.outcomes import Outcomes, read
from tools.bench.rows import Row, quantile, table
from tools.bench.scorers import Flags, Reals, figures, scorers, signals
from tools.bench.trust_ladder import RULES, count, released
from tools.bench.trust_suites import rungs_of

FIT, FIT_PART = 2000, 6
TARGETS, PANEL = 3, 5
LEAST_ROWS = 60
NOTES = (
    "violation: orders in which the released rung's share of wrong answers, over all test rows, was ever over the risk",
    "coverage: mean share of all test rows that is released after the last label; first_release: median over all orders, none: never",
    "certifiable: the two chains release something in at least half of the orders",
    "orders share their questions, so shares are not those of independent samples",
)


@dataclass(frozen=True)
class Asked:
    """What the command line named."""

    targets: tuple[str, ...]
    panel: tuple[str, ...] | None
    risks: tuple[float, ...]


def on_file(path: Path, asked: Asked, seed: int, orders: int, most: int, say: Say) -> dict[str, Any]:
    """Scorers and ladders of every target. Raises `Refused` for a file or names that are not understood."""
    file = read(path)
    if file.rows < LEAST_ROWS:
        raise Refused(
            f"{path}: {file.rows} questions; accepted: at least {LEAST_ROWS}, to fit and to test", kind="outcomes"
        )
    targets = file.known(asked.targets, "--target") or file.best()[:TARGETS]
    rows: list[Row] = []
    for index, target in enumerate(targets):
        panel = _panel(file, target, asked.panel)
        rows.extend(_target(np.random.default_rng([seed, 21, index]), file, target, panel, asked.risks, orders, most))
        say(f"{target}: done")
    return {
        "seed": seed,
        "data": {"file": path.name, "rows": file.rows, "models": len(file.models), "orders": orders},
        "rows": rows,
        **{name: rows[0][name] for name in ("scorers", "ladder", "certifiable")},
        "tables": tables(rows),
        "notes": [*NOTES, "scorers, ladder, certifiable: of the first row; every target and risk is in rows"],
        "summary": summary(rows),
    }


def _panel(file: Outcomes, target: str, asked: Sequence[str] | None) -> list[str]:
    if asked is None:
        return [name for name in file.best() if name != target][:PANEL]
    panel = file.known(asked, "--panel")
    if target in panel:
        raise Refused(f"--panel: {target!r} is the target; accepted: other models of the file", kind="usage")
    return panel


def _target(
    rng: np.random.Generator,
    file: Outcomes,
    target: str,
    panel: list[str],
    risks: Sequence[float],
    orders: int,
    most: int,
) -> list[Row]:
    known = signals(file, target, panel)
    mixed = rng.permutation(file.rows)
    cut = min(FIT, max(1, file.rows // FIT_PART))
    fit, test = mixed[:cut], mixed[cut:]
    found = scorers(known, fit)
    told = {name: _rounded(figures(p[test], known.right[test])) for name, p in found.items()}
    score, right = found["logistic"], known.right
    thresholds = rungs_of(score[fit])
    about = {
        "suite": "data",
        "target": target,
        "panel": panel,
        "accuracy": round(file.models[target].accuracy, 4),
        "fit": len(fit),
        "test": len(test),
        "labels": min(most, len(test)),
        "replicates": orders,
    }
    chosen = [rng.permutation(len(test))[:most] for _ in range(orders)]
    return [
        {**about, "risk": risk, "scorers": told, **_ladders(score[test], ~right[test], thresholds, chosen, risk)}
        for risk in risks
    ]


def _rounded(found: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 4) for name, value in found.items()}


def _ladders(
    score: Reals, wrong: Flags, thresholds: Reals, orders: Sequence[NDArray[np.int64]], risk: float
) -> dict[str, Any]:
    inside = score[:, None] >= thresholds[None, :]
    sizes = inside.sum(axis=0)
    share = np.array([0.0, *(sizes / len(score))])
    truth = np.array([0.0, *((inside & wrong[:, None]).sum(axis=0) / np.maximum(sizes, 1))])
    over: dict[str, list[bool]] = {name: [] for name in RULES}
    coverage: dict[str, list[float]] = {name: [] for name in RULES}
    first: dict[str, list[float]] = {name: [] for name in RULES}
    for order in orders:
        for name, rungs in released(count(score[order], wrong[order], thresholds), risk).items():
            over[name].append(bool((truth[rungs] > risk).any()))
            coverage[name].append(float(share[rungs[-1]]))
            first[name].append(float(np.argmax(rungs > 0) + 1) if rungs.any() else np.inf)
    ladder: dict[str, Any] = {}
    for name in RULES:
        low, high = interval(sum(over[name]), len(orders))
        ladder[name] = {
            "violation": sum(over[name]) / len(orders),
            "violation_low": low,
            "violation_high": high,
            "coverage": round(sum(coverage[name]) / len(orders), 4),
            "first_release": quantile(np.array(first[name]), 0.5),
        }
    return {"ladder": ladder, "certifiable": ladder["two_chains"]["first_release"] is not None}


def tables(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """For the screen."""
    scores = [
        {
            "target": one["target"],
            "scorer": name,
            **{key: "none" if value is None else value for key, value in line.items()},
        }
        for one in rows
        if one["risk"] == rows[0]["risk"]
        for name, line in one["scorers"].items()
    ]
    ladders = [
        {
            "target": one["target"],
            "risk": one["risk"],
            "rule": name,
            "violation": f"{100 * line['violation']:.1f} %",
            "at most (95 %)": f"{100 * line['violation_high']:.1f} %",
            "coverage": line["coverage"],
            "first release": line["first_release"] if line["first_release"] is not None else "never",
            "": "not certifiable" if name == "two_chains" and not one["certifiable"] else "",
        }
        for one in rows
        for name, line in one["ladder"].items()
    ]
    return {"scorers": table(scores, *scores[0]), "ladders": ladders}


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Violations of our ladder, the worst of all targets and risks, with its limit; the others' worst beside it."""
    worst = {name: max(one["ladder"][name]["violation"] for one in rows) for name in RULES}
    upper = max(one["ladder"]["two_chains"]["violation_high"] for one in rows)
    return {
        "violation": figure(worst["two_chains"], at_most=0.05),
        "violation_upper": figure(upper),
        **{f"violation_{name}": figure(worst[name]) for name in RULES if name != "two_chains"},
        "certifiable_rows": figure(sum(one["certifiable"] for one in rows)),
    }
