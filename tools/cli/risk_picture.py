"""Risk over coverage: what share of each rung was rejected, what is proven of it, and the line that must not be crossed."""

# pyright: reportUnknownMemberType=false
# matplotlib types its keyword arguments as Any.

from pathlib import Path
from typing import Any

_HEIGHT, _CELL = 12, 6
INK, MUTED, BLUE, GREEN, ORANGE = "#1f2933", "#7b8794", "#2b6cb0", "#2f855a", "#c05621"


def _observed(rung: dict[str, Any]) -> float | None:
    return rung["rejected"] / rung["labels"] if rung["labels"] else None


def _top(told: dict[str, Any]) -> float:
    """The highest risk that the picture shows: three times the promised, or the highest observed."""
    seen = [risk for risk in map(_observed, told["rungs"]) if risk is not None]
    return min(1.0, max([3.0 * told["risk"], *(1.1 * risk for risk in seen)]))


def plot(told: dict[str, Any]) -> str:
    """Lines of text: `o` observed, `^` proven to be below, `-` the promise; one column a rung, `#` under those released."""
    rungs, top = told["rungs"], _top(told)
    rows = [[" "] * (_CELL * len(rungs)) for _ in range(_HEIGHT + 1)]

    def height(risk: float) -> int:
        return _HEIGHT - min(_HEIGHT, round(risk / top * _HEIGHT))

    rows[height(told["risk"])] = ["-"] * (_CELL * len(rungs))
    for number, rung in enumerate(rungs):
        column, observed, below = _CELL * number + _CELL // 2, _observed(rung), rung["risk_below"]
        if below is not None and below <= top:
            rows[height(below)][column] = "^"
        if observed is not None:
            rows[height(observed)][column] = "o"
    left = [f"{top * (_HEIGHT - row) / _HEIGHT:>6.1%} |" if row % 3 == 0 else "       |" for row in range(_HEIGHT + 1)]
    lines = [f"{head}{''.join(cells).rstrip()}" for head, cells in zip(left, rows, strict=True)]
    foot = "".join(f"{rung['coverage']:>{_CELL - 2}}% " for rung in rungs)
    bar = "".join(("#" * (_CELL - 1) if rung["released"] else "." * (_CELL - 1)) + " " for rung in rungs)
    note = "o rejected of those labelled   ^ proven below   - promised   # released"
    return "\n".join(["risk", *lines, " " * 8 + bar.rstrip(), " " * 8 + foot.rstrip() + " coverage", note])


def draw(told: dict[str, Any], path: Path) -> None:
    """The same as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(f"{told['route']}: {told['stands']}", x=0.01, ha="left", color=INK, fontsize=12, fontweight="bold")
    rungs = told["rungs"]
    seen = [(rung["coverage"], risk) for rung in rungs if (risk := _observed(rung)) is not None]
    below = [(rung["coverage"], rung["risk_below"]) for rung in rungs if rung["risk_below"] is not None]
    if told["rung"]:
        axes.axvspan(0, told["rung"], color=GREEN, alpha=0.08, lw=0)
    axes.plot([at for at, _ in below], [risk for _, risk in below], color=ORANGE, lw=1.2, marker="^", ms=4)
    axes.plot([at for at, _ in seen], [risk for _, risk in seen], color=BLUE, lw=1.8, marker="o", ms=4)
    axes.axhline(told["risk"], color=GREEN, lw=1, ls="--")
    axes.annotate(
        "promised: at most this share rejected", (0.01, told["risk"]), xycoords=("axes fraction", "data"), ha="left",
        va="bottom", color=GREEN, fontsize=9,
    )  # fmt: skip
    axes.set_xlim(0, 102)
    axes.set_ylim(0, _top(told) if rungs else 3 * told["risk"])
    axes.set_xlabel(
        "coverage, per cent of the answers; blue: rejected of those labelled, orange: proven below", color=INK
    )
    axes.set_ylabel("risk", color=INK)
    axes.grid(visible=True, color="#e4e7eb", lw=0.6)
    axes.tick_params(colors=MUTED, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
