"""What the judge's and trust's benchmarks print: rows with exact intervals, and the figures of a summary."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tools.bench import figure
from tools.bench.exact import interval

Row = dict[str, Any]


def quantile(firsts: NDArray[np.float64], share: float) -> float | None:
    """The least number by which this share of all replicates was promoted; None where fewer ever were."""
    at = np.sort(firsts)[max(0, math.ceil(share * len(firsts)) - 1)]
    return float(at) if np.isfinite(at) else None


def row(suite: str, scenario: str, rule: str, firsts: NDArray[np.float64], **more: Any) -> Row:
    """A rule on a scenario: how many of its replicates were ever promoted, and after how many pairs. Those never promoted count
    in the median and the p90."""
    hits, of = int(np.isfinite(firsts).sum()), len(firsts)
    low, high = interval(hits, of)
    return {
        "suite": suite,
        "scenario": scenario,
        "rule": rule,
        "replicates": of,
        "share": hits / of,
        "share_low": low,
        "share_high": high,
        "median_pairs": quantile(firsts, 0.5),
        "p90_pairs": quantile(firsts, 0.9),
        **more,
    }


def at_most(name: str, found: Row, limit: float) -> dict[str, Any]:
    """A promise and, beside it, the upper end of the exact interval."""
    return {name: figure(found["share"], at_most=limit), f"{name}_upper": figure(found["share_high"])}


def power(name: str, found: Row, least: float | None = None) -> dict[str, Any]:
    """How often what is better was promoted."""
    return {name: figure(found["share"], at_least=least)}


def table(rows: Sequence[Row], *names: str) -> list[Row]:
    """These columns of the rows, shares as percentages, for the screen."""
    return [{name: _said(name, one[name]) for name in names} for one in rows]


def _said(name: str, value: object) -> object:
    if name.startswith("share") and isinstance(value, float):
        return f"{100.0 * value:.1f} %"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {part:g}" for key, part in cast("dict[str, float]", value).items())
    return "never" if value is None else value
