"""One picture of the whole run: accuracy and the evidence (log E) over time."""

# pyright: reportUnknownMemberType=false
# matplotlib types its keyword arguments as Any.

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from tools.demo.ledger import Ledger

INK, MUTED, BLUE, ORANGE, GREEN = "#1f2933", "#7b8794", "#2b6cb0", "#c05621", "#2f855a"


def draw(ledger: Ledger, start_ms: int, marks: list[tuple[int, str]], path: Path, title: str) -> None:
    """Write the picture as PNG. `marks` are (time, words) of the phases; times are epoch milliseconds."""
    figure = Figure(figsize=(11, 6.4), dpi=120, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=13, fontweight="bold")

    points = ledger.rolling()
    top.plot([(at - start_ms) / 1000 for at, _ in points], [share for _, share in points], color=BLUE, lw=1.8)
    top.set_ylim(0, 1)
    top.set_ylabel("share of right answers\n(last 150)", color=INK)

    looks = ledger.looks
    bottom.plot(
        [(look.at_ms - start_ms) / 1000 for look in looks], [look.log_e for look in looks], color=ORANGE, lw=1.8
    )
    if looks:
        bottom.axhline(looks[-1].needed, color=GREEN, lw=1, ls="--")
        bottom.annotate(
            "needed: ln(3/α)", (1, looks[-1].needed), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            color=GREEN, fontsize=9,
        )  # fmt: skip
    bottom.set_ylabel("log E\n(challenger is better)", color=INK)
    bottom.set_xlabel("seconds", color=INK)

    for axes in (top, bottom):
        axes.grid(visible=True, color="#e4e7eb", lw=0.6)
        axes.tick_params(colors=MUTED, labelsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for at, _ in marks:
            axes.axvline((at - start_ms) / 1000, color=MUTED, lw=0.8, ls=":")
    last = max((at for at, _ in points), default=start_ms)
    for index, (at, words) in enumerate(marks):
        late = (at - start_ms) > 0.75 * (last - start_ms)
        top.annotate(
            words, ((at - start_ms) / 1000, 1.0 - 0.07 * (index % 4)), xytext=(-4 if late else 4, -2), textcoords="offset points",
            fontsize=8.5, color=INK, va="top", ha="right" if late else "left",
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
