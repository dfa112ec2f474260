"""`ratchet bench router --format paretobandit`: does the router, which sees only what it drew, beat the best single arm within a budget?

Per order of the rows: the first are the warm start (or a file of their own), the rest is the stream. The basis is made of the warm
texts, with `--basis` of those of that file too; the stream's texts are seen one by one as they come, their outcomes only of the drawn arm.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.router import basis_build
from agents.router.basis import Basis
from schemas.errors import Refused
from tools.bench import Say, figure
from tools.bench.pareto_data import NANO, Outcomes, read
from tools.bench.pareto_play import Played, Settings, play, warmed
from tools.bench.pareto_rules import Hindsight

SEED = 1
ORDERS, WARM = 10, 300
BUDGETS: tuple[float | None, ...] = (3e-4, 1e-3, 3e-3, 7e-3, None)
MOST_ERROR = 0.005
AIM = 0.94
USAGE = (
    f"ratchet bench router --format paretobandit --data FILE [--warm FILE] [--warm-n N (default {WARM}, at least "
    f"{basis_build.LEAST_TEXTS})] [--basis FILE] [--orders N (default {ORDERS}, 1 to 1000)]"
)
NOTES = (
    "reward, cost ($): means over the orders of the stream's means; budget_error: mean over the orders of |cost ÷ budget - 1|",
    "binds: without a budget the router would spend more; only there a budget can be met to the dollar",
    "best_single, best_single_within_budget, random_mix_at_cost (at the router's cost), oracle: with hindsight over all arms' outcomes",
    "least_propensity: of a drawn arm; explored: share of requests drawn beside the preferred arm",
)


@dataclass(frozen=True, eq=False)
class Order:
    """One order: the warm start, and the stream after it."""

    warm_x: NDArray[np.int16]
    warm: Outcomes
    x: NDArray[np.int16]
    stream: Outcomes


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The format's options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench router", add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("--data", "--warm", "--basis"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--warm-n", type=int, default=WARM)
    parser.add_argument("--orders", type=int, default=ORDERS)
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    problems = [f"not understood: {' '.join(left)}"] if left else []
    if chosen.data is None:
        problems.append("--data is missing")
    if chosen.warm_n < basis_build.LEAST_TEXTS:
        problems.append(f"--warm-n {chosen.warm_n}")
    if not 1 <= chosen.orders <= 1000:
        problems.append(f"--orders {chosen.orders}")
    if problems:
        raise Refused(f"{'; '.join(problems)}; {USAGE}", kind="usage")
    return chosen


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options or a file that are not understood."""
    chosen = options_of(options)
    rows = read(chosen.data)
    warm = None if chosen.warm is None else read(chosen.warm)
    texts = () if chosen.basis is None else read(chosen.basis).prompts
    return measured(rows, warm, texts, say, warm_n=chosen.warm_n, orders=chosen.orders)


def measured(
    rows: Outcomes,
    warm: Outcomes | None,
    texts: Sequence[str],
    say: Say,
    *,
    warm_n: int = WARM,
    orders: int = ORDERS,
    budgets: Sequence[float | None] = BUDGETS,
    settings: Settings = Settings(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """All orders, at each budget. Raises `Refused` where the rows are too few, or the warm rows have other arms."""
    _check(rows, warm, warm_n)
    found: dict[str, list[dict[str, float | None]]] = {_name(budget): [] for budget in budgets}
    for number in range(orders):
        order = _ordered(rows, warm, texts, warm_n, number)
        start = warmed(order.warm_x, order.warm)
        for budget in budgets:
            limit = None if budget is None else round(budget * NANO)
            name = f"{SEED}/{number}/{_name(budget)}"
            played = play(start, order.warm_x, order.x, order.stream, limit, name, settings)
            found[_name(budget)].append(_compared(played, Hindsight.of(order.stream), budget))
        say(f"order {number + 1} of {orders}: done")
    free = found.get(_name(None))
    spends = None if free is None else _mean(free, "cost")
    results = {_name(budget): _result(found[_name(budget)], budget, spends) for budget in budgets}
    return {
        "seed": SEED,
        "rows": len(rows.prompts),
        "warm_rows": warm_n if warm is None else len(warm.prompts),
        "orders": orders,
        "arms": list(rows.arms),
        "settings": {
            "table": "normal-256/1",
            "alpha": settings.rule.alpha,
            "keep": settings.keep,
            "every": settings.every,
        },
        "results": results,
        "summary": _summary(results),
        "tables": {"paretobandit": [_line(name, row) for name, row in results.items()]},
        "notes": list(NOTES),
    }


def _check(rows: Outcomes, warm: Outcomes | None, warm_n: int) -> None:
    if warm is not None and warm.arms != rows.arms:
        raise Refused(
            f"--warm: its arms are {list(warm.arms)}; accepted: those of --data, {list(rows.arms)}", kind="invalid"
        )
    labelled = warm_n if warm is None else len(warm.prompts)
    if labelled < basis_build.LEAST_TEXTS:
        raise Refused(f"--warm: {labelled} rows; accepted: at least {basis_build.LEAST_TEXTS}", kind="invalid")
    if warm is None and len(rows.prompts) <= warm_n:
        raise Refused(
            f"--data: {len(rows.prompts)} rows, of which {warm_n} are the warm start; accepted: more than --warm-n, or a file --warm",
            kind="invalid",
        )


def _ordered(rows: Outcomes, warm: Outcomes | None, texts: Sequence[str], warm_n: int, number: int) -> Order:
    """The rows in their seeded order, and the basis of what may be known before the stream."""
    mixed = np.random.default_rng([SEED, number]).permutation(len(rows.prompts))
    if warm is None:
        warm, rows = rows.part(mixed[:warm_n]), rows.part(mixed[warm_n:])
    else:
        rows = rows.part(mixed)
    known = basis_build.build([*warm.prompts, *texts], SEED + number)
    return Order(_vectors(known, warm.prompts), warm, _vectors(known, rows.prompts), rows)


def _vectors(known: Basis, texts: Sequence[str]) -> NDArray[np.int16]:
    return np.stack([known.vector(text) for text in texts])


def _compared(played: Played, hindsight: Hindsight, budget: float | None) -> dict[str, float | None]:
    """A run beside what hindsight would have done."""
    rows = np.arange(len(played.arms))
    best, within = hindsight.best_single(), hindsight.best_single(budget)
    return {
        "reward": played.reward,
        "cost": played.cost,
        "budget_error": None if budget is None else abs(played.cost / budget - 1.0),
        "best_single": best[0] if best else None,
        "best_single_cost": best[1] if best else None,
        "best_single_within_budget": within[0] if within else None,
        "random_mix_at_cost": hindsight.random_mix(played.cost),
        "oracle": hindsight.oracle(budget),
        "explored": float(played.explored.mean()),
        "least_propensity": float(played.propensities[rows, played.arms].min()) / 65_536,
        "masked": played.masked / len(played.arms),
    }


def _result(runs: Sequence[Mapping[str, float | None]], budget: float | None, spends: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {name: _mean(runs, name) for name in runs[0]}
    rewards = [run["reward"] for run in runs if run["reward"] is not None]
    over = [
        run["reward"] - run["best_single"]
        for run in runs
        if run["reward"] is not None and run["best_single"] is not None
    ]
    binds = None if budget is None or spends is None else spends > budget
    return {
        "budget": budget,
        "binds": binds,
        **found,
        "reward_min": min(rewards),
        "reward_max": max(rewards),
        "over_best_single": {"mean": float(np.mean(over)), "min": min(over), "max": max(over)},
    }


def _mean(runs: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """The mean over the orders; None where one has none."""
    values = [run[name] for run in runs]
    kept = [value for value in values if value is not None]
    return float(np.mean(kept)) if len(kept) == len(values) else None


def _summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    free = results.get(_name(None))
    if free is not None:
        found["reward_over_best_single"] = figure(free["over_best_single"]["mean"], at_least=0.0)
        found["cost_of_best_single"] = figure(free["cost"] / free["best_single_cost"], at_most=1.0)
        found["reward"] = figure(free["reward"])
        found["reward_to_aim"] = figure(free["reward"] - AIM)
    for name, row in results.items():
        if row["budget"] is not None:
            limit = MOST_ERROR if row["binds"] else None
            found[f"budget_error_{name}"] = figure(row["budget_error"], at_most=limit)
            if row["random_mix_at_cost"] is not None:
                found[f"over_random_mix_{name}"] = figure(row["reward"] - row["random_mix_at_cost"], at_least=0.0)
    return found


def _line(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    shown = (
        "reward",
        "cost",
        "budget_error",
        "best_single",
        "best_single_within_budget",
        "random_mix_at_cost",
        "oracle",
    )
    return {"budget": name, **{key: "none" if row[key] is None else round(row[key], 6) for key in shown}}


def _name(budget: float | None) -> str:
    return "none" if budget is None else f"{budget:g}"
