"""`ratchet bench judge --data FILE`: the judge on the recorded answers of real models, in many orders.

Suites: `quality` (F1 alone), `swap` (the same where each pair's two answers are exchanged by a coin: nobody is better, whatever the
models are), `noninferiority` (the quality guardrail alone) and `whole` (quality and cost; what a file does not have is in `absent`).
An order is a random selection of min(5,000, rows) questions without replacement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.judge.arena import PROCESSES
from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench.exact import interval
from tools.bench.judge_draws import contrasts
from tools.bench.judge_rules import (
    ALONE,
    EVERY,
    LEAST_QUALITY,
    NULLS,
    QUALITY_RULES,
    SETTINGS,
    asymptotic_cs,
    cheaper,
    enough,
    ever,
    first_looks,
    paired_t,
    passed,
    sums,
    whole,
)
from tools.bench.outcomes import NONE, Answers, Outcomes, read
from tools.bench.rows import Row, row, table
from tools.bench.twin import Reals, Whole, at_looks, count_looks, mean_looks, value_looks

SUITES = ("quality", "swap", "noninferiority", "whole")
ABSENT = ("latency", "latency p95", "errors")
NOTES = (
    "share: orders in which the rule ever promotes, looked at every 10 pairs; 95 % exact (Clopper-Pearson)",
    "orders of one pair of models share its questions, so their shares are not those of independent samples",
    "swap: each pair's answers exchanged by a coin; there each rule's share is its false promotions",
    "whole: quality and cost only, characters standing for cost; absent: " + ", ".join(ABSENT),
)
Flags = NDArray[np.bool_]
Firsts = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Orders:
    """How often and how long each pair of models is judged."""

    seed: int
    count: int
    most: int


@dataclass(frozen=True)
class Drawn:
    """(pairs, orders): two models' answers to the same questions."""

    champion: Flags
    challenger: Flags
    champion_chars: Whole
    challenger_chars: Whole
    swapped: tuple[Flags, Flags]


def on_file(path: Path, asked: Sequence[str], orders: Orders, say: Say) -> dict[str, Any]:
    """Every suite on every pair of models. Raises `Refused` for a file or a pair that is not understood."""
    file = read(path)
    if file.rows < EVERY:
        raise Refused(
            f"{path}: {file.rows} questions; accepted: at least {EVERY}, the pairs between two looks", kind="outcomes"
        )
    chosen = [_pair(file, text) for text in asked] or neighbours(file)
    rows: list[Row] = []
    for index, (champion, challenger) in enumerate(chosen):
        rng = np.random.default_rng([orders.seed, 5, index])
        rows.extend(_rows(rng, file, champion, challenger, orders))
        say(f"{champion} → {challenger}: done")
    return {
        "seed": orders.seed,
        "data": {"file": path.name, "rows": file.rows, "models": len(file.models), "orders": orders.count},
        "absent": list(ABSENT),
        "rows": rows,
        "tables": {
            "judge, on the file": table(
                rows, "suite", "champion", "challenger", "difference", "rule", "share", "median_pairs", "p90_pairs"
            )
        },
        "notes": list(NOTES),
        "summary": summary(rows),
    }


def _pair(file: Outcomes, text: str) -> tuple[str, str]:
    """Two models by name: split at the comma that leaves two known ones, since a name may hold commas."""
    parts = text.split(",")
    for at in range(1, len(parts)):
        one, other = ",".join(parts[:at]), ",".join(parts[at:])
        if one in file.models and other in file.models and one != other:
            return one, other
    raise Refused(
        f"--pair: {text!r} is not CHAMPION,CHALLENGER with two models of {file.path}; accepted: {', '.join(file.models)}",
        kind="usage",
    )


def neighbours(file: Outcomes) -> list[tuple[str, str]]:
    """Each two models that are next to each other in accuracy, both ways. Raises `Refused` where there is one model only."""
    best = file.best()
    if len(best) < 2:
        raise Refused(
            f"{file.path}: {len(best)} model; accepted: two or more, a champion and a challenger", kind="outcomes"
        )
    return [pair for worse, better in zip(best[1:], best, strict=False) for pair in ((worse, better), (better, worse))]


def about(file: Outcomes, champion: str, challenger: str) -> dict[str, Any]:
    """What a pair of models is: accuracies apart, how alike."""
    one, other = file.models[champion], file.models[challenger]
    spread = (one.accuracy * (1 - one.accuracy) * other.accuracy * (1 - other.accuracy)) ** 0.5
    both = float((one.right & other.right).mean())
    return {
        "champion": champion,
        "challenger": challenger,
        "difference": other.accuracy - one.accuracy,
        "correlation": (both - one.accuracy * other.accuracy) / spread if spread else None,
        "discordant": float((one.right != other.right).mean()),
        "same_answer": float(((one.pred == other.pred) & (one.pred != NONE)).mean()),
    }


def _drawn(rng: np.random.Generator, one: Answers, other: Answers, orders: Orders) -> Drawn:
    take = min(orders.most, len(one.right))
    at = np.stack([rng.permutation(len(one.right))[:take] for _ in range(orders.count)], axis=1)
    first, second = one.right[at], other.right[at]
    coin = rng.random(at.shape) < 0.5
    swapped = np.where(coin, second, first), np.where(coin, first, second)
    return Drawn(first, second, one.chars[at], other.chars[at], swapped)


def _rows(rng: np.random.Generator, file: Outcomes, champion: str, challenger: str, orders: Orders) -> list[Row]:
    more = about(file, champion, challenger)
    drawn = _drawn(rng, file.models[champion], file.models[challenger], orders)
    works: dict[str, Callable[[Drawn], Firsts]] = {
        "quality": lambda drawn: _better(drawn.champion, drawn.challenger),
        "swap": lambda drawn: _better(*drawn.swapped),
        "noninferiority": _not_worse,
        "whole": _whole,
    }
    return [
        row(suite, f"{champion} → {challenger}", rule, firsts, **more)
        for suite in SUITES
        for rule, firsts in works[suite](drawn).items()
    ]


def _gap(champion: Flags, challenger: Flags) -> NDArray[np.int8]:
    return challenger.astype(np.int8) - champion.astype(np.int8)


def _better(champion: Flags, challenger: Flags) -> Firsts:
    wealth = count_looks({"better": NULLS["quality"].bets["better"]}, _gap(champion, challenger), EVERY)["better"]
    others = {name: first_looks(rule(champion, challenger)) for name, rule in QUALITY_RULES.items()}
    return {"ratchet": first_looks(ever(wealth, ALONE)), **others}


def _quality(drawn: Drawn) -> dict[str, Reals]:
    return _named("quality", count_looks(NULLS["quality"].bets, _gap(drawn.champion, drawn.challenger), EVERY))


def _named(track: str, looks: Mapping[str, Reals]) -> dict[str, Reals]:
    """By the product's names of the processes."""
    return {row.name: looks[row.null] for row in PROCESSES if row.track == track}


def _not_worse(drawn: Drawn) -> Firsts:
    margin = SETTINGS.quality_margin
    return {
        "ratchet": first_looks(passed(_quality(drawn), "quality")),
        "paired_t": first_looks(paired_t(drawn.champion, drawn.challenger, margin)),
        "asymptotic_cs": first_looks(asymptotic_cs(drawn.champion, drawn.challenger, margin)),
    }


def _whole(drawn: Drawn) -> Firsts:
    d = contrasts(drawn.champion_chars, drawn.challenger_chars)
    found = _quality(drawn) | _named("cost", value_looks(NULLS["cost"], d, EVERY))
    saved = cheaper(sums(drawn.champion_chars), sums(drawn.challenger_chars))
    better = mean_looks(_gap(drawn.champion, drawn.challenger).astype(np.float64), EVERY) >= SETTINGS.quality_bar
    good, other = at_looks(drawn.champion, EVERY), at_looks(drawn.challenger, EVERY)
    point = (saved | better) & (other >= LEAST_QUALITY * good)
    return {
        "ratchet": first_looks(whole(found, {"quality": better, "cost": saved}, ("quality", "cost"))),
        "point_estimate": first_looks(enough(point)),
    }


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """False promotions under exchange, all pairs of models pooled: ours with its limit, the others beside it."""
    found: dict[str, Any] = {}
    for rule in ("ratchet", *QUALITY_RULES):
        swaps = [one for one in rows if one["suite"] == "swap" and one["rule"] == rule]
        of = sum(one["replicates"] for one in swaps)
        hits = sum(round(one["share"] * one["replicates"]) for one in swaps)
        if rule == "ratchet":
            found |= {"swap": figure(hits / of, at_most=0.05), "swap_upper": figure(interval(hits, of)[1])}
        else:
            found[f"swap_{rule}"] = figure(hits / of)
    return found
