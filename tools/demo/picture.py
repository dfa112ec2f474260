"""One picture of the whole run: accuracy, who serves, and the evidence (log E) over time."""

# pyright: reportUnknownMemberType=false
# matplotlib types its keyword arguments as Any.

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from tools.demo.ledger import ROLLING, Contest, Ledger
from tools.demo.run import Mark

INK, MUTED, BLUE, ORANGE, GREEN, RED, PURPLE = (
    "#1f2933", "#7b8794", "#2b6cb0", "#c05621", "#2f855a", "#c53030", "#6b46c1"
)  # fmt: skip
ENDINGS = {"rejected": RED, "promoted": GREEN, "degraded": RED, "rolled back": GREEN}
SHOWN_MOST = 30.0  # log E: beyond that a process only grows
SHOWN_LEAST = -6.0


def draw(ledger: Ledger, start_ms: int, marks: Sequence[Mark], path: Path, title: str) -> None:
    """Write the picture as PNG. Times are epoch milliseconds."""
    figure = Figure(figsize=(12, 8), dpi=120, layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(6, 2, 4))
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=12.5, fontweight="bold")
    end = max((row.answered_ms for row in ledger.asked.values()), default=start_ms)
    end_s = (end - start_ms) / 1000

    points = ledger.rolling()
    top.plot([(at - start_ms) / 1000 for at, _ in points], [share for _, share in points], color=BLUE, lw=1.8)
    top.set_ylim(0, 1.3)
    top.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    top.set_ylabel(f"right of the last {ROLLING}", color=INK)

    _served(middle, ledger, start_ms, end_s)
    _evidence(bottom, list(ledger.contests.values()), start_ms)
    bottom.set_xlabel("seconds since the first customer", color=INK)

    for axes in (top, middle, bottom):
        axes.grid(visible=True, color="#e4e7eb", lw=0.6)
        axes.tick_params(colors=MUTED, labelsize=9)
        axes.set_xlim(-0.01 * end_s, 1.02 * end_s)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for mark in marks:
            at = (mark.at_ms - start_ms) / 1000
            colour = MUTED if mark.ending is None else ENDINGS[mark.ending]
            axes.axvline(at, color=colour, lw=0.7 if mark.ending is None else 1.2, ls=":", zorder=0)
    _damage(top, marks, start_ms, end_s)
    label(top, marks, start_ms, end_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _served(axes: Any, ledger: Ledger, start_ms: int, end_s: float) -> None:
    """The share of requests that the trained challenger serves, as the fleet's policy says it."""
    contest = ledger.contest
    times, shares = [0.0], [0.0]
    for fleet in ledger.fleets:
        serves_all = contest is not None and fleet.champion == contest.challenger
        times.append(max(0.0, (fleet.at_ms - start_ms) / 1000))
        shares.append(1.0 if serves_all else fleet.rollout_bp / 10_000)
    axes.fill_between([*times, end_s], [*shares, shares[-1]], step="post", color=ORANGE, alpha=0.35, lw=0)
    axes.set_ylim(0, 1.05)
    axes.set_yticks([0, 0.2, 0.5, 0.8, 1.0])
    axes.set_yticklabels(["0", "20 %", "50 %", "80 %", "100 %"])
    axes.set_ylabel("served by\nthe challenger", color=INK)


def _evidence(axes: Any, contests: list[Contest], start_ms: int) -> None:
    """log E of every challenger: that it is better, and that it is harmful."""
    highest = 6.0
    for index, contest in enumerate(contests):
        times = [(look.at_ms - start_ms) / 1000 for look in contest.looks]
        better, worse = [look.log_e for look in contest.looks], [look.worse for look in contest.looks]
        colour = (ORANGE, PURPLE)[(len(contests) - 1 - index) % 2]
        axes.plot(times, better, color=colour, lw=1.8, marker="o", ms=2.5, label=f"{contest.challenger} is better")
        axes.plot(
            times, worse, color=colour, lw=1.4, ls="--", marker="o", ms=2.5, label=f"{contest.challenger} is harmful"
        )
        highest = max(highest, *better, *worse) if times else highest
    looks = [look for contest in contests for look in contest.looks]
    if looks:
        axes.axhline(looks[-1].needed, color=GREEN, lw=1, ls="--")
        axes.annotate(
            f"needed: {looks[-1].needed:.1f}", (0, looks[-1].needed), xycoords=("axes fraction", "data"),
            xytext=(4, 2), textcoords="offset points", va="bottom", color=GREEN, fontsize=9,
        )  # fmt: skip
        axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=INK)
    axes.set_ylim(SHOWN_LEAST, min(SHOWN_MOST, 1.1 * highest))
    axes.set_ylabel("log E", color=INK)


def _damage(axes: Any, marks: Sequence[Mark], start_ms: int, end_s: float) -> None:
    """The time in which the serving arm was damaged."""
    begun = next((mark.at_ms for mark in marks if mark.ending == "degraded"), None)
    if begun is None:
        return
    ended = next((mark.at_ms for mark in marks if mark.ending == "rolled back"), None)
    until = end_s if ended is None else (ended - start_ms) / 1000
    axes.axvspan((begun - start_ms) / 1000, until, color=RED, alpha=0.10, lw=0)


def label(axes: Any, marks: Sequence[Mark], start_ms: int, end_s: float, letter: float = 0.0078) -> None:
    """Words beside the lines, on rows that do not meet: a row is free where its last words have ended. `letter`: its width."""
    free = [-1e9] * 5
    for mark in marks:
        at = (mark.at_ms - start_ms) / 1000
        width = end_s * letter * len(mark.words)
        late = at + width > end_s
        left = at - width if late else at
        row = next((i for i, taken in enumerate(free) if taken <= left), free.index(min(free)))
        free[row] = left + width
        axes.annotate(
            mark.words, (at, 1.29 - 0.062 * row), xytext=(-3 if late else 3, 0), textcoords="offset points",
            fontsize=8.5, color=INK if mark.ending is None else ENDINGS[mark.ending], va="top",
            ha="right" if late else "left", fontweight="normal" if mark.ending is None else "bold",
        )  # fmt: skip
