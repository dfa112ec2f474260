"""One picture of the router's run: reward, cost against the budget, and who answers, over time."""

# pyright: reportUnknownMemberType=false
# matplotlib types its keyword arguments as Any.

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from tools.demo.picture import BLUE, GREEN, INK, MUTED, ORANGE, RED, label
from tools.demo.routing.log import Row, alone, answered_by, cost, good, periods, rolling, share
from tools.demo.run import Mark

MICRO = 1000  # nano-USD
Points = list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn beside the rows. `budget` in nano-USD, `down`: from when to when (epoch ms) an arm's breaker let nothing pass."""

    small: str
    large: str
    budget: int
    period_s: int
    window: int
    marks: Sequence[Mark]
    down: Sequence[tuple[int, int]]
    title: str


def draw(rows: Sequence[Row], start_ms: int, drawn: Drawn, path: Path) -> None:
    """Write the picture as PNG. `rows` in order of time."""
    figure = Figure(figsize=(12, 9), dpi=120, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(5, 4, 3))
    figure.suptitle(drawn.title, x=0.01, ha="left", color=INK, fontsize=12.5, fontweight="bold")
    end_s = max((row.at_ms - start_ms for row in rows), default=1000) / 1000

    def seconds(points: Points) -> list[float]:
        return [(at - start_ms) / 1000 for at, _ in points]

    _reward(top, rows, drawn, seconds)
    _cost(middle, rows, drawn, seconds, start_ms, end_s)
    _shares(bottom, rows, drawn, seconds)
    bottom.set_xlabel("seconds since the first customer", color=INK)
    for axes in (top, middle, bottom):
        axes.grid(visible=True, color="#e4e7eb", lw=0.6)
        axes.tick_params(colors=MUTED, labelsize=9)
        axes.set_xlim(-0.01 * end_s, 1.02 * end_s)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for mark in drawn.marks:
            axes.axvline((mark.at_ms - start_ms) / 1000, color=MUTED, lw=0.8, ls=":", zorder=3)
        for begun, ended in drawn.down:
            axes.axvspan((begun - start_ms) / 1000, (ended - start_ms) / 1000, color=RED, alpha=0.10, lw=0)
    label(top, sorted(drawn.marks, key=lambda mark: mark.at_ms), start_ms, end_s, letter=0.0082)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _reward(axes: Any, rows: Sequence[Row], drawn: Drawn, seconds: Callable[[Points], list[float]]) -> None:
    """Of those who answered; of each arm alone, by the requests that both answered."""
    points = rolling(rows, good, drawn.window)
    axes.plot(seconds(points), [value for _, value in points], color=BLUE, lw=2, label="answers that went out")
    for arm, other, colour in ((drawn.small, drawn.large, GREEN), (drawn.large, drawn.small, ORANGE)):
        both = alone(rows, arm, other)
        level = share(both)
        if level is not None:
            words = f"{arm} alone: {level:.0%} of {len(both)} that both answered"
            axes.axhline(level, color=colour, lw=1.2, ls="--", label=words)
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axes.set_ylabel(f"right of the last {drawn.window}", color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK, ncols=3)


def _cost(
    axes: Any, rows: Sequence[Row], drawn: Drawn, seconds: Callable[[Points], list[float]], start_ms: int, end_s: float
) -> None:
    """Rolling and of each period of the budget, against what a request may cost; beside what the large arm costs."""
    paid = rolling(rows, cost, drawn.window)
    axes.plot(seconds(paid), [value / MICRO for _, value in paid], color=BLUE, lw=1.8, label=f"the last {drawn.window}")
    axes.axhline(drawn.budget / MICRO, color=GREEN, lw=1.4, ls="--", label="budget")
    dear = rolling(rows, lambda row: row.expected.get(drawn.large), drawn.window)
    told = [value / MICRO for _, value in dear]
    axes.plot(seconds(dear), told, color=ORANGE, lw=1.0, ls=":", label=f"an answer by {drawn.large}")
    label = "mean of a period"
    for begun_ms, mean, _ in periods(rows, drawn.period_s):
        begun, ended = (begun_ms - start_ms) / 1000, (begun_ms - start_ms) / 1000 + drawn.period_s
        axes.plot([max(begun, 0), min(ended, end_s)], [mean / MICRO] * 2, color=INK, lw=2.2, alpha=0.55, label=label)
        label = ""
    axes.set_ylim(bottom=0)
    axes.set_ylabel("micro-dollars\na request", color=INK)
    axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=INK, ncols=4)


def _shares(axes: Any, rows: Sequence[Row], drawn: Drawn, seconds: Callable[[Points], list[float]]) -> None:
    """Who answered, stacked."""
    large = rolling(rows, answered_by(drawn.large), drawn.window)
    small = [1 - value for _, value in large]
    axes.stackplot(
        seconds(large), small, [value for _, value in large],
        colors=[GREEN, ORANGE], alpha=0.45, lw=0, labels=[drawn.small, drawn.large],
    )  # fmt: skip
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of answers", color=INK)
    axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK, ncols=2)
